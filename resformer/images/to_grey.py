"""From a picture that Pillow has opened to 8-bit grey: TIFF, deep grey, deep colour, transparency.

Three things Pillow 13 gets wrong silently with more than 8 bits, found by decoding files written
byte by byte (see the tests): the byte order of compressed TIFF files, MinIsWhite beyond 8 bits, and
the lower byte of 16-bit colour, which it drops: a radiograph of 12 bits saved as 16-bit RGB would
lose all but 16 of its greys.
"""

from __future__ import annotations

import sys
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, TiffImagePlugin

from resformer.grey_levels import scale_to_uint8
from resformer.image_errors import ImageError, check_size

# Rows that are worked on at once: whole films of 16-bit colour take gigabytes.
_BAND = 64


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
        ValueError: if Pillow knows no way from this mode to grey.
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
    for top in range(0, image.height, _BAND):
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
