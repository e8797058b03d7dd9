"""Every image of a data set read once: hashed, decoded, fingerprinted; the unreadable named."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tqdm import tqdm

from resformer.data.discovery import ImageIndex
from resformer.data.errors import DatasetError
from resformer.data.fingerprint import Fingerprint, fingerprint
from resformer.images import ImageError, decode_image

logger = logging.getLogger(__name__)

_NAMED = 5


@dataclass(frozen=True)
class ScannedFilm:
    """A readable image: where it is, its class, its file's SHA-256 and its fingerprint."""

    path: str
    class_name: str
    sha256: str
    fingerprint: Fingerprint


@dataclass(frozen=True)
class UnreadableFilm:
    """An image that was left out, and why."""

    path: str
    class_name: str
    reason: str


def scan_films(
    index: ImageIndex, *, workers: int | None = None, progress: bool = False
) -> tuple[list[ScannedFilm], list[UnreadableFilm]]:
    """Read all images of ``index``, in its order; one warning names those that are unreadable.

    Raises:
        DatasetError: if a class has no readable image.
    """

    def scan(item: tuple[str, str]) -> ScannedFilm | UnreadableFilm:
        path, class_name = item
        try:
            data = (index.root / path).read_bytes()
            pixels = decode_image(data)
        except (ImageError, OSError) as error:
            return UnreadableFilm(path, class_name, str(error))
        digest = hashlib.sha256(data).hexdigest()
        return ScannedFilm(path, class_name, digest, fingerprint(pixels))

    # Reading, hashing, decoding and filtering all let other threads run.
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        scans = pool.map(scan, index.items)
        total = len(index.items)
        results = list(tqdm(scans, "read", total, unit="img", disable=not progress))
    films = [result for result in results if isinstance(result, ScannedFilm)]
    unreadable = [result for result in results if isinstance(result, UnreadableFilm)]
    if unreadable:
        named = summarise(f"{film.path}: {film.reason}" for film in unreadable)
        logger.warning("left out %d unreadable images: %s", len(unreadable), named)
    _check_classes(index.class_names, films, unreadable)
    return films, unreadable


def summarise(texts: Iterable[str]) -> str:
    """Join the first few of many texts and count the others."""
    listed = list(texts)
    more = [f"and {len(listed) - _NAMED} more"] if len(listed) > _NAMED else []
    return "; ".join(listed[:_NAMED] + more)


def _check_classes(
    class_names: Iterable[str], films: Iterable[ScannedFilm], unreadable: Iterable[UnreadableFilm]
) -> None:
    readable = {film.class_name for film in films}
    for name in class_names:
        if name not in readable:
            first = next(film for film in unreadable if film.class_name == name)
            raise DatasetError(
                f"no image of the class {name!r} can be read; the first, {first.path}, failed "
                f"with: {first.reason} Replace its files or remove the class folder"
            )
