"""Reads a folder of pictures that are no chest X-rays."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from resformer.data.discovery import is_hidden, is_image
from resformer.images import ImageError, decode_image

logger = logging.getLogger(__name__)

_UNSORTED = "unsorted"


def read_outliers(folder: Path) -> dict[str, list[NDArray[np.uint8]]]:
    """Decode the images below a folder, at any depth, sorted by path.

    Returns:
        by kind, pictures ``(H, W)``; the kind is the name of the folder directly below ``folder``.

    Raises:
        ValueError: if there is no such folder or no readable image in it.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}: check the path of the outliers")
    kinds: dict[str, list[NDArray[np.uint8]]] = {}
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if not is_image(path.name) or any(is_hidden(part) for part in parts):
            continue
        try:
            picture = decode_image(path.read_bytes())
        except (ImageError, OSError) as error:
            logger.warning("left out %s: %s", path, error)
            continue
        kinds.setdefault(parts[0] if len(parts) > 1 else _UNSORTED, []).append(picture)
    if not kinds:
        raise ValueError(f"{folder} holds no readable image: name a folder of outliers")
    return kinds
