"""The picture of a decoded image that goes back to a browser."""

from __future__ import annotations

import io
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PREVIEW_SIDE = 512
MAX_PREVIEW_SIDE = 4096


def preview_size(shape: tuple[int, ...], *, max_side: int = PREVIEW_SIDE) -> tuple[int, int]:
    """Return the width and height of the preview of an image of shape ``(H, W)``."""
    height, width = shape
    scale = min(1.0, max_side / max(height, width))
    return max(1, round(width * scale)), max(1, round(height * scale))


def encode_preview(pixels: NDArray[np.uint8], *, max_side: int = PREVIEW_SIDE) -> bytes:
    """Encode grey pixels as a PNG scaled down to ``max_side`` on the longer side.

    Smaller images keep their size. A preview is sent once and thrown away, so the fast way is
    taken: a short filter, and a search for runs alone; a search for patterns takes longer and finds
    none in the noise of a film.

    Args:
        pixels: ``(H, W)`` uint8.
        max_side: bound in pixels on the longer side.

    Returns:
        the PNG file.

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
