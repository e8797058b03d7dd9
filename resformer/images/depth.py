"""Bring grey values of any depth to 8 bits, the same way for every file format.

The network resizes a film, then stretches it between its 1st and 99th percentile (see
``resformer.transforms``), and both work on 8 bits. So the reduction to 8 bits must leave enough
levels between those percentiles: brightness is kept where it does, and the film is stretched at
its full depth where it does not, as with one pixel of 65,535 in a film of 12 bits.

The rest of the module reads from Pillow what it has of more than 8 bits. Three things Pillow 13
gets wrong silently, found by decoding files written byte by byte (see the tests): the byte order of
compressed TIFF files, MinIsWhite beyond 8 bits, and the lower byte of 16-bit colour, which it
drops: a radiograph of 12 bits saved as 16-bit RGB would lose all but 16 of its greys.
"""

from __future__ import annotations

import sys
from enum import IntEnum
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, TiffImagePlugin

from resformer.images.errors import ImageError, check_size

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


class Tag(IntEnum):
    """The TIFF 6.0 tags that decide how samples are read."""

    BITS_PER_SAMPLE = 258
    PHOTOMETRIC = 262
    PLANAR_CONFIGURATION = 284
    TILE_WIDTH = 322
    TILE_LENGTH = 323
    SAMPLE_FORMAT = 339


_MIN_IS_WHITE = 0
_UNSIGNED, _SIGNED = 1, 2
_SEPARATE_PLANES = 2
# libtiff hands out samples in the machine's order, which Pillow knows for unsigned ones only
_FILE_ORDER = ("I;16S", "I;16BS", "I;32S", "I;32BS", "F;32F", "F;32BF")
_NATIVE = {"I;16": "I;16NS", "I;32": "I;32NS", "F;32": "F;32NF"}


def prepare_tiff(image: TiffImagePlugin.TiffImageFile, *, max_pixels: int) -> None:
    """Check and correct an opened TIFF before its pixels are loaded.

    Raises:
        ImageError: ``image_too_large`` where a tile, which libtiff allocates whole, exceeds
            ``max_pixels``; ``unreadable_image`` for separate colour planes of more than 8 bits.
    """
    tile = (_first_value(image, Tag.TILE_WIDTH), _first_value(image, Tag.TILE_LENGTH))
    if tile[0] and tile[1]:
        check_size(tile[0], tile[1], max_pixels=max_pixels, min_side=1)
    bits = _first_value(image, Tag.BITS_PER_SAMPLE, 1) or 1
    if bits > 8 and _first_value(image, Tag.PLANAR_CONFIGURATION) == _SEPARATE_PLANES:
        raise ImageError(
            "TIFF files with separate colour planes of more than 8 bits are not supported. "
            "Export the image as PNG.",
            code="unreadable_image",
        )
    rawmode = _rawmode_of(image)
    if rawmode in _FILE_ORDER and image.tile[0].codec_name == "libtiff":
        _read_as(image, _NATIVE[rawmode[:4]])


def _first_value(image: ImageFile.ImageFile, tag: Tag, default: int | None = None) -> int | None:
    """Return the first number of a tag, or ``default`` where it is absent or this is no TIFF."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile) or tag not in image.tag_v2:
        return default
    value = image.tag_v2[tag]
    return int(value[0] if isinstance(value, tuple) else value)


def _rawmode_of(image: ImageFile.ImageFile) -> str:
    """Return Pillow's name for the layout of the stored samples, before the image is loaded."""
    if not image.tile:
        return ""
    arguments: Any = image.tile[0].args
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def _read_as(image: ImageFile.ImageFile, rawmode: str) -> None:
    """Make an image that is not loaded yet take its stored samples for another layout."""

    def changed(arguments: Any) -> Any:
        return (rawmode, *arguments[1:]) if isinstance(arguments, tuple) else rawmode

    image.tile = [tile._replace(args=changed(tile.args)) for tile in image.tile]


_DEEP_MODES = frozenset({"I", "F", "I;16", "I;16B", "I;16L"})


def to_grey(image: ImageFile.ImageFile) -> NDArray[np.uint8]:
    """Convert to ITU-R 601 luma as Pillow rounds it, with transparency on black.

    Args:
        image: a loaded image of any mode.

    Returns:
        ``(H, W)`` uint8, possibly read-only.

    Raises:
        ValueError: pillow knows no way from this mode to grey.
        ImageError: as ``scale_to_uint8``.
    """
    if image.mode in _DEEP_MODES:
        return _deep_grey(image)
    grey: Image.Image
    if image.mode in {"LA", "PA", "RGBA", "La"} or image.has_transparency_data:
        layers = image.convert("LA" if image.mode in {"LA", "La"} else "RGBA")
        grey = _on_black(layers.convert("L"), layers.getchannel("A"))
    elif image.mode in {"1", "L", "P", "RGB"}:
        grey = image.convert("L")
    else:
        grey = image.convert("RGB").convert("L")
    pixels = np.asarray(grey, dtype=np.uint8)
    if image.mode == "L" and _first_value(image, Tag.SAMPLE_FORMAT) == _SIGNED:
        return pixels ^ np.uint8(0x80)  # signed bytes, which Pillow reads as unsigned
    return pixels


def _on_black(grey: Image.Image, opacity: Image.Image) -> Image.Image:
    """Composite grey of 8 bits on black, rounding to the nearest."""
    return Image.composite(grey, Image.new("L", grey.size, 0), opacity)


def _deep_grey(image: ImageFile.ImageFile) -> NDArray[np.uint8]:
    values: NDArray[Any] = np.asarray(image)
    if image.mode == "I" and _first_value(image, Tag.SAMPLE_FORMAT, _UNSIGNED) == _UNSIGNED:
        values = values.view(np.uint32)
    pixels = scale_to_uint8(values)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):  # the one 16-bit grey that a PNG may declare as see-through
        pixels[values == transparent] = 0
    if _first_value(image, Tag.PHOTOMETRIC) == _MIN_IS_WHITE:  # Pillow turns it only up to 8 bits
        return 255 - pixels
    return pixels


# Pillow unpacks either byte order, and keeps the first byte it meets: read in the wrong order, the
# same data yields the lower bytes.
_OTHER_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
# ITU-R 601 in 16-bit fixed point, as Pillow has it; the weights add up to 65,536
_LUMA = np.array([19595, 38470, 7471], dtype=np.uint32)
_GREY_AND_ALPHA = "LA;16B"


def has_deep_colour(image: ImageFile.ImageFile) -> bool:
    """Return whether an opened, not yet loaded image has 16 bits in each of several channels."""
    rawmode = _rawmode_of(image)
    return rawmode == _GREY_AND_ALPHA or rawmode[:-1] in {"RGB;16", "RGBA;16", "RGBX;16"}


def deep_colour_to_grey(
    image: ImageFile.ImageFile, again: ImageFile.ImageFile
) -> NDArray[np.uint8]:
    """Read all 16 bits, take the luma, scale it to 8 bits and composite it on black.

    Args:
        image: an opened, not yet loaded image for which ``has_deep_colour`` is true.
        again: the same file opened a second time, for the lower bytes.

    Returns:
        ``(H, W)`` uint8, possibly read-only.
    """
    rawmode = _rawmode_of(image)
    if rawmode == _GREY_AND_ALPHA:
        _read_as(image, "RGBA")  # the four bytes of a pixel as if they were four channels
    else:
        _read_as(again, rawmode[:-1] + _OTHER_ORDER[rawmode[-1]])
        again.load()
    image.load()
    see_through = image.info.get("transparency")  # the one colour that a PNG may declare so
    luma = np.empty((image.height, image.width), dtype=np.uint16)
    opacity = np.full(luma.shape, 255, dtype=np.uint8)
    for top in range(0, image.height, _BAND):  # whole films of 16-bit colour take gigabytes
        band = slice(top, min(top + _BAND, image.height))
        box = (0, band.start, image.width, band.stop)
        words = np.asarray(image.crop(box))
        if rawmode == _GREY_AND_ALPHA:
            words = words.view(">u2")
            luma[band] = words[..., 0]
        else:
            words = words.astype(np.uint16) << 8 | np.asarray(again.crop(box))
            luma[band] = (words[..., :3] @ _LUMA + np.uint32(0x8000)) >> 16
        if image.mode == "RGBA":
            opacity[band] = (words[..., -1].astype(np.uint32) + 128) // 257
        elif isinstance(see_through, tuple):
            opacity[band][(words == np.array(see_through)).all(axis=-1)] = 0
    grey = _on_black(Image.fromarray(scale_to_uint8(luma)), Image.fromarray(opacity))
    return np.asarray(grey, dtype=np.uint8)
