"""``POST /feedback``: an image with its right class, kept for training; off by default.

The image comes once more: nothing of a request to ``/predict`` is remembered. It is kept in the
layout that training reads, ``<folder>/<Class>/<hash of the pixels>.png``: the decoded pixels and
nothing else of the upload. Several threads and processes may keep images in one folder.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from filelock import FileLock, Timeout
from flask import Blueprint, Response, jsonify, request
from numpy.typing import NDArray
from PIL import Image

from resformer.data.find import is_hidden
from resformer.dicom.description import DicomDescription
from resformer.images import decode_described
from web.batching import Pipeline, Pixels
from web.config import StartError, WebConfig
from web.errors import ApiError
from web.predict import find_orientation, refuse_picture
from web.reload import ServedModel
from web.requests import read_image, read_options
from web.schemas import FeedbackAnswer, FeedbackClass
from web.security import client_of

# What some file system reads as more than a character of a name.
_SPECIAL = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f\ud800-\udfff]|[. ]$')
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
_MAX_NAME_BYTES = 200
_BLOCK = 4096
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_SIZES = ".sizes"

_Sizes = dict[str, tuple[int, int]]


def create_blueprint(config: WebConfig, served: ServedModel, pipeline: Pipeline) -> Blueprint:
    """Return the route that keeps an image.

    Raises:
        StartError: if the folder cannot be used.
    """
    blueprint = Blueprint("feedback", __name__)
    store = FeedbackStore(config.uploads_path, config.feedback_max_bytes, config.time_limit)

    @blueprint.post("/feedback")
    def feedback() -> Response:
        _refuse_other_sites()
        service = served.current
        if not service.class_names:
            raise ApiError("model_not_ready")
        data, fields = read_image(config.max_bytes)
        _, options = read_options(fields, FeedbackClass)
        class_name = options.class_name or ""
        service.check_class(class_name)

        def decode() -> tuple[Pixels, Callable[[], tuple[Pixels, DicomDescription | None]]]:
            image = decode_described(data, max_pixels=config.max_pixels)
            pixels = options.correction.apply(image.pixels)
            return pixels, lambda: (pixels, image.dicom and image.dicom.rotated(options.rotate))

        with pipeline.enter(client_of(request.remote_addr), service.predict) as turn:
            (pixels, dicom), prediction = turn.classify(decode)
            if prediction.gate and not prediction.gate.accepted:
                orientation = find_orientation(prediction, options.correction, turn)
                raise refuse_picture(prediction.gate, orientation, dicom, "kept")
            turn.run(lambda: store.keep(pixels, class_name))
        return jsonify(
            FeedbackAnswer(success=True, class_name=class_name).model_dump(by_alias=True)
        )

    return blueprint


def _refuse_other_sites() -> None:
    """Keep pages that a person happens to visit from filling the folder through their browser.

    Browsers tell where a request comes from, programs do not.
    """
    site = request.headers.get("Sec-Fetch-Site")
    if site is None:  # a browser that is old, or that came without TLS
        is_own = "Origin" not in request.headers or _is_own(request.headers["Origin"])
    else:
        is_own = site in ("same-origin", "none")
    if not is_own:
        raise ApiError("cross_origin")


def _is_own(origin: str) -> bool:
    try:
        return urlsplit(origin).netloc == request.host
    except ValueError:  # no address at all
        return False


class FeedbackStore:
    """Keeps images by class; the same image is kept once, with the class that was given last.

    Args:
        folder: where to keep them; made if it does not exist.
        max_bytes: how large the folder may grow, in blocks of 4 KiB as on a disk.
        patience: seconds to wait while others keep their images.

    Raises:
        StartError: if nothing can be kept in the folder.
    """

    def __init__(self, folder: Path, max_bytes: int, patience: float) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._lock = FileLock(folder / ".lock", timeout=patience)
        try:
            with self._alone():
                pass
        except (OSError, ApiError) as error:
            raise StartError(f"cannot keep feedback in {folder}: {error}") from error

    def keep(self, pixels: NDArray[np.uint8], class_name: str) -> None:
        """Keep an image ``(H, W)`` under a class, and under no other.

        Raises:
            ApiError: ``storage_full``, if there is no room for it; nothing has changed then;
                ``busy``, if others keep theirs for too long.
        """
        data = _encode(pixels)
        name = f"{_digest(pixels)}.png"
        target = self._folder / class_folder(class_name) / name
        with self._alone():
            former = next(self._folder.glob(f"*/{name}"), None)
            if former == target:
                return
            sizes, size = self._read_sizes(), _on_disk(len(data))
            if former is None:
                if sum(used for _, used in sizes.values()) + size > self._max_bytes:
                    raise ApiError("storage_full")
                self._add(data, target)
                self._write_sizes(sizes, {target.parent: size})
                return
            target.parent.mkdir(exist_ok=True)
            os.replace(former, target)
            with suppress(OSError):  # other images of the class are there
                former.parent.rmdir()
            self._write_sizes(sizes, {former.parent: -size, target.parent: size})

    @contextmanager
    def _alone(self) -> Iterator[None]:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._lock:
                yield
        except Timeout:
            raise ApiError("busy") from None

    def _add(self, data: bytes, target: Path) -> None:
        # One at a time: what a killed process left behind is written over. Training skips it.
        incoming = self._folder / ".incoming"
        try:
            _write(incoming, data)
            target.parent.mkdir(exist_ok=True)
            os.replace(incoming, target)
        except OSError as error:
            incoming.unlink(missing_ok=True)
            if error.errno in _NO_SPACE:
                raise ApiError("storage_full") from error
            raise

    def _read_sizes(self) -> _Sizes:
        """Return when each class's folder changed last, and its bytes.

        They stand in a file for all processes; only a folder that has changed since is walked.
        """
        try:
            known = json.loads((self._folder / _SIZES).read_text(encoding="utf-8"))
            sizes = {
                str(name): (int(changed), int(size)) for name, (changed, size) in known.items()
            }
        except (OSError, ValueError, TypeError, AttributeError):
            sizes = {}
        found = {}
        for folder in filter(Path.is_dir, self._folder.iterdir()):
            changed = folder.stat().st_mtime_ns
            former = sizes.get(folder.name)
            if former is None or former[0] != changed:
                former = changed, _measure(folder)
            found[folder.name] = former
        return found

    def _write_sizes(self, sizes: _Sizes, changes: Mapping[Path, int]) -> None:
        for folder, change in changes.items():
            former = sizes.pop(folder.name, (0, 0))
            if folder.exists():
                sizes[folder.name] = (folder.stat().st_mtime_ns, former[1] + change)
        with suppress(OSError):  # then they are measured anew
            (self._folder / _SIZES).write_text(json.dumps(sizes), encoding="utf-8")


def class_folder(class_name: str) -> str:
    """Return the name of a class's folder: its own wherever every file system can take it.

    Any other name, which no data set on a disk can have given to a class, is replaced by one that
    leads nowhere else and that no other class has.
    """
    encoded = class_name.encode("utf-8", "surrogatepass")
    is_plain = class_name and not (is_hidden(class_name) or _SPECIAL.search(class_name))
    if is_plain and not _DEVICE.match(class_name) and len(encoded) <= _MAX_NAME_BYTES:
        return class_name
    readable = re.sub(r"[^A-Za-z0-9]+", "_", class_name)[:40].strip("_")
    return f"{readable or 'class'}-{hashlib.sha256(encoded).hexdigest()[:12]}"


def _digest(pixels: NDArray[np.uint8]) -> str:
    """Hash the size and the pixels: what the file holds, not how it is packed."""
    size = "x".join(map(str, pixels.shape)).encode()
    return hashlib.sha256(size + b"\n" + pixels.tobytes()).hexdigest()


def _encode(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _write(path: Path, data: bytes) -> None:
    """Write a file that others on the machine cannot read, down to the disk."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _measure(folder: Path) -> int:
    used = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):  # the operator may tidy up meanwhile
                used += _on_disk(os.lstat(os.path.join(parent, name)).st_size)
    return used


def _on_disk(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK
