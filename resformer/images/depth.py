"""What Pillow gets wrong about unusual TIFF files, silently, and how to be right.

Found by decoding files written byte by byte (see the tests); Pillow 13.0.

Brings grey values of any depth to 8 bits, the same way for every file format.

Colour files of 16 bits per channel, of which Pillow keeps only the upper byte.

A 12-bit radiograph saved as 16-bit RGB would lose all but 16 of its greys that way. But Pillow
unpacks either byte order, so that reading the same data in the wrong order yields the lower bytes.

Turns a loaded Pillow image of any mode into 8-bit grey.
"""

from __future__ import annotations

import sys
from enum import IntEnum
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, TiffImagePlugin

from resformer.images.errors import ImageError, check_size


class Tag(IntEnum):
    """The TIFF 6.0 tags that decide how samples are read."""

    BITS_PER_SAMPLE = 258
    PHOTOMETRIC = 262
    PLANAR_CONFIGURATION = 284
    TILE_WIDTH = 322
    TILE_LENGTH = 323
    SAMPLE_FORMAT = 339


MIN_IS_WHITE = 0
UNSIGNED, SIGNED = 1, 2
_SEPARATE_PLANES = 2
# libtiff hands out samples in the machine's order, which Pillow knows for unsigned ones only
_FILE_ORDER = ("I;16S", "I;16BS", "I;32S", "I;32BS", "F;32F", "F;32BF")
_NATIVE = {"I;16": "I;16NS", "I;32": "I;32NS", "F;32": "F;32NF"}


def first_value(image: ImageFile.ImageFile, tag: Tag, default: int | None = None) -> int | None:
    """The first number of a tag; ``default`` where it is absent or the file is no TIFF."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile) or tag not in image.tag_v2:
        return default
    value = image.tag_v2[tag]
    return int(value[0] if isinstance(value, tuple) else value)


def rawmode_of(image: ImageFile.ImageFile) -> str:
    """The layout of the stored samples, by Pillow's name for it, before the image is loaded."""
    if not image.tile:
        return ""
    arguments: Any = image.tile[0].args
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def read_as(image: ImageFile.ImageFile, rawmode: str) -> None:
    """Makes an image that is not loaded yet take its stored samples for another layout."""

    def changed(arguments: Any) -> Any:
        return (rawmode, *arguments[1:]) if isinstance(arguments, tuple) else rawmode

    image.tile = [tile._replace(args=changed(tile.args)) for tile in image.tile]


def prepare_tiff(image: TiffImagePlugin.TiffImageFile, *, max_pixels: int) -> None:
    """Checks and corrects an opened TIFF before its pixels are loaded.

    Raises:
        ImageError: ``image_too_large`` where a tile, which libtiff allocates whole, exceeds
            ``max_pixels``; ``unreadable_image`` for separate colour planes of more than 8 bits.
    """
    tile = (first_value(image, Tag.TILE_WIDTH), first_value(image, Tag.TILE_LENGTH))
    if tile[0] and tile[1]:
        check_size(tile[0], tile[1], max_pixels=max_pixels, min_side=1)
    bits = first_value(image, Tag.BITS_PER_SAMPLE, 1) or 1
    if bits > 8 and first_value(image, Tag.PLANAR_CONFIGURATION) == _SEPARATE_PLANES:
        raise ImageError(
            "TIFF files with separate colour planes of more than 8 bits are not supported. "
            "Export the image as PNG.",
            code="unreadable_image",
        )
    rawmode = rawmode_of(image)
    if rawmode in _FILE_ORDER and image.tile[0].codec_name == "libtiff":
        read_as(image, _NATIVE[rawmode[:4]])


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


_SWAPPED = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
# ITU-R 601 in 16-bit fixed point, as Pillow has it; the weights add up to 65,536
_LUMA = (19595, 38470, 7471)


def has_deep_colour(image: ImageFile.ImageFile) -> bool:
    """Whether an opened, not yet loaded image has 16 bits in each of several channels."""
    rawmode = rawmode_of(image)
    return rawmode == "LA;16B" or rawmode[:-1] in {"RGB;16", "RGBA;16", "RGBX;16"}


def deep_colour_to_grey(
    image: ImageFile.ImageFile, again: ImageFile.ImageFile
) -> NDArray[np.uint8]:
    """Reads all 16 bits, takes the luma, scales it to 8 bits and composites it on black.

    Args:
        image: An opened, not yet loaded image for which `has_deep_colour` is true.
        again: The same file opened a second time, for the lower bytes.

    Returns:
        ``(H, W)`` uint8, possibly read-only.
    """
    if rawmode_of(image) == "LA;16B":
        return _deep_grey_alpha(image)
    rawmode = rawmode_of(image)
    read_as(again, rawmode[:-1] + _SWAPPED[rawmode[-1]])
    image.load()
    again.load()
    luma = _luma(image, again)
    luma >>= 16
    grey = scale_to_uint8(luma.astype(np.uint16))
    transparent = image.info.get("transparency")
    if isinstance(transparent, tuple):  # the one colour that a PNG may declare as see-through
        matches = (_join(image, again, band) == part for band, part in enumerate(transparent))
        grey[np.logical_and.reduce(list(matches))] = 0
    return _on_black(grey, _join(image, again, 3)) if image.mode == "RGBA" else grey


def _luma(high: ImageFile.ImageFile, low: ImageFile.ImageFile) -> NDArray[np.uint32]:
    total = np.full((high.height, high.width), 0x8000, dtype=np.uint32)
    for band, weight in enumerate(_LUMA):
        channel = _join(high, low, band).astype(np.uint32)
        channel *= weight
        total += channel
    return total


def _deep_grey_alpha(image: ImageFile.ImageFile) -> NDArray[np.uint8]:
    """The four bytes of a pixel read as if they were four channels."""
    read_as(image, "RGBA")
    image.load()
    words = np.asarray(image).view(">u2")
    return _on_black(scale_to_uint8(words[..., 0]), words[..., 1])


def _on_black(grey: NDArray[np.uint8], alpha: NDArray[Any]) -> NDArray[np.uint8]:
    opacity = Image.fromarray(np.take(depth_table(16), alpha))
    return np.asarray(on_black(Image.fromarray(grey), opacity), dtype=np.uint8)


def _join(high: ImageFile.ImageFile, low: ImageFile.ImageFile, band: int) -> NDArray[np.uint16]:
    joined = np.asarray(high.getchannel(band)).astype(np.uint16)
    joined <<= 8
    joined |= np.asarray(low.getchannel(band))
    return joined


_DEEP_MODES = frozenset({"I", "F", "I;16", "I;16B", "I;16L"})


def to_grey(image: ImageFile.ImageFile) -> NDArray[np.uint8]:
    """Converts to ITU-R 601 luma as Pillow rounds it, with transparency on black.

    Args:
        image: A loaded image of any mode.

    Returns:
        ``(H, W)`` uint8, possibly read-only.

    Raises:
        ValueError: Pillow knows no way from this mode to grey.
        ImageError: As `scale_to_uint8`.
    """
    if image.mode in _DEEP_MODES:
        return _deep_grey(image)
    grey: Image.Image
    if image.mode in {"LA", "PA", "RGBA", "La"} or image.has_transparency_data:
        layers = image.convert("LA" if image.mode in {"LA", "La"} else "RGBA")
        grey = on_black(layers.convert("L"), layers.getchannel("A"))
    elif image.mode in {"1", "L", "P", "RGB"}:
        grey = image.convert("L")
    else:
        grey = image.convert("RGB").convert("L")
    pixels = np.asarray(grey, dtype=np.uint8)
    if image.mode == "L" and first_value(image, Tag.SAMPLE_FORMAT) == SIGNED:
        return pixels ^ np.uint8(0x80)  # signed bytes, which Pillow reads as unsigned
    return pixels


def on_black(grey: Image.Image, opacity: Image.Image) -> Image.Image:
    """Composites grey of 8 bits on black, rounding to the nearest."""
    return Image.composite(grey, Image.new("L", grey.size, 0), opacity)


def _deep_grey(image: ImageFile.ImageFile) -> NDArray[np.uint8]:
    values: NDArray[Any] = np.asarray(image)
    if image.mode == "I" and first_value(image, Tag.SAMPLE_FORMAT, UNSIGNED) == UNSIGNED:
        values = values.view(np.uint32)
    pixels = scale_to_uint8(values)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):  # the one 16-bit grey that a PNG may declare as see-through
        pixels[values == transparent] = 0
    if first_value(image, Tag.PHOTOMETRIC) == MIN_IS_WHITE:  # Pillow turns it only up to 8 bits
        return 255 - pixels
    return pixels
