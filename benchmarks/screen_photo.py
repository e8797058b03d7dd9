"""A film photographed from a screen: slanted, with moire, glare and a little blur."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter


def photograph_screen(film: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return a simulated photograph of a square film ``(S, S)``."""
    size = len(film)
    axis = np.linspace(-1, 1, size)
    x, y = np.meshgrid(axis, axis)
    waves = rng.uniform(0.5, 1.4, 2) * np.pi * size / 2
    light = film * rng.uniform(0.6, 0.9) + rng.uniform(10, 40)
    light = light * (1 + rng.uniform(0.02, 0.1) * np.sin(waves[0] * x + waves[1] * y + 3 * x * y))
    spot = (x - rng.uniform(-0.8, 0.8)) ** 2 + (y - rng.uniform(-0.8, 0.8)) ** 2
    light += rng.uniform(40, 140) * np.exp(-spot / rng.uniform(0.05, 0.3))
    picture = Image.fromarray(np.clip(light, 0, 255).astype(np.uint8))
    corners = np.array([-3, -3, -3, size + 3, size + 3, size + 3, size + 3, -3], dtype=np.float64)
    corners += rng.uniform(-0.07, 0.07, 8) * size
    slanted = picture.transform(
        (size, size), Image.Transform.QUAD, corners.tolist(), Image.Resampling.BICUBIC
    )
    return np.asarray(slanted.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.0))))
