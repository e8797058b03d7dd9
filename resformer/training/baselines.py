"""Networks of torchvision that are trained in the same loop, to compare ours with.

He et al., "Deep residual learning for image recognition", CVPR 2016; Howard et al., "Searching for
MobileNetV3", ICCV 2019; Huang et al., "Densely connected convolutional networks", CVPR 2017. They
start from random weights, as ours does, and have no lung head.
"""

from __future__ import annotations

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from torch import Tensor, nn

from resformer.backends import NetworkOutputs
from resformer.devices import place_model
from resformer.transforms import InputSpec, to_input


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


class ModuleBackend:
    """Any network of images ``(B, 1, H, W)`` to logits, run as :mod:`resformer.backends` run ours.

    Args:
        model: is moved to the device and put into evaluation mode.
        spec: what it expects of an image.
        device: where to run.
    """

    name = "torch"

    def __init__(self, model: nn.Module, spec: InputSpec, device: torch.device) -> None:
        self._model = place_model(model, device).eval()
        self._spec = spec
        self._device = device

    @torch.inference_mode()
    def compute(self, pixels: NDArray[np.uint8]) -> NetworkOutputs:
        """Run films ``(B, size, size)``; the logits alone."""
        images = torch.stack([to_input(film, self._spec) for film in pixels]).to(self._device)
        images = images.contiguous(memory_format=torch.channels_last)
        return NetworkOutputs(logits=self._model(images).double(), blocks=[])
