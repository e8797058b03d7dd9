"""What one pass of the network gives, under the names that the ONNX graph gives it too.

Folds batch normalisation into the convolution before it, which inference need not do twice.

PyTorch as the backend: on every device, and the reference for the other.

ONNX Runtime as the backend: the checkpoint's own graph, on the processor.

OpenVINO was measured beside it and left out: see ``benchmarks/README.md``.

What runs a network, whichever library does it, and the choice between them.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from resformer.checkpoint import Checkpoint, CheckpointError
from resformer.devices import place_model
from resformer.gate.gate import describe
from resformer.layers import ConvNormAct
from resformer.model import NUM_STAGES, IdentityMappingResFormer
from resformer.transforms import to_input

LOGITS, POOLED, LUNGS = "logits", "pooled", "lungs"
GRIDS = ("input_grid", *(f"stage{i}_grid" for i in range(1, NUM_STAGES + 1)))


@dataclass(frozen=True)
class NetworkOutputs:
    """What the network says of a batch.

    Attributes:
        logits: ``(B, num_classes)`` float64; float64 lets the probabilities of the softmax sum to
            1 within rounding of a double.
        blocks: averages over coarse grids ``(B, D_b)``, as :func:`resformer.gate.gate.describe`
            gives them.
        pooled: features that the class is read off, ``(B, D)``; none from a graph that was
            exported before it gave them.
        lungs: logits of being lung, ``(B, 1, h, w)``; none without a lung head, or from such a
            graph.
    """

    logits: Tensor
    blocks: list[Tensor]
    pooled: Tensor | None = None
    lungs: Tensor | None = None

    @classmethod
    def from_named(cls, tensors: Mapping[str, Tensor]) -> NetworkOutputs:
        """Put together what :func:`run_network` or a graph gave.

        Raises:
            KeyError: if the logits or a grid is missing.
        """
        return cls(
            logits=tensors[LOGITS].double(),
            blocks=[tensors[name] for name in GRIDS],
            pooled=tensors.get(POOLED),
            lungs=tensors.get(LUNGS),
        )


def run_network(model: IdentityMappingResFormer, images: Tensor) -> dict[str, Tensor]:
    """Run a network in evaluation mode once, for everything that is asked of it.

    Args:
        model: the network.
        images: its input ``(B, C, H, W)``.

    Returns:
        by name, what :class:`NetworkOutputs` holds.
    """
    features = model.forward_features(images)
    lungs = None if model.lung_head is None else model.lungs(features)
    pooled = model.pool(features, lungs)
    tensors = {
        LOGITS: model.head(pooled),
        **dict(zip(GRIDS, describe(images, features), strict=True)),
        POOLED: pooled,
    }
    return tensors if lungs is None else tensors | {LUNGS: lungs[:, :1]}


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


class PyTorchBackend:
    """The network as PyTorch runs it, batch normalisation folded into the convolutions.

    Args:
        checkpoint: a loaded checkpoint.
        device: where to run.

    Raises:
        CheckpointError: if the weights do not fit.
    """

    name = "torch"

    def __init__(self, checkpoint: Checkpoint, device: torch.device) -> None:
        self._spec = checkpoint.input_spec
        self._device = device
        self._model = place_model(fold_batch_norm(checkpoint.build_model()), device)

    @torch.inference_mode()
    def compute(self, pixels: NDArray[np.uint8]) -> NetworkOutputs:
        """Run films ``(B, size, size)``, resized to the checkpoint's input size."""
        images = torch.stack([to_input(film, self._spec) for film in pixels]).to(self._device)
        images = images.contiguous(memory_format=torch.channels_last)
        return NetworkOutputs.from_named(run_network(self._model, images))


_ERROR_LEVEL = 3


def open_session(graph: bytes, threads: int) -> onnxruntime.InferenceSession:
    """Open a graph on the processor.

    Args:
        graph: the ONNX file.
        threads: that one run uses.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = _ERROR_LEVEL
    # Threads that spin are at once there for the next operation, but between two films they
    # would take the cores that decode the next one.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


class OnnxRuntimeBackend:
    """The graph that :func:`resformer.export.export_graph` made.

    It takes as many threads as PyTorch would, so that one setting (``OMP_NUM_THREADS``) governs
    both.

    Args:
        checkpoint: a checkpoint with a graph.

    Raises:
        ValueError: if the graph cannot be read by the installed version.
        CheckpointError: if the checkpoint can abstain, but its graph is of a time before.
    """

    name = "onnxruntime"

    def __init__(self, checkpoint: Checkpoint) -> None:
        if checkpoint.graph is None:
            raise ValueError("the checkpoint holds no graph")
        try:
            self._session = open_session(checkpoint.graph.content, torch.get_num_threads())
        except Exception as error:  # its errors have no base class but this
            raise ValueError(f"its version {onnxruntime.__version__} refuses the graph") from error
        self._input = self._session.get_inputs()[0].name
        self._outputs = [output.name for output in self._session.get_outputs()]
        if checkpoint.abstention and POOLED not in self._outputs:
            raise CheckpointError(
                "the checkpoint's graph gives no pooled features, which the abstention looks at: "
                "run python -m resformer export"
            )

    def compute(self, pixels: NDArray[np.uint8]) -> NetworkOutputs:
        """Run films ``(B, size, size)``, resized to the checkpoint's input size."""
        arrays = self._session.run(self._outputs, {self._input: pixels})
        tensors = map(torch.from_numpy, arrays)
        return NetworkOutputs.from_named(dict(zip(self._outputs, tensors, strict=True)))


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

    return OnnxRuntimeBackend(checkpoint)
