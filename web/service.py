"""One model, as the application asks it."""

from __future__ import annotations

import hashlib
import logging
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from web.config import StartError
from web.errors import ApiError

if TYPE_CHECKING:
    from resformer.checkpoint import Checkpoint
    from resformer.predict import Prediction, Predictor

MODEL_NAME = "Identity-Mapping ResFormer"
_VERSION_LENGTH = 12  # of the fingerprint's digits, as of a commit's

Stamp = tuple[int, int, int]
"""Inode, time of the last change and size of a file: another file has another one."""

_logger = logging.getLogger(__name__)


class ModelService:
    """Loads a checkpoint once and answers from any thread.

    Whatever needs the model raises ``ApiError`` with the code ``model_not_ready`` before it is
    loaded.

    Args:
        model_path: the checkpoint.
        device: as for ``resformer.predict.Predictor``.
        backend: as for ``resformer.predict.Predictor``.

    Attributes:
        sha256: of the checkpoint's file; empty until the model is loaded.
    """

    def __init__(self, model_path: Path, device: str = "auto", backend: str = "auto") -> None:
        self._model_path = model_path
        self._device = device
        self._backend = backend
        self._predictor: Predictor | None = None
        self._version = ""
        self._graph: bytes | None = None
        self.sha256 = ""

    def load(self) -> None:
        """Load the model and let it answer once, so that the first person need not wait.

        Raises:
            StartError: if there is no usable checkpoint or device.
        """
        # PyTorch takes a second to import: `--help` and a forking server do without it.
        from resformer.predict import Predictor

        path = self._model_path
        stamp = stamp_of(path)
        try:
            sha256 = hash_file(path) if path.is_file() else ""
        except OSError as error:
            reason = f"{path} cannot be read: {error.strerror}"
            raise StartError(f"cannot load the model: {reason}") from error
        try:
            predictor = Predictor.from_file(path, self._device, self._backend)
        except ValueError as error:
            reason = textwrap.shorten(str(error), 400, placeholder=" …")
            raise StartError(f"cannot load the model: {reason}") from error
        if stamp_of(path) != stamp:
            raise StartError(f"cannot load the model: {path} changed while it was read")
        self.sha256 = sha256
        self._version = predictor.checkpoint.source[:_VERSION_LENGTH]
        predictor.predict([np.zeros((64, 64), dtype=np.uint8)])
        stored, source = predictor.checkpoint.graph, predictor.checkpoint.graph_source
        self._graph = stored.content if stored and stored.source == source else None
        self._predictor = predictor
        classes = ", ".join(predictor.class_names)
        _logger.info("model loaded, run by %s: %s", predictor.backend, classes)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes in the checkpoint's order; empty until the model is loaded."""
        return self._predictor.class_names if self._predictor else ()

    @property
    def identity(self) -> dict[str, str]:
        """Name of the network, version of its weights, and hash of the checkpoint's file."""
        self._loaded()
        return {"name": MODEL_NAME, "version": self._version, "sha256": self.sha256}

    @property
    def checkpoint(self) -> Checkpoint:
        """The model as it was stored."""
        return self._loaded().checkpoint

    @property
    def graph(self) -> bytes | None:
        """The model as an ONNX graph; none if the checkpoint has none that fits, or none yet."""
        return self._graph

    def check_class(self, name: str) -> None:
        """Refuse a class that the model does not know.

        Raises:
            ApiError: ``unknown_class``, with the names of its classes.
        """
        known = self._loaded().class_names
        if name not in known:
            raise ApiError(
                "unknown_class",
                f"The model does not know this class. It knows: {', '.join(known)}.",
            )

    def predict(self, films: Sequence[NDArray[np.uint8]]) -> list[Prediction]:
        """Classify decoded images ``(H, W)`` of any sizes, in one batch."""
        return self._loaded().predict(films)

    def shrink(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return an image at the size at which ``explain`` looks at it."""
        from resformer.transforms import resize_pixels

        return resize_pixels(pixels, self.checkpoint.input_spec.size)

    def explain(self, pixels: NDArray[np.uint8], class_name: str, size: tuple[int, int]) -> bytes:
        """Draw where on an image the evidence for a class lies.

        Args:
            pixels: the image ``(H, W)``, whole or shrunk.
            class_name: any class of the model.
            size: width and height of the picture.

        Returns:
            a transparent PNG.

        Raises:
            ValueError: if the model does not know the class.
        """
        from resformer.explanation import encode_overlay, evidence_map

        return encode_overlay(evidence_map(self._loaded(), pixels, class_name), size)

    @staticmethod
    def outline(prediction: Prediction) -> list[list[list[float]]]:
        """Trace the lungs that the model found; see ``resformer.explanation.trace_lungs``."""
        from resformer.explanation import trace_lungs

        return [] if prediction.lungs is None else trace_lungs(prediction.lungs)

    def _loaded(self) -> Predictor:
        if self._predictor is None:
            raise ApiError("model_not_ready")
        return self._predictor


def stamp_of(path: Path) -> Stamp | None:
    """Return what tells a file from the one that stood there before; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes.

    Raises:
        OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
