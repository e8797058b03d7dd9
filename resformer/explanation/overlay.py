"""The picture of an evidence map, to lay over the preview of its film."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resformer.explanation.colours import inferno


def encode_overlay(evidence: NDArray[np.float32], size: tuple[int, int]) -> bytes:
    """Encode evidence as a PNG that grows warmer, lighter and less transparent with it.

    Args:
        evidence: ``(h, w)`` in [0, 1], as :func:`resformer.explanation.evidence_map` gives it.
        size: width and height in pixels, as :func:`resformer.images.preview_size` gives them.

    Returns:
        the PNG file, RGBA; where there is no evidence it is clear, at full evidence opaque.

    Raises:
        ValueError: if the evidence is not a map with values from 0 to 1.
    """
    # NaN fails every comparison, so it is refused too.
    if evidence.ndim != 2 or not (evidence.size and 0 <= evidence.min() <= evidence.max() <= 1):
        raise ValueError(
            f"evidence must be a map (h, w) of values from 0 to 1, got the shape {evidence.shape}: "
            "use evidence_map"
        )
    smooth = Image.fromarray(evidence.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
    levels = np.clip(np.rint(np.asarray(smooth) * 255), 0, 255).astype(np.uint8)
    picture = Image.fromarray(np.dstack([inferno(levels), levels]))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
