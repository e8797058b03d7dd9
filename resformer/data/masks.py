"""Lung masks that lie beside the images, in the layout of the COVID-19 Radiography Database.

The mask of ``<Class>/images/<name>.<ext>`` is ``<Class>/masks/<name>.png``, white where the lungs
are, of any size: both show the whole film. A film need not have one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from resformer.data.cache import cache_arrays
from resformer.data.discovery import IMAGES_FOLDER
from resformer.data.manifest import ManifestRow
from resformer.data.roots import DataRoot
from resformer.images import decode_image
from resformer.transforms import resize_pixels

MASKS_FOLDER = "masks"


@dataclass(frozen=True)
class LungMasks:
    """Lungs of films, where they are known.

    Attributes:
        masks: ``(N, size, size)`` uint8 from 0, outside, to 255, inside; 0 where unknown.
        known: whether a film has a mask, ``(N,)``.
        digest: hash of the masks' files.
    """

    masks: NDArray[np.uint8]
    known: NDArray[np.bool_]
    digest: str

    def subset(self, indices: NDArray[np.intp]) -> LungMasks:
        """Return those of some films, in memory."""
        return LungMasks(np.asarray(self.masks[indices]), self.known[indices], self.digest)


def mask_of(image: Path) -> Path | None:
    """Return the file of an image's lung mask, if there is one."""
    if image.parent.name != IMAGES_FOLDER:
        return None
    mask = image.parent.parent / MASKS_FOLDER / f"{image.stem}.png"
    return mask if mask.is_file() else None


def cache_masks(
    root: DataRoot,
    rows: Sequence[ManifestRow],
    size: int,
    folder: Path,
    *,
    progress: bool = False,
) -> LungMasks:
    """Read the masks of ``rows`` once, into a memory map that is found again later.

    Args:
        root: what the rows' paths are relative to.
        rows: films, in the order wanted.
        size: side in pixels.
        folder: where the array is kept.
        progress: whether to draw a progress bar.

    Raises:
        ImageError: if a mask cannot be decoded.
        OSError: if a mask cannot be read or the array cannot be written.
    """
    files = [mask_of(root / row.path) for row in rows]
    hashed = hashlib.sha256()
    for file in files:
        hashed.update(hashlib.sha256(file.read_bytes() if file else b"").digest())
    digest = hashed.hexdigest()

    def load(index: int) -> NDArray[np.uint8]:
        file = files[index]
        if file is None:
            return np.zeros((size, size), dtype=np.uint8)
        return resize_pixels(decode_image(file.read_bytes()), size)

    path = folder / f"masks-{len(rows)}x{size}-{digest[:16]}.npy"
    masks = cache_arrays(path, load, (len(rows), size, size), progress=progress)
    return LungMasks(masks, np.array([file is not None for file in files]), digest)
