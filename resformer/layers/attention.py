"""Scaled dot-product attention, written out.

Vaswani et al., "Attention Is All You Need", NeurIPS 2017, equation 1. PyTorch's fused kernel is
made for long rows of keys; with the 36 to 100 keys of the IMTM, on inputs of 96 to 160 pixels, its
backward pass takes several times as long on a processor, which slowed a whole training step by a
fifth.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return ``softmax(query key^T / sqrt(D)) value``.

    Args:
        query: ``(B, heads, N, D)``.
        key: ``(B, heads, M, D)``.
        value: ``(B, heads, M, D)``.

    Returns:
        ``(B, heads, N, D)``.
    """
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
    attended: Tensor = scores.softmax(dim=-1) @ value
    return attended


def map_rows(layer: nn.Module, tokens: Tensor) -> Tensor:
    """Apply a linear layer to tokens ``(B, N, C)`` as to one matrix, ``(B * N, C)``.

    PyTorch does so by itself; in an exported graph only a matrix gets its bias within the product.
    """
    mapped: Tensor = layer(tokens.flatten(0, 1)).unflatten(0, tokens.shape[:2])
    return mapped


def map_channels(layer: nn.Linear, x: Tensor) -> Tensor:
    """Apply a linear layer to the channels of a feature map ``(B, C, H, W)``.

    As a convolution, whose layout an exported graph then keeps.
    """
    return F.conv2d(x, layer.weight[..., None, None], layer.bias)
