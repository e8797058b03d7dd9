"""Lung head: which positions are lung, and which infected, read off the features of four scales.

A light decoder in the manner of Xie et al., "SegFormer" (NeurIPS 2021): every scale is projected
to one narrow width, resized to the finest grid and summed, and two convolutions follow. Departure:
a sum in place of a concatenation, and a 3x3 convolution, which smooths the outline.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from resformer.checks import require_positive
from resformer.layers.conv import ConvNormAct, enlarge

# Weight of a position outside the lungs, so that a picture without lungs is pooled as a whole.
OUTSIDE_WEIGHT = 1e-3


class LungHead(nn.Module):
    """Logits of being in a region, lung or infected lung, at the finest scale's grid.

    Args:
        channels: channels of each scale, finest first.
        width: channels inside the head.
        regions: 1 for the lungs alone, 2 for infected lung as well.

    Raises:
        ValueError: if there is no scale or a width is not positive.
    """

    def __init__(self, channels: Sequence[int], width: int = 16, regions: int = 1) -> None:
        super().__init__()
        require_positive(scales=len(channels), width=width, regions=regions)
        self.project = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        self.mix = ConvNormAct(width, width, 3)
        self.predict = nn.Conv2d(width, regions, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Map features of each scale ``(B, C_i, H_i, W_i)`` to ``(B, regions, H_1, W_1)``."""
        width = features[0].shape[-1]
        mixed: Tensor = self.project[0](features[0])
        for project, x in zip(list(self.project)[1:], features[1:], strict=True):
            mixed = mixed + enlarge(project(x), width // x.shape[-1])
        logits: Tensor = self.predict(self.mix(mixed))
        return logits


def average_inside(x: Tensor, inside: Tensor) -> Tensor:
    """Average features over the positions inside each mask.

    Args:
        x: features ``(B, C, H, W)``.
        inside: from 0, outside, to 1, inside, ``(B, R, h, w)`` with sides that are multiples of
            H and W; it is averaged down to their grid.

    Returns:
        ``(B, R, C)``: ``sum(w * x) / sum(w)`` with ``w = inside + OUTSIDE_WEIGHT``.
    """
    kernel = (inside.shape[-2] // x.shape[-2], inside.shape[-1] // x.shape[-1])
    weight = (inside if kernel == (1, 1) else F.avg_pool2d(inside, kernel)) + OUTSIDE_WEIGHT
    # A product with tokens keeps gradients in the layout of the convolutions, channels last.
    rows = rearrange(weight, "b r h w -> b r (h w)")
    summed = rows.to(x.dtype) @ rearrange(x, "b c h w -> b (h w) c")
    return summed / rows.sum(dim=-1, keepdim=True)
