"""From the bytes of a file to grey pixels, and back to a small PNG.

Everything that reads an image in this project (training, evaluation, command line, web) calls
`decode_image`, so that a network sees the same pixels everywhere.
"""

from __future__ import annotations

from resformer.images.decode import IMAGE_SUFFIXES, decode_image, encode_preview, preview_size
from resformer.images.errors import ImageError

__all__ = ["IMAGE_SUFFIXES", "ImageError", "decode_image", "encode_preview", "preview_size"]
