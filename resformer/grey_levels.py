"""Bring grey values of any depth to 8 bits, the same way for every file format, DICOM too.

The network resizes a film, then stretches it between its 1st and 99th percentile (see
``resformer.transforms``), and both work on 8 bits. So the reduction to 8 bits must leave enough
levels between those percentiles: brightness is kept where it does, and the film is stretched at
its full depth where it does not, as with one pixel of 65,535 in a film of 12 bits.
"""

from __future__ import annotations

from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from resformer.image_errors import ImageError

DEPTHS = (8, 10, 12, 14, 16)
# Those between which the network's input is stretched.
_PERCENTILES = (1.0, 99.0)
# Fewer levels than this between the percentiles, and the network sees steps of over four levels.
_FEWEST_LEVELS = 64
# How far beyond the percentiles, in parts of the range between them, the values of a film may lie.
_MARGIN = 0.5
# An empty part of the scale as large as this sets a border, or padding, apart from the film.
_GAP = 7 / 8
_BAND = 64
_EXACT_IN_FLOAT32 = 1 << 24

Entry = TypeVar("Entry", bound=np.generic)


def scale_to_uint8(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Scale grey values to 0..255, rounding to the nearest.

    Detectors deliver 10 to 14 bits inside 16-bit files. So whole numbers are divided by the
    largest value of the smallest depth out of 8, 10, 12, 14 and 16 bits that holds the image's
    maximum: brightness is kept, and a dark film stays dark. Negative values are first shifted so
    that the minimum becomes 0. Whole numbers beyond 16 bits and fractions have no such natural
    range and are stretched from their minimum to their maximum. Where that would leave too few
    levels, values far from the others do not count (see ``grey_levels``).

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
    if offset:
        values = values.astype(np.int64) - offset
    size = 1 << smallest_depth(high - offset)
    numbers = np.arange(size, dtype=np.float64)
    counts = _without_isolated(numbers, histogram(values, size))
    brightness = numbers / (size - 1)
    if _wastes_levels(brightness, counts):
        _, largest = _usual_range(numbers, counts)
        brightness = np.minimum(numbers / ((1 << smallest_depth(int(largest))) - 1), 1.0)
    return look_up(grey_levels(brightness, counts), values)


def smallest_depth(largest: int) -> int:
    """Return the smallest usual depth in bits that holds a value of up to 16 bits."""
    return next(bits for bits in DEPTHS if largest < 1 << bits)


def histogram(indices: NDArray[np.integer[Any]], size: int) -> NDArray[np.int64]:
    """Count how often each of up to 65,536 values occurs in ``(H, W)`` indices: ``(size,)``."""
    counts = np.zeros(size, dtype=np.int64)
    rows = max(1, _EXACT_IN_FLOAT32 // indices.shape[1])  # OpenCV answers in float32
    for start in range(0, len(indices), rows):
        band = np.ascontiguousarray(indices[start : start + rows], np.uint16)
        counts += cv2.calcHist([band], [0], None, [size], [0, size]).ravel().astype(np.int64)
    return counts


def grey_levels(brightness: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return the 8-bit level of each possible value of a film.

    The level is the brightness rounded to 8 bits, unless that would merge values into fewer than
    64 levels between the film's percentiles. Then the range of the values that occur, without
    those far from the others, is stretched over all levels.

    Args:
        brightness: ``(N,)``, 0 is black and 1 is white.
        counts: ``(N,)``, how often each value occurs; only those that do count.

    Returns:
        ``(N,)`` uint8.
    """
    counts = _without_isolated(brightness, counts)
    if _wastes_levels(brightness, counts):
        start, end = _usual_range(brightness, counts)
        brightness = np.clip((brightness - start) / (end - start), 0.0, 1.0)
    return np.rint(brightness * 255.0).astype(np.uint8)


def percentiles(values: NDArray[np.float64], counts: NDArray[np.int64]) -> tuple[float, float]:
    """Return the values at the lower and the upper percentile of a film.

    Args:
        values: ``(N,)``, in any order.
        counts: ``(N,)``, how often each occurs.

    Returns:
        the two values; zeros where none occurs.
    """
    order = np.argsort(values, kind="stable")
    cumulative = np.cumsum(counts[order])
    total = int(cumulative[-1])
    if total == 0:
        return 0.0, 0.0
    ranks = np.array(_PERCENTILES) / 100.0 * (total - 1)
    low, high = values[order[np.searchsorted(cumulative, ranks, side="right")]]
    return float(low), float(high)


def _without_isolated(values: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the counts, with 0 for the few values that a large gap sets apart from the others."""
    present = np.unique(values[counts > 0])
    if len(present) < 3:
        return counts
    gaps = np.diff(present)
    widest = int(gaps.argmax())
    below, above = widest + 1, len(present) - widest - 1
    is_gap = gaps[widest] > _GAP * (present[-1] - present[0])
    if not is_gap or min(below, above) > (1.0 - _GAP) * max(below, above):
        return counts
    is_below = values <= present[widest]
    return np.where(is_below if below > above else ~is_below, counts, 0)


def _wastes_levels(brightness: NDArray[np.float64], counts: NDArray[np.int64]) -> bool:
    low, high = percentiles(brightness, counts)
    if low == high or (high - low) * 255.0 >= _FEWEST_LEVELS:
        return False
    between = np.unique(brightness[(counts > 0) & (brightness >= low) & (brightness <= high)])
    return len(np.unique(np.rint(between * 255.0))) < len(between)


def _usual_range(values: NDArray[np.float64], counts: NDArray[np.int64]) -> tuple[float, float]:
    """Return the least and the largest value that occurs, without those far from the others."""
    return _trim(values[counts > 0], *percentiles(values, counts))


def _trim(values: NDArray[Any], low: float, high: float) -> tuple[float, float]:
    margin = _MARGIN * (high - low)
    return (
        float(values.min(where=values >= low - margin, initial=low)),
        float(values.max(where=values <= high + margin, initial=high)),
    )


def look_up(table: NDArray[Entry], indices: NDArray[np.integer[Any]]) -> NDArray[Entry]:
    """Return ``table[indices]`` for ``(H, W)`` indices and a table of 8 or 16 bits.

    By OpenCV, which takes a fifth to two fifths of NumPy's time, as for the histogram.
    """
    whole = np.zeros(1 << 16, table.dtype)
    whole[: len(table)] = table
    found = cv2.LUT(np.ascontiguousarray(indices, np.uint16), whole)
    return np.asarray(found, table.dtype)


def _stretch(values: NDArray[Any]) -> NDArray[np.uint8]:
    start, end = float(values.min()), float(values.max())
    if not (np.isfinite(start) and np.isfinite(end)):
        raise ImageError(
            "The image holds values that are not numbers (NaN or infinite).",
            code="unreadable_image",
        )
    if start == end:
        return np.zeros(values.shape, dtype=np.uint8)
    low, high = map(float, np.percentile(values, _PERCENTILES, method="nearest"))
    if 0.0 < (high - low) * 255.0 < _FEWEST_LEVELS * (end - start):
        start, end = _trim(values, low, high)
    scaled = np.empty(values.shape, dtype=np.uint8)
    for top in range(0, len(values), _BAND):
        band = values[top : top + _BAND].astype(np.float64)
        levels = (band - start) * (255.0 / (end - start))
        scaled[top : top + _BAND] = np.rint(np.clip(levels, 0.0, 255.0))
    return scaled
