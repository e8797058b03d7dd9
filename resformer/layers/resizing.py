"""Bilinear enlargement of feature maps."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def enlarge(x: Tensor, times: int) -> Tensor:
    """Enlarge ``(B, C, H, W)`` bilinearly to ``(B, C, times * H, times * W)``.

    By a factor and not to a size: an exported graph then keeps the layout of its convolutions.
    """
    return F.interpolate(x, scale_factor=float(times), mode="bilinear")
