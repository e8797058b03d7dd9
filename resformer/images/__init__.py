"""From the bytes of a file to grey pixels, and back to a small PNG.

Everything that reads an image in this project (training, evaluation, command line, web) calls
``decode_image``, so that a network sees the same pixels everywhere.
"""

from __future__ import annotations

from resformer.image_errors import ImageError
from resformer.images.decode import (
    DICOM_SUFFIXES,
    IMAGE_SUFFIXES,
    MIN_SIDE,
    decode_described,
    decode_image,
    recognise_format,
)
from resformer.images.preview import MAX_PREVIEW_SIDE, encode_preview, preview_size

__all__ = [
    "DICOM_SUFFIXES",
    "IMAGE_SUFFIXES",
    "MAX_PREVIEW_SIDE",
    "MIN_SIDE",
    "ImageError",
    "decode_described",
    "decode_image",
    "encode_preview",
    "preview_size",
    "recognise_format",
]
