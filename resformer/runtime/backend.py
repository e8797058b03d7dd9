"""What runs a network, whichever library does it, and the choice between them."""

from __future__ import annotations

import importlib.util
import logging
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from resformer.checkpoint import Checkpoint, CheckpointError
from resformer.runtime.outputs import NetworkOutputs

BACKENDS = ("auto", "torch", "onnxruntime")

_logger = logging.getLogger(__name__)


class Backend(Protocol):
    """A network ready to run; safe to share between threads."""

    @property
    def name(self) -> str:
        """One of :data:`BACKENDS`."""
        ...

    def compute(self, pixels: NDArray[np.uint8]) -> NetworkOutputs:
        """Run films ``(B, size, size)``, resized to the checkpoint's input size."""
        ...


def choose_backend(checkpoint: Checkpoint, device: torch.device, name: str = "auto") -> Backend:
    """Return the named backend, or for ``auto`` the fastest that can run.

    That is ONNX Runtime on a processor, where it is installed and the checkpoint holds a graph,
    and PyTorch elsewhere.

    Raises:
        ValueError: if the backend is unknown, or is ``onnxruntime`` and cannot run.
        CheckpointError: if the weights do not fit, or the graph lacks what the checkpoint needs.
    """
    if name not in BACKENDS:
        raise ValueError(f"unknown backend {name!r}: use {', '.join(BACKENDS)}")
    if name != "torch":
        obstacle = _find_obstacle(checkpoint, device)
        if not obstacle:
            try:
                return _onnx_runtime(checkpoint)
            except CheckpointError:
                raise
            except ValueError as error:
                obstacle = str(error)
        if name == "onnxruntime":
            raise ValueError(f"the backend onnxruntime cannot run: {obstacle}")
        _logger.info("PyTorch runs the network: %s", obstacle)
    from resformer.runtime.pytorch import PyTorchBackend

    return PyTorchBackend(checkpoint, device)


def _find_obstacle(checkpoint: Checkpoint, device: torch.device) -> str:
    """Return why ONNX Runtime cannot run the network; empty if nothing is known against it."""
    if device.type != "cpu":
        return f"it runs on the processor only, not on {device}"
    if checkpoint.graph is None:
        return "the checkpoint holds no graph (python -m resformer export adds one)"
    if importlib.util.find_spec("onnxruntime") is None:
        return "it is not installed (pip install onnxruntime)"
    return ""


def _onnx_runtime(checkpoint: Checkpoint) -> Backend:
    from resformer.runtime.onnx_runtime import OnnxRuntimeBackend

    return OnnxRuntimeBackend(checkpoint)
