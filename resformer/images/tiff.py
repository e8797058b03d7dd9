"""What Pillow gets wrong about unusual TIFF files, silently, and how to be right.

Found by decoding files written byte by byte (see the tests); Pillow 13.0.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from PIL import ImageFile, TiffImagePlugin

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
