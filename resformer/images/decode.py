"""The one way from the bytes of an uploaded or stored file to grey pixels.

The picture that goes back to a browser.
"""

from __future__ import annotations

import io
import re
import warnings
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resformer.dicom.recognition import is_dicom
from resformer.images.errors import ImageError
from resformer.images.raster import decode_raster, recognise

IMAGE_SUFFIXES: frozenset[str] = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"}
)
_DECODER_WARNINGS = (
    *("ignore", None, Warning),
    re.compile(r"(PIL|pydicom|resformer\.(images|dicom))\."),
    0,
)


def decode_image(data: bytes, *, max_pixels: int = 50_000_000) -> NDArray[np.uint8]:
    """Decodes an image of any supported format, recognised by content, to 8-bit grey.

    Args:
        data: The whole file: PNG, JPEG, BMP, GIF, WebP or TIFF (first frame), or DICOM.
        max_pixels: Bound on width x height, checked on the header before decoding.

    Returns:
        ``(H, W)`` uint8, upright, 0 is black.

    Raises:
        ImageError: The data is no image of these formats, damaged, too small or too large;
            see its ``code``.
    """
    if not data:
        raise ImageError("The file is empty.", code="unreadable_image")
    _silence_decoders()
    if is_dicom(data):
        from resformer.dicom.decode import decode_dicom

        return decode_dicom(data, max_pixels=max_pixels)
    name = recognise(data)
    if name is None:
        raise ImageError(
            "This is not an image of a supported format: PNG, JPEG, BMP, GIF, WebP, TIFF or DICOM.",
            code="unsupported_format",
        )
    return decode_raster(data, name, max_pixels=max_pixels)


def _silence_decoders() -> None:
    """Keeps decoders from warning about, and quoting from, an uploaded file.

    A lasting filter for their modules alone: `warnings.catch_warnings` swaps the filters of the
    whole process, and two requests in two threads would undo each other's. It is put in front
    again where a filter that was added later would let their warnings through.
    """
    if warnings.filters[:1] != [_DECODER_WARNINGS]:
        warnings.filterwarnings("ignore", module=_DECODER_WARNINGS[3].pattern)


def preview_size(shape: tuple[int, ...], *, max_side: int = 512) -> tuple[int, int]:
    """Return the width and height of the preview of an image of shape ``(H, W)``."""
    height, width = shape
    scale = min(1.0, max_side / max(height, width))
    return max(1, round(width * scale)), max(1, round(height * scale))


def encode_preview(pixels: NDArray[np.uint8], *, max_side: int = 512) -> bytes:
    """Encodes grey pixels as a PNG scaled down to ``max_side`` on the longer side.

    Smaller images keep their size. A preview is sent once and thrown away, so the fast way is
    taken: a short filter, and a search for runs alone; a search for patterns takes longer and finds
    none in the noise of a film.

    Args:
        pixels: ``(H, W)`` uint8.
        max_side: Bound in pixels on the longer side.

    Returns:
        The PNG file.

    Raises:
        ValueError: ``pixels`` is not ``(H, W)`` uint8.
    """
    if pixels.ndim != 2 or pixels.dtype != np.uint8 or pixels.size == 0:
        raise ValueError(
            f"pixels must be a non-empty (H, W) uint8 array, got {pixels.dtype} {pixels.shape}"
        )
    image = Image.fromarray(pixels)
    size = preview_size(pixels.shape, max_side=max_side)
    if size != image.size:
        image = image.resize(size, Image.Resampling.HAMMING, reducing_gap=2.0)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=1, compress_type=zlib.Z_RLE)
    return buffer.getvalue()
