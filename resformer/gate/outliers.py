"""Finds and reads a folder of pictures that are no chest X-rays."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from resformer.data.discovery import is_hidden, is_image
from resformer.gate.canvas import Pixels
from resformer.images import ImageError, decode_image

logger = logging.getLogger(__name__)

_UNSORTED = "unsorted"


def find_outliers(folder: Path) -> dict[str, list[Path]]:
    """Find the images below a folder, at any depth.

    Returns:
        by kind, sorted paths; the kind is the name of the folder directly below ``folder``.

    Raises:
        ValueError: if there is no such folder or no image in it.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}: check the path of the outliers")
    kinds: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if is_image(path.name) and not any(is_hidden(part) for part in parts):
            kinds.setdefault(parts[0] if len(parts) > 1 else _UNSORTED, []).append(path)
    if not kinds:
        raise ValueError(f"{folder} holds no image: name a folder of outliers")
    return kinds


def read_outliers(kinds: Mapping[str, Sequence[Path]]) -> dict[str, list[Pixels]]:
    """Decode what :func:`find_outliers` found; unreadable files are named and left out.

    Raises:
        ValueError: if no file of a kind can be read.
    """
    pictures = {kind: list(_decode(paths)) for kind, paths in kinds.items()}
    empty = sorted(kind for kind, decoded in pictures.items() if not decoded)
    if empty:
        raise ValueError(f"no image of the outliers {empty[0]!r} can be read: replace its files")
    return pictures


def _decode(paths: Sequence[Path]) -> Iterator[Pixels]:
    for path in paths:
        try:
            yield decode_image(path.read_bytes())
        except (ImageError, OSError) as error:
            logger.warning("left out %s: %s", path, error)
