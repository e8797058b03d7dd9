"""Films that are given, and what the folder of the given images holds of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def film(seed: int, height: int = 32, width: int = 40) -> NDArray[np.uint8]:
    """Pixels that are surely another image for another seed; one block as a file."""
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


def listing(folder: Path) -> dict[str, int]:
    """The class folders with the number of their files; nothing else may be there."""
    files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    assert {path.as_posix() for path in files if len(path.parts) != 2} <= {".lock"}
    folders = sorted(path.name for path in folder.iterdir() if path.is_dir())
    return {name: sum(path.parts[0] == name for path in files) for name in folders}


def stored(folder: Path) -> Path:
    (path,) = folder.glob("*/*")
    return path
