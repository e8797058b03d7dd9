"""Reads PNG, JPEG, BMP, GIF, WebP and TIFF through Pillow, from hostile sources too.

The format's own Pillow class is called instead of ``Image.open``: no other plugin ever sees the
data, and Pillow's process-wide bomb limit, which warns instead of refusing, is replaced by ours.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageChops,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from resformer.images.depth import scale_to_uint8
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
_DEEP_MODES = frozenset({"I", "F", "I;16", "I;16B", "I;16L"})
_ORIENTATION_TAG = 0x0112
_PHOTOMETRIC_TAG, _SAMPLE_FORMAT_TAG = 262, 339
_TILE_WIDTH_TAG, _TILE_HEIGHT_TAG = 322, 323
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
            _check_tile(image, max_pixels)
        image.load()
        pixels = _to_grey(image)
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


def _check_tile(image: TiffImagePlugin.TiffImageFile, max_pixels: int) -> None:
    """A small picture may announce tiles of gigabytes, which libtiff allocates."""
    width, height = image.tag_v2.get(_TILE_WIDTH_TAG), image.tag_v2.get(_TILE_HEIGHT_TAG)
    if width and height:
        check_size(int(width), int(height), max_pixels=max_pixels, min_side=1)


def _to_grey(image: ImageFile.ImageFile) -> NDArray[np.uint8]:
    if image.mode in _DEEP_MODES:
        return _deep_grey(image)
    grey: Image.Image
    if image.mode in {"LA", "PA", "RGBA", "La", "RGBa"} or image.has_transparency_data:
        rgba = image.convert("LA" if image.mode == "La" else "RGBA")
        grey = ImageChops.multiply(rgba.convert("L"), rgba.getchannel("A"))
    elif image.mode in {"1", "L", "P", "RGB"}:
        grey = image.convert("L")
    else:
        grey = image.convert("RGB").convert("L")
    pixels = np.asarray(grey, dtype=np.uint8)
    if image.mode == "L" and _tiff_tag(image, _SAMPLE_FORMAT_TAG) == 2:
        return pixels ^ np.uint8(0x80)  # signed bytes, which Pillow reads as unsigned
    return pixels


def _deep_grey(image: ImageFile.ImageFile) -> NDArray[np.uint8]:
    values: NDArray[Any] = np.asarray(image)
    if image.mode == "I" and _tiff_tag(image, _SAMPLE_FORMAT_TAG) == 1:
        values = values.view(np.uint32)
    pixels = scale_to_uint8(values)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):  # the one 16-bit grey that a PNG may declare as see-through
        pixels[values == transparent] = 0
    if _tiff_tag(image, _PHOTOMETRIC_TAG) == 0:  # MinIsWhite, which Pillow turns only at 8 bits
        return 255 - pixels
    return pixels


def _tiff_tag(image: ImageFile.ImageFile, tag: int) -> int | None:
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return None
    value = image.tag_v2.get(tag, 1 if tag == _SAMPLE_FORMAT_TAG else None)
    return int(value[0] if isinstance(value, tuple) else value)


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
