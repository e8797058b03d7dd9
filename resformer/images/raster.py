"""Reads PNG, JPEG, BMP, GIF, WebP and TIFF through Pillow, from hostile sources too.

The format's own Pillow class is called instead of ``Image.open``: no other plugin ever sees the
data, and Pillow's process-wide bomb limit, which warns instead of refusing, is replaced by ours.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from resformer.images.depth import deep_colour_to_grey, has_deep_colour, prepare_tiff, to_grey
from resformer.images.errors import ImageError, check_size

_READERS: dict[str, type[ImageFile.ImageFile]] = {
    "PNG": PngImagePlugin.PngImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "WebP": WebPImagePlugin.WebPImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
}
_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"BM", "BMP"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
)
_ORIENTATION_TAG = 0x0112
# A progressive JPEG may repeat passes over all its pixels at the cost of a few bytes each.
_MAX_JPEG_SCANS = 64


def recognise(data: bytes) -> str | None:
    """Names the format that the first bytes announce, or None where it is none of ours."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    return next((name for start, name in _SIGNATURES if data.startswith(start)), None)


def decode_raster(data: bytes, name: str, *, max_pixels: int) -> NDArray[np.uint8]:
    """Decodes the first frame to grey.

    Colour becomes grey by ITU-R 601 luma as Pillow rounds it (equal channels stay exactly what
    they are), transparency is composited on black, EXIF rotation is applied, other depths go
    through `scale_to_uint8`.

    Args:
        data: The whole file.
        name: The format as `recognise` named it.
        max_pixels: Bound on width x height, checked before anything is decoded.

    Returns:
        ``(H, W)`` uint8.

    Raises:
        ImageError: As `check_size`, and ``unreadable_image`` for everything that Pillow cannot
            read.
    """
    try:
        return _decode(data, name, max_pixels)
    except ImageError:
        raise
    except (MemoryError, Image.DecompressionBombError):
        refusal = ImageError(
            f"The {name} image needs too much memory. Scale it down and try again.",
            code="image_too_large",
        )
    except Exception:  # Pillow documents no closed set of errors for damaged data
        refusal = ImageError(
            f"The {name} image cannot be read: the file is damaged, incomplete or of an unusual "
            "kind. Export it again, for example as PNG.",
            code="unreadable_image",
        )
    raise refusal  # outside the handlers, so that the decoder's own words are not chained


def _decode(data: bytes, name: str, max_pixels: int) -> NDArray[np.uint8]:
    if name == "WebP":  # its reader allocates the canvas when it is opened
        check_size(*_webp_size(data), max_pixels=max_pixels)
    if name == "JPEG" and data.count(b"\xff\xda") > _MAX_JPEG_SCANS:
        raise ValueError("too many scans")
    with _READERS[name](io.BytesIO(data)) as image:
        check_size(*image.size, max_pixels=max_pixels)
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            prepare_tiff(image, max_pixels=max_pixels)
        if has_deep_colour(image):
            with _READERS[name](io.BytesIO(data)) as again:
                pixels = deep_colour_to_grey(image, again)
        else:
            image.load()
            pixels = to_grey(image)
        # a copy, because Pillow's own memory is read-only
        return np.array(_rotate(pixels, _orientation(image)), order="C")


def _webp_size(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if kind == b"VP8X":
        return (
            int.from_bytes(data[24:27], "little") + 1,
            int.from_bytes(data[27:30], "little") + 1,
        )
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return (
        int.from_bytes(data[26:28], "little") & 0x3FFF,
        int.from_bytes(data[28:30], "little") & 0x3FFF,
    )


def _orientation(image: ImageFile.ImageFile) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # a damaged EXIF block is no reason to refuse sound pixels
        return 1


def _rotate(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Undoes EXIF orientation 2 to 8; others mean upright."""
    if orientation in {5, 6, 7, 8}:
        pixels = pixels.T
    if orientation in {2, 3, 6, 7}:
        pixels = pixels[:, ::-1]
    if orientation in {3, 4, 7, 8}:
        pixels = pixels[::-1]
    return pixels
