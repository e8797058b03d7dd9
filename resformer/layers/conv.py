"""The convolutions that every block is made of, and the enlargement of their feature maps.

:class:`ConvNormAct` has no bias because the normalisation that follows has one; both fold into a
single convolution at inference. :class:`DWConv3x3` is the depthwise separable convolution of
Howard et al., "MobileNets", arXiv:1704.04861: a depthwise 3x3 filters each channel, a pointwise
1x1 mixes them. Departure: normalisation and activation follow the pair once, not each half.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from resformer.checks import require_positive


class ConvNormAct(nn.Module):
    """``activation(batch_norm(conv(x)))``.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: side of the kernel in pixels.
        stride: step of the kernel in pixels; an odd kernel keeps ``H / stride`` x ``W / stride``.
        activate: whether a SiLU follows; without it the output is linear.

    Raises:
        ValueError: if a size is not positive.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        activate: bool = True,
    ) -> None:
        super().__init__()
        require_positive(
            in_channels=in_channels,
            out_channels=out_channels,
            kernel_size=kernel_size,
            stride=stride,
        )
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=(kernel_size - 1) // 2,
            bias=False,
        )
        self.norm: nn.Module = nn.BatchNorm2d(out_channels)
        self.activation = nn.SiLU(inplace=True) if activate else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, in_channels, H, W)`` to ``(B, out_channels, H / stride, W / stride)``."""
        normalised: Tensor = self.activation(self.norm(self.conv(x)))
        return normalised


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


def enlarge(x: Tensor, times: int) -> Tensor:
    """Enlarge ``(B, C, H, W)`` bilinearly to ``(B, C, times * H, times * W)``.

    By a factor and not to a size: an exported graph then keeps the layout of its convolutions.
    """
    return x if times == 1 else F.interpolate(x, scale_factor=float(times), mode="bilinear")
