"""Data sets drawn for tests: images that are surely different films, and copies of them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter


def draw_texture(seed: int, side: int = 128) -> NDArray[np.uint8]:
    """Draw clouds that no other seed draws, ``(side, side)``."""
    noise = np.random.default_rng(seed).integers(0, 256, (side // 4, side // 4), dtype=np.uint8)
    image = Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(image.filter(ImageFilter.GaussianBlur(1)))


def encode(pixels: NDArray[np.uint8], kind: str = "PNG") -> bytes:
    """Encode grey pixels."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
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
