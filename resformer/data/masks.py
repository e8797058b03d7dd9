"""Films and their masks, decoded and resized once into memory-mapped arrays.

An array's name is a hash of the files' contents and of its size, so a changed data set or size
makes a new one and an unchanged one is found again.

Masks lie beside the images as in the COVID-19 Radiography Database: the mask of
``<Class>/images/<name>.<ext>`` is ``<Class>/masks/<name>.png``, white where the lungs are, and
``<Class>/infection masks/<name>.png``, white where they are infected; of any size, since both show
the whole film. A film need not have either. Boxes around opacities, from a table of labels, are
coarse infection masks: outside them nothing is infected, inside them something is.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from tqdm import tqdm

from resformer.data.find import IMAGES_FOLDER, DataRoot, name_without_suffix
from resformer.data.labels import Box
from resformer.data.manifest import ManifestRow
from resformer.images import decode_image
from resformer.transforms import resize_pixels

LUNGS_FOLDER = "masks"
INFECTION_FOLDER = "infection masks"

# How well a region is known, see ``RegionMasks``.
UNKNOWN, OUTLINED, BOXED = 0.0, 1.0, 2.0


def cache_films(
    root: DataRoot,
    rows: Sequence[ManifestRow],
    size: int,
    folder: Path,
    *,
    progress: bool = False,
) -> NDArray[np.uint8]:
    """Return the films of ``rows`` as a read-only memory map ``(N, size, size)`` uint8.

    Raises:
        ImageError: if a film cannot be decoded.
        OSError: if a film cannot be read or the array cannot be written.
    """
    digest = hashlib.sha256("".join(row.sha256 for row in rows).encode()).hexdigest()[:16]

    def load(index: int) -> NDArray[np.uint8]:
        return resize_pixels(decode_image((root / rows[index].path).read_bytes()), size)

    path = folder / f"films-{len(rows)}x{size}-{digest}.npy"
    return cache_arrays(path, load, (len(rows), size, size), progress=progress)


def cache_arrays(
    path: Path,
    load: Callable[[int], NDArray[np.uint8]],
    shape: tuple[int, int, int],
    *,
    progress: bool = False,
) -> NDArray[np.uint8]:
    """Return ``load(0), load(1), ...`` as a read-only memory map, made now or found again.

    Args:
        path: of the ``.npy`` file; its name must tell what it holds.
        load: gives one array; called from several threads.
        shape: ``(N, H, W)`` of all arrays together.
        progress: whether to draw a progress bar.

    Raises:
        OSError: if the file cannot be written; also whatever ``load`` raises.
    """
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".npy")
        os.close(handle)
        try:
            _fill(Path(temporary), load, shape, progress=progress)
            os.replace(temporary, path)
        finally:
            Path(temporary).unlink(missing_ok=True)
    arrays: NDArray[np.uint8] = np.load(path, mmap_mode="r")
    return arrays


def _fill(
    path: Path,
    load: Callable[[int], NDArray[np.uint8]],
    shape: tuple[int, int, int],
    *,
    progress: bool,
) -> None:
    arrays = open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    if hasattr(os, "posix_fallocate"):
        # To write into a hole of the file on a full disk would end the process without a word.
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)

    def store(index: int) -> None:
        arrays[index] = load(index)

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        stored = pool.map(store, range(shape[0]))
        for _ in tqdm(stored, total=shape[0], desc="decode", unit="img", disable=not progress):
            pass
    arrays.flush()


@dataclass(frozen=True)
class RegionMasks:
    """One region of films, the lungs or what is infected in them, where it is known.

    Attributes:
        masks: ``(N, size, size)`` uint8 from 0, outside, to 255, inside; 0 where unknown.
        known: how well the region is known, ``(N,)``: ``UNKNOWN``, ``OUTLINED``, or ``BOXED`` where
            all of it lies inside boxes that hold other tissue too.
        digest: hash of the masks' files.
    """

    masks: NDArray[np.uint8]
    known: NDArray[np.float32]
    digest: str

    def subset(self, indices: NDArray[np.intp]) -> RegionMasks:
        """Return those of some films, in memory."""
        return RegionMasks(np.asarray(self.masks[indices]), self.known[indices], self.digest)


def mask_of(image: Path, region: str = LUNGS_FOLDER) -> Path | None:
    """Return the file of an image's mask in a folder of masks, if there is one."""
    if image.parent.name != IMAGES_FOLDER:
        return None
    mask = image.parent.parent / region / f"{name_without_suffix(image.name)}.png"
    return mask if mask.is_file() else None


def cache_masks(
    root: DataRoot,
    rows: Sequence[ManifestRow],
    size: int,
    folder: Path,
    *,
    region: str = LUNGS_FOLDER,
    boxes: Mapping[str, Sequence[Box]] | None = None,
) -> RegionMasks:
    """Read the masks of ``rows`` once, into a memory map that is found again later.

    Args:
        root: what the rows' paths are relative to.
        rows: films, in the order wanted.
        size: side in pixels.
        folder: where the array is kept.
        region: name of the folder of masks.
        boxes: of films by their path, see ``resformer.data.labels.read_boxes``; drawn where a film
            has no mask.

    Raises:
        ImageError: if a mask cannot be decoded.
        OSError: if a mask cannot be read or the array cannot be written.
    """
    files = [mask_of(root / row.path, region) for row in rows]
    drawn = [(boxes or {}).get(row.path, ()) for row in rows]
    known = np.full(len(rows), UNKNOWN, dtype=np.float32)
    hashed = hashlib.sha256()
    for index, file in enumerate(files):
        if file is not None:
            known[index] = OUTLINED
            hashed.update(hashlib.sha256(file.read_bytes()).digest())
        else:
            known[index] = BOXED if drawn[index] else UNKNOWN
            hashed.update(hashlib.sha256(repr(drawn[index]).encode()).digest())
    digest = hashed.hexdigest()

    def load(index: int) -> NDArray[np.uint8]:
        file = files[index]
        if file is None:
            return draw_boxes(drawn[index], size)
        return resize_pixels(decode_image(file.read_bytes()), size)

    path = folder / f"{region.replace(' ', '-')}-{len(rows)}x{size}-{digest[:16]}.npy"
    masks = cache_arrays(path, load, (len(rows), size, size))
    return RegionMasks(masks, known, digest)


def draw_boxes(boxes: Sequence[Box], size: int) -> NDArray[np.uint8]:
    """Draw boxes ``(x0, y0, x1, y1)``, shares of width and height, as a mask ``(size, size)``."""
    mask = np.zeros((size, size), dtype=np.uint8)
    for box in boxes:
        x0, y0, x1, y1 = (round(size * share) for share in box)
        mask[y0:y1, x0:x1] = 255
    return mask
