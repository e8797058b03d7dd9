"""Turns a loaded Pillow image of any mode into 8-bit grey."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from resformer.images.depth import scale_to_uint8
from resformer.images.tiff import MIN_IS_WHITE, SIGNED, UNSIGNED, Tag, first_value

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
