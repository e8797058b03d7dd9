"""What drawings are made with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Field = NDArray[np.float64]


def coloured_noise(size: int, rng: np.random.Generator, steepness: float) -> Field:
    """Return noise ``(size, size)`` of mean 0 and deviation 1, of power ``1 / f**steepness``."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.normal(size=(size, size))) * frequency ** (-steepness / 2)
    noise = np.fft.irfft2(spectrum, s=(size, size))
    standardised: Field = noise / noise.std()
    return standardised


def make_grid(size: int) -> tuple[Field, Field]:
    """Return x to the right and y downwards, both from -1 to 1, ``(size, size)``."""
    axis = np.linspace(-1.0, 1.0, size)
    x, y = np.meshgrid(axis, axis)
    return x, y


def to_pixels(values: Field, gamma: float = 1.0) -> Pixels:
    """Stretch values to the whole range of 8 bits."""
    span = max(float(values.max() - values.min()), 1e-9)
    pixels: Pixels = (255 * ((values - values.min()) / span) ** gamma).round().astype(np.uint8)
    return pixels
