"""Brings grey values of any depth to 8 bits, the same way for every file format."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from resformer.images.errors import ImageError

_DEPTHS = (8, 10, 12, 14, 16)
_BAND = 64

Entry = TypeVar("Entry", bound=np.generic)


def scale_to_uint8(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Scales grey values linearly to 0..255, rounding to the nearest.

    Detectors deliver 10 to 14 bits inside 16-bit files. So whole numbers are divided by the
    largest value of the smallest depth out of 8, 10, 12, 14 and 16 bits that holds the image's
    maximum: brightness is kept, and a dark film stays dark. Negative values are first shifted
    so that the minimum becomes 0. Whole numbers beyond 16 bits and fractions have no such
    natural range and are stretched from their minimum to their maximum.

    Args:
        values: ``(H, W)`` of any integer or floating dtype; uint8 is returned as it is.

    Returns:
        ``(H, W)`` uint8.

    Raises:
        ImageError: ``unreadable_image`` for NaN or infinite values.
    """
    if values.dtype == np.uint8:
        return values
    if np.issubdtype(values.dtype, np.floating):
        return _stretch(values)
    low, high = int(values.min()), int(values.max())
    offset = min(low, 0)
    if high - offset > 0xFFFF:
        return _stretch(values)
    bits = next(bits for bits in _DEPTHS if high - offset < 2**bits)
    if offset:
        values = values.astype(np.int64) - offset
    return look_up(depth_table(bits), values)


def look_up(table: NDArray[Entry], indices: NDArray[np.integer[Any]]) -> NDArray[Entry]:
    """Returns ``table[indices]`` for ``(H, W)`` indices.

    Band by band: numpy widens indices to 64 bits, and those of a band stay in the processor's
    cache, where those of a whole film would not. That is four times as fast.
    """
    found = np.empty(indices.shape, table.dtype)
    for start in range(0, len(indices), _BAND):
        band = slice(start, start + _BAND)
        found[band] = np.take(table, indices[band])
    return found


def depth_table(bits: int) -> NDArray[np.uint8]:
    """The 8-bit value, rounded to the nearest, of every value of a depth: ``(2**bits,)`` uint8."""
    top = 2**bits - 1
    rounded: NDArray[np.uint32] = (np.arange(top + 1, dtype=np.uint32) * 255 + top // 2) // top
    return rounded.astype(np.uint8)


def _stretch(values: NDArray[Any]) -> NDArray[np.uint8]:
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ImageError(
            "The image holds values that are not numbers (NaN or infinite).",
            code="unreadable_image",
        )
    if high == low:
        return np.zeros(values.shape, dtype=np.uint8)
    scaled = (values.astype(np.float64) - low) * (255.0 / (high - low))
    return np.rint(scaled).astype(np.uint8)
