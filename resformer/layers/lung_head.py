"""Lung head: which positions are lung, and which infected, read off the features of four scales.

A light decoder in the manner of Xie et al., "SegFormer" (NeurIPS 2021): every scale is projected
to one narrow width, resized to the finest grid and summed, and two convolutions follow. Departure:
a sum in place of a concatenation, and a 3x3 convolution, which smooths the outline.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from resformer.layers.conv import ConvNormAct
from resformer.layers.resizing import enlarge
from resformer.layers.validation import require_positive


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
