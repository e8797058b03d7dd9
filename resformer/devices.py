"""Choice of the device that the network runs on, and the move to it."""

from __future__ import annotations

import importlib.util
import shutil
from typing import Any, TypeVar

import torch
from torch import nn

Model = TypeVar("Model", bound=nn.Module)

_KINDS = ("cpu", "cuda", "mps")


def choose_device(name: str = "auto") -> torch.device:
    """Return the named device, or for ``auto`` a GPU where there is one and the CPU elsewhere.

    Raises:
        ValueError: if the device is unknown or not on this machine.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    unknown = ValueError(f"unknown device {name!r}: use auto, cpu, cuda, cuda:1 or mps")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise unknown from None
    if device.type not in _KINDS:  # PyTorch names a dozen others, which it hardly ever comes with
        raise unknown
    missing_gpu = device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()
    if missing_gpu or (device.type == "mps" and not torch.backends.mps.is_available()):
        raise ValueError(f"device {name!r} is not on this machine: use auto or cpu")
    return device


def can_compile(device: torch.device) -> bool:
    """Return whether ``torch.compile`` makes kernels for a device.

    That takes a GPU, Triton and a C compiler.
    """
    has_triton = importlib.util.find_spec("triton") is not None
    return device.type == "cuda" and has_triton and any(map(shutil.which, ("cc", "gcc", "clang")))


def place_model(model: Model, device: torch.device) -> Model:
    """Move a network to a device, in channels-last layout, which is fastest for convolutions."""
    # The stubs of torch lack this overload of nn.Module.to.
    move: Any = model.to
    move(device, memory_format=torch.channels_last)
    return model
