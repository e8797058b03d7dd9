"""Depthwise separable 3x3 convolution.

Howard et al., "MobileNets", arXiv:1704.04861: a depthwise 3x3 filters each channel, a pointwise
1x1 mixes them. Departure: normalisation and activation follow the pair once, not each half.
"""

from __future__ import annotations

from torch import Tensor, nn

from resformer.layers.conv import ConvNormAct
from resformer.layers.validation import require_positive


class DWConv3x3(nn.Module):
    """Depthwise 3x3, then pointwise 1x1 with normalisation and activation.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.

    Raises:
        ValueError: if a number of channels is not positive.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        require_positive(in_channels=in_channels, out_channels=out_channels)
        self.depthwise = nn.Conv2d(
            in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False
        )
        self.pointwise = ConvNormAct(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, in_channels, H, W)`` to ``(B, out_channels, H, W)``."""
        mixed: Tensor = self.pointwise(self.depthwise(x))
        return mixed
