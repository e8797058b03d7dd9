"""Networks that people would use instead, in one channel and with four classes where they let us.

Weights are not needed to measure speed, so none are loaded.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

# Constructors of torchvision.models by the networks' names.
_TORCHVISION = {
    "ResNet-18": "resnet18",
    "MobileNetV3-Small": "mobilenet_v3_small",
    "DenseNet-121": "densenet121",
}
# Held as long as the process runs: what it defines goes with it.
_OPERATORS: list[torch.library.Library] = []


class GreyImages(nn.Module):
    """Lets a network of three channels take grey images, as its users do: by repeating them.

    Args:
        network: takes ``(B, 3, H, W)``.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Map ``(B, 1, H, W)`` to logits."""
        logits: Tensor = self.network(images.expand(-1, 3, -1, -1))
        return logits


class WithoutLungs(nn.Module):
    """A classifier as the training loop calls it.

    Args:
        network: takes ``(B, 1, H, W)``.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, return_lungs: bool = False) -> Tensor:
        """Map ``(B, 1, H, W)`` to logits; it knows nothing of lungs."""
        logits: Tensor = self.network(images)
        return logits


def build_baselines(num_classes: int = 4) -> dict[str, nn.Module]:
    """Return the networks by name, in evaluation mode; they take ``(B, 1, H, W)``.

    Raises:
        ImportError: if ``requirements-benchmarks.txt`` is not installed.
    """
    networks = {name: build_baseline(name, num_classes) for name in _TORCHVISION}
    dense_net: Callable[..., nn.Module] = importlib.import_module("torchxrayvision.models").DenseNet
    networks["TorchXRayVision DenseNet"] = dense_net(
        weights=None, num_classes=num_classes, in_channels=1, apply_sigmoid=False
    )
    return {name: network.eval() for name, network in networks.items()}


def build_baseline(name: str, num_classes: int = 4) -> nn.Module:
    """Return a network of torchvision by its name, with random weights; it takes ``(B, 1, H, W)``.

    Raises:
        ImportError: if ``requirements-benchmarks.txt`` is not installed.
    """
    build: Callable[..., nn.Module] = getattr(import_torchvision().models, _TORCHVISION[name])
    return GreyImages(build(num_classes=num_classes))


def import_torchvision() -> Any:
    """Import torchvision, also where its operators were built for another PyTorch.

    The package index has a build for CUDA only. Beside a PyTorch without CUDA its operators do not
    load, and it stops at describing two of them, which no classifier uses; so they are declared.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _OPERATORS.append(library)
        return importlib.import_module("torchvision")
