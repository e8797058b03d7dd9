"""The picture of a decoded image that goes back to a browser."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

# A preview is sent once and thrown away, so the fast way is taken: one filter for all rows, and a
# search for runs alone; a search for patterns takes longer and finds none in the noise of a film.
_FAST_PNG = (
    cv2.IMWRITE_PNG_FILTER,
    cv2.IMWRITE_PNG_FILTER_UP,
    cv2.IMWRITE_PNG_STRATEGY,
    cv2.IMWRITE_PNG_STRATEGY_RLE,
    cv2.IMWRITE_PNG_COMPRESSION,
    1,
)

MAX_PREVIEW_SIDE = 4096


def preview_size(shape: tuple[int, ...], *, max_side: int) -> tuple[int, int]:
    """Return the width and height of the preview of an image of shape ``(H, W)``."""
    height, width = shape
    scale = min(1.0, max_side / max(height, width))
    return max(1, round(width * scale)), max(1, round(height * scale))


def encode_preview(pixels: NDArray[np.uint8], *, max_side: int) -> bytes:
    """Encode grey pixels as a PNG scaled down to ``max_side`` on the longer side.

    Smaller images keep their size.

    Args:
        pixels: ``(H, W)`` uint8.
        max_side: bound in pixels on the longer side.

    Returns:
        the PNG file.

    Raises:
        ValueError: if ``pixels`` is not ``(H, W)`` uint8.
    """
    if pixels.ndim != 2 or pixels.dtype != np.uint8 or pixels.size == 0:
        raise ValueError(
            f"pixels must be a non-empty (H, W) uint8 array, got {pixels.dtype} {pixels.shape}"
        )
    height, width = pixels.shape
    size = preview_size(pixels.shape, max_side=max_side)
    shown = pixels
    if size != (width, height):
        shown = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    encoded, picture = cv2.imencode(".png", shown, _FAST_PNG)
    if not encoded:
        raise RuntimeError(f"OpenCV cannot write a PNG of {size[0]} x {size[1]}")
    return picture.tobytes()
