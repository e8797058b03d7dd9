"""What can be said against a picture before any network sees it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Below this side no rib is to be seen.
MIN_SIDE = 64
# The narrowest and the widest films of the public data are within 0.5 and 1.7.
MAX_ASPECT = 2.5
# Grey levels between the percentiles 1 and 99; a dark film of a bad scan still has 30.
MIN_CONTRAST = 10
_LOOKED_AT = 128


def object_to_pixels(pixels: NDArray[np.uint8]) -> str:
    """Return why a decoded picture ``(H, W)`` cannot be a film, a sentence; empty if it can."""
    height, width = pixels.shape
    if min(height, width) < MIN_SIDE:
        return f"It is {width} x {height} pixels small; {MIN_SIDE} a side are the least."
    if max(height, width) > MAX_ASPECT * min(height, width):
        return f"It is {width} x {height} pixels: too long and narrow for a chest X-ray."
    sample = pixels[:: 1 + height // _LOOKED_AT, :: 1 + width // _LOOKED_AT]
    levels = np.cumsum(np.bincount(sample.ravel(), minlength=256)) / sample.size
    low, high = np.searchsorted(levels, (0.01, 0.99))
    if high - low < MIN_CONTRAST:
        return "It is blank: there is no contrast in it."
    return ""
