"""Masks that lie beside the images, in the layout of the COVID-19 Radiography Database.

The mask of ``<Class>/images/<name>.<ext>`` is ``<Class>/masks/<name>.png``, white where the lungs
are, and ``<Class>/infection masks/<name>.png``, white where they are infected; of any size, since
both show the whole film. A film need not have either.
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

LUNGS_FOLDER = "masks"
INFECTION_FOLDER = "infection masks"


@dataclass(frozen=True)
class RegionMasks:
    """One region of films, the lungs or what is infected in them, where it is known.

    Attributes:
        masks: ``(N, size, size)`` uint8 from 0, outside, to 255, inside; 0 where unknown.
        known: whether the region is known, ``(N,)``.
        digest: hash of the masks' files.
    """

    masks: NDArray[np.uint8]
    known: NDArray[np.bool_]
    digest: str

    def subset(self, indices: NDArray[np.intp]) -> RegionMasks:
        """Return those of some films, in memory."""
        return RegionMasks(np.asarray(self.masks[indices]), self.known[indices], self.digest)


def mask_of(image: Path, region: str = LUNGS_FOLDER) -> Path | None:
    """Return the file of an image's mask in a folder of masks, if there is one."""
    if image.parent.name != IMAGES_FOLDER:
        return None
    mask = image.parent.parent / region / f"{image.stem}.png"
    return mask if mask.is_file() else None


def cache_masks(
    root: DataRoot,
    rows: Sequence[ManifestRow],
    size: int,
    folder: Path,
    *,
    region: str = LUNGS_FOLDER,
    progress: bool = False,
) -> RegionMasks:
    """Read the masks of ``rows`` once, into a memory map that is found again later.

    Args:
        root: what the rows' paths are relative to.
        rows: films, in the order wanted.
        size: side in pixels.
        folder: where the array is kept.
        region: name of the folder of masks.
        progress: whether to draw a progress bar.

    Raises:
        ImageError: if a mask cannot be decoded.
        OSError: if a mask cannot be read or the array cannot be written.
    """
    files = [mask_of(root / row.path, region) for row in rows]
    hashed = hashlib.sha256()
    for file in files:
        hashed.update(hashlib.sha256(file.read_bytes() if file else b"").digest())
    digest = hashed.hexdigest()

    def load(index: int) -> NDArray[np.uint8]:
        file = files[index]
        if file is None:
            return np.zeros((size, size), dtype=np.uint8)
        return resize_pixels(decode_image(file.read_bytes()), size)

    path = folder / f"{region.replace(' ', '-')}-{len(rows)}x{size}-{digest[:16]}.npy"
    masks = cache_arrays(path, load, (len(rows), size, size), progress=progress)
    return RegionMasks(masks, np.array([file is not None for file in files]), digest)
