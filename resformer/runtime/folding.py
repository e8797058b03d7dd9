"""Folds batch normalisation into the convolution before it, which inference need not do twice."""

from __future__ import annotations

from typing import TypeVar

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from resformer.layers import ConvNormAct

Network = TypeVar("Network", bound=nn.Module)


def fold_batch_norm(model: Network) -> Network:
    """Fold every :class:`ConvNormAct` of a network in evaluation mode, in place.

    The network's function stays the same within rounding; it can no longer be trained.

    Raises:
        ValueError: if the network is in training mode, where the statistics are the batch's.
    """
    if model.training:
        raise ValueError("only a network in evaluation mode can be folded: call eval() first")
    for unit in model.modules():
        if isinstance(unit, ConvNormAct) and isinstance(unit.norm, nn.BatchNorm2d):
            unit.conv = fuse_conv_bn_eval(unit.conv, unit.norm)
            unit.norm = nn.Identity()
    return model
