"""The one way from the bytes of an uploaded or stored file to grey pixels."""

from __future__ import annotations

import re
import warnings

import numpy as np
from numpy.typing import NDArray

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
        from resformer.dicom.decoder import decode_dicom  # pydicom is loaded when it is needed

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
