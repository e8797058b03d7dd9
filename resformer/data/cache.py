"""Films decoded and resized once into a memory-mapped array that every epoch reads.

The array's name is a hash of the films' contents and of their size, so a changed data set or size
makes a new one and an unchanged one is found again.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from tqdm import tqdm

from resformer.data.manifest import ManifestRow
from resformer.data.roots import DataRoot
from resformer.images import decode_image
from resformer.transforms import resize_pixels


def cache_films(
    root: DataRoot,
    rows: Sequence[ManifestRow],
    size: int,
    folder: Path,
    *,
    progress: bool = False,
) -> NDArray[np.uint8]:
    """Return the films of ``rows`` as a read-only memory map ``(N, size, size)`` uint8.

    Args:
        root: what the rows' paths are relative to.
        rows: films, in the order wanted.
        size: side in pixels.
        folder: where the array is kept.
        progress: whether to draw a progress bar.

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

    def store(index: int) -> None:
        arrays[index] = load(index)

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        stored = pool.map(store, range(shape[0]))
        for _ in tqdm(stored, total=shape[0], desc="decode", unit="img", disable=not progress):
            pass
    arrays.flush()
