"""SimAM, a parameter-free attention over every neuron of a feature map.

Yang, Zhang, Li and Xie, "SimAM: A Simple, Parameter-Free Attention Module for Convolutional
Neural Networks", ICML 2021, equations 5 and 6. No departure from the paper.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from resformer.checks import require_positive


class SimAM(nn.Module):
    """Weigh each neuron by how much it stands out from its own channel.

    ``y = x * sigmoid((x - mean)^2 / (4 * (variance + e_lambda)) + 0.5)``, with the mean and the
    unbiased variance (divisor ``H * W - 1``) of each channel over its positions.

    Args:
        e_lambda: regulariser of the energy function, the paper's lambda.

    Raises:
        ValueError: if ``e_lambda`` is not positive.
    """

    def __init__(self, e_lambda: float = 1e-4) -> None:
        super().__init__()
        require_positive(e_lambda=e_lambda)
        self.e_lambda = e_lambda

    def forward(self, x: Tensor) -> Tensor:
        """Map features ``(B, C, H, W)`` to attended features of the same shape.

        Raises:
            ValueError: if ``H * W`` is 1, where no variance exists.
        """
        positions = x.shape[-2] * x.shape[-1]
        if positions < 2:
            raise ValueError("SimAM needs at least 2 positions a channel: pass a larger image")
        if torch.compiler.is_exporting():
            return self._attend_by_layer_norm(x, positions)
        # Means over tokens keep gradients in the layout of the convolutions, channels last.
        tokens = rearrange(x, "b c h w -> b (h w) c")
        squared_deviation = (tokens - tokens.mean(dim=1, keepdim=True)).square()
        variance = squared_deviation.sum(dim=1, keepdim=True) / (positions - 1)
        inverse_energy = squared_deviation / (4 * (variance + self.e_lambda)) + 0.5
        attended = tokens * torch.sigmoid(inverse_energy)
        return rearrange(attended, "b (h w) c -> b c h w", h=x.shape[-2])

    def _attend_by_layer_norm(self, x: Tensor, positions: int) -> Tensor:
        """Do the same in half the operations, which is faster in a graph but slower to train.

        The root of the energy is half the normalised channel, corrected for the unbiased variance.
        """
        unbiased = (positions - 1) / positions
        scale = x.new_full((positions,), 0.5 * math.sqrt(unbiased))
        rows = x.flatten(2)
        root = F.layer_norm(rows, (positions,), scale, None, self.e_lambda * unbiased)
        attended: Tensor = (rows * torch.sigmoid(root * root + 0.5)).view(x.shape)
        return attended

    def extra_repr(self) -> str:
        """Show the regulariser in ``repr``."""
        return f"e_lambda={self.e_lambda}"
