"""MCCRM, multi-channel convolution and residual mapping: the block of the backbone.

Three views of the same features (a 3x3 convolution refined by a depthwise separable one, that
one's skip, and the untouched input) are concatenated, weighed by SimAM and projected back.
Departure from the earlier implementation, which had neither normalisation nor activation and
trained badly: both are inside, and the whole block is residual.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from resformer.checks import require_positive
from resformer.layers.conv import ConvNormAct, DWConv3x3
from resformer.layers.simam import SimAM


class MCCRM(nn.Module):
    """``activation(x + project(SimAM(concat(DWConv3x3(conv3x3(x)) + x, x))))``.

    Args:
        channels: channels of the input and of the output.

    Raises:
        ValueError: if ``channels`` is not positive.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        require_positive(channels=channels)
        self.conv = ConvNormAct(channels, channels, 3)
        self.dwconv = DWConv3x3(channels, channels)
        self.attention = SimAM()
        self.project = ConvNormAct(2 * channels, channels, 1, activate=False)
        self.activation = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, channels, H, W)`` to the same shape."""
        refined = self.dwconv(self.conv(x)) + x
        attended = self.attention(torch.cat((refined, x), dim=1))
        mapped: Tensor = self.activation(x + self.project(attended))
        return mapped
