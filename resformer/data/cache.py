"""Films decoded and resized once into a memory-mapped array that every epoch reads.

The array's name is a hash of the films' contents and of their size, so a changed data set or size
makes a new one and an unchanged one is found again.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
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
    path = folder / f"films-{len(rows)}x{size}-{digest}.npy"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=folder, suffix=".npy")
        os.close(handle)
        try:
            _fill(Path(temporary), root, rows, size, progress=progress)
            os.replace(temporary, path)
        finally:
            Path(temporary).unlink(missing_ok=True)
    films: NDArray[np.uint8] = np.load(path, mmap_mode="r")
    return films


def _fill(
    path: Path, root: DataRoot, rows: Sequence[ManifestRow], size: int, *, progress: bool
) -> None:
    films = open_memmap(path, mode="w+", dtype=np.uint8, shape=(len(rows), size, size))

    def load(index: int) -> None:
        pixels = decode_image((root / rows[index].path).read_bytes())
        films[index] = resize_pixels(pixels, size)

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        decoded = pool.map(load, range(len(rows)))
        for _ in tqdm(decoded, total=len(rows), desc="decode", unit="img", disable=not progress):
            pass
    films.flush()
