"""Pooling inside regions: mean and standard deviation of the features over some positions.

The mean alone dilutes a small opacity in a healthy lung; the standard deviation beside it tells
how much the positions differ (statistics pooling: Snyder et al., "X-Vectors", ICASSP 2018, there
over time). Departure: positions are weighed by how much they belong to a region.
"""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

# Weight of a position outside the region, so that a picture without any is pooled as a whole.
OUTSIDE_WEIGHT = 1e-3
# Added to a variance, whose square root has no slope at 0.
_LEAST_VARIANCE = 1e-4


def average_inside(x: Tensor, inside: Tensor) -> Tensor:
    """Average features over the positions inside each of some masks.

    Args:
        x: features ``(B, C, H, W)``.
        inside: from 0, outside, to 1, inside, ``(B, R, h, w)`` with sides that are multiples of
            H and W; it is averaged down to their grid.

    Returns:
        ``(B, R, C)``: ``sum(w * x) / sum(w)`` with ``w = inside + OUTSIDE_WEIGHT``.
    """
    # A product with tokens keeps gradients in the layout of the convolutions, channels last.
    rows = rearrange(_weigh(inside, x), "b r h w -> b r (h w)")
    summed = rows.to(x.dtype) @ rearrange(x, "b c h w -> b (h w) c")
    return summed / rows.sum(dim=-1, keepdim=True)


def deviation_inside(x: Tensor, inside: Tensor) -> Tensor:
    """Return the standard deviation of features over the positions inside a mask.

    Args:
        x: features ``(B, C, H, W)``.
        inside: as for :func:`average_inside`, of one region, ``(B, 1, h, w)``.

    Returns:
        ``(B, C)`` float32: ``sqrt(sum(w * (x - mean)^2) / sum(w) + 1e-4)``.
    """
    weight = rearrange(_weigh(inside, x), "b 1 h w -> b (h w) 1")
    weight = weight / weight.sum(dim=1, keepdim=True)
    # Products one by one, for autocast would make a matrix product of squares too coarse.
    tokens = rearrange(x, "b c h w -> b (h w) c").float()
    mean = (weight * tokens).sum(dim=1, keepdim=True)
    variance: Tensor = (weight * (tokens - mean).square()).sum(dim=1)
    return (variance + _LEAST_VARIANCE).sqrt()


def _weigh(inside: Tensor, x: Tensor) -> Tensor:
    """Return the weight of each position of the grid of ``x``, ``(B, R, H, W)``."""
    kernel = (inside.shape[-2] // x.shape[-2], inside.shape[-1] // x.shape[-1])
    return (inside if kernel == (1, 1) else F.avg_pool2d(inside, kernel)) + OUTSIDE_WEIGHT
