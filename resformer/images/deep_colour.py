"""Colour files of 16 bits per channel, of which Pillow keeps only the upper byte.

A 12-bit radiograph saved as 16-bit RGB would lose all but 16 of its greys that way. But Pillow
unpacks either byte order, so that reading the same data in the wrong order yields the lower bytes.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from resformer.images.depth import depth_table, scale_to_uint8
from resformer.images.grey import on_black
from resformer.images.tiff import rawmode_of, read_as

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
