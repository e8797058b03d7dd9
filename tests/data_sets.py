"""Data sets drawn for tests: images that are surely different films, and films with lung masks."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from resformer.phantom import draw_chest_phantom

CLASS_NAMES = ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia")


def draw_texture(seed: int, side: int = 128) -> NDArray[np.uint8]:
    """Draw clouds that no other seed draws, ``(side, side)``."""
    noise = np.random.default_rng(seed).integers(0, 256, (side // 4, side // 4), dtype=np.uint8)
    image = Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(image.filter(ImageFilter.GaussianBlur(1)))


def encode(pixels: NDArray[np.uint8], kind: str = "PNG", **options: Any) -> bytes:
    """Encode grey pixels."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def write_data_set(
    root: Path, counts: Mapping[str, int], folder: str = "images", first_seed: int = 0
) -> Path:
    """Write so many different images of each class to ``<root>/<Class>/<folder>``."""
    seed = first_seed
    for name, count in counts.items():
        images = root / name / folder
        images.mkdir(parents=True)
        for number in range(count):
            (images / f"{name}-{number:03d}.png").write_bytes(encode(draw_texture(seed)))
            seed += 1
    return root


def draw_lungs(side: int) -> NDArray[np.bool_]:
    """Draw an ellipse for each lung, ``(side, side)``."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    inside: NDArray[np.bool_] = ((np.abs(x) - 0.42) / 0.3) ** 2 + ((y + 0.15) / 0.6) ** 2 < 1
    return inside


def write_masked_films(root: Path, *, masked: int, darker: float = 0.0) -> None:
    """Write 12 drawn films of each class.

    Args:
        root: folder of the classes.
        masked: number of classes, the first ones, whose films have a lung mask.
        darker: how much darker each class is than the one before, as a share.
    """
    for index, name in enumerate(CLASS_NAMES):
        for folder in ("images", "masks")[: 1 + (index < masked)]:
            (root / name / folder).mkdir(parents=True)
        for number in range(12):
            film = draw_chest_phantom(96, seed=100 * index + number) * (1 - darker * index)
            file = f"{name}-{number}.png"
            Image.fromarray(film.astype("uint8")).save(root / name / "images" / file)
            if index < masked:
                Image.fromarray(draw_lungs(96)).save(root / name / "masks" / file)
