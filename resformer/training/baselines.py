"""Networks of torchvision that are trained in the same loop, to compare ours with.

He et al., "Deep residual learning for image recognition", CVPR 2016; Howard et al., "Searching for
MobileNetV3", ICCV 2019; Huang et al., "Densely connected convolutional networks", CVPR 2017. They
start from random weights, as ours does, and have no lung head.
"""

from __future__ import annotations

import torchvision
from torch import Tensor, nn


class GreyClassifier(nn.Module):
    """A network for colour images that is given grey ones ``(B, 1, H, W)``."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Map grey images to logits ``(B, num_classes)``."""
        logits: Tensor = self.network(x.expand(-1, 3, -1, -1))
        return logits


def build_baseline(name: str, num_classes: int) -> GreyClassifier:
    """Build a network of :data:`resformer.training.config.BASELINES` with random weights."""
    return GreyClassifier(torchvision.models.get_model(name, weights=None, num_classes=num_classes))
