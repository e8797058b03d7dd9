"""The one way to run the network: decoded films in, everything that is said of them out.

A backend runs a checkpoint's network on a batch of films, whichever library does it. There are two:
:class:`PyTorchBackend`, on every device and the reference for the other, and
:class:`OnnxRuntimeBackend`, which runs the checkpoint's own graph on the processor and is faster
there. OpenVINO was measured beside them and left out: see ``benchmarks/README.md``.

:func:`choose_backend` chooses between them, and does not trust the graph: it must compute what the
weights do.
"""

from __future__ import annotations

import copy
import importlib.util
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from resformer.checkpoint import Checkpoint, CheckpointError
from resformer.devices import place_model
from resformer.gate.gate import describe
from resformer.layers import ConvNormAct
from resformer.model import NUM_STAGES, IdentityMappingResFormer
from resformer.transforms import InputSpec, to_input

if TYPE_CHECKING:
    import onnxruntime

logger = logging.getLogger(__name__)

BACKENDS = ("auto", "torch", "onnxruntime")

# Names of the graph's outputs.
LOGITS, POOLED, LUNGS = "logits", "pooled", "lungs"
GRIDS = ("input_grid", *(f"stage{i}_grid" for i in range(1, NUM_STAGES + 1)))

# Of an output, between the two backends, as a share of its largest value; they differ in nothing
# but the order of additions.
_TOLERANCE = 1e-3
_ONNX_ERROR_LEVEL = 3


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


class Backend(Protocol):
    """A network ready to run; safe to share between threads."""

    @property
    def name(self) -> str:
        """One of :data:`BACKENDS`."""
        ...

    def compute(self, pixels: NDArray[np.uint8]) -> NetworkOutputs:
        """Run films ``(B, size, size)``, resized to the checkpoint's input size."""
        ...


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
        self._take(checkpoint.build_model(), checkpoint.input_spec, device)

    @classmethod
    def from_model(cls, model: IdentityMappingResFormer, spec: InputSpec) -> PyTorchBackend:
        """Run a copy of a network as it is now, in evaluation mode on its own device."""
        backend = cls.__new__(cls)
        backend._take(copy.deepcopy(model).eval(), spec, next(model.parameters()).device)
        return backend

    def _take(self, model: IdentityMappingResFormer, spec: InputSpec, device: torch.device) -> None:
        self._spec = spec
        self._device = device
        self._model = place_model(fold_batch_norm(model), device)

    @torch.inference_mode()
    def compute(self, pixels: NDArray[np.uint8]) -> NetworkOutputs:
        """Run films ``(B, size, size)``, resized to the checkpoint's input size."""
        images = torch.stack([to_input(film, self._spec) for film in pixels]).to(self._device)
        images = images.contiguous(memory_format=torch.channels_last)
        return NetworkOutputs.from_named(run_network(self._model, images))


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


class OnnxRuntimeBackend:
    """The checkpoint's graph, as :func:`resformer.export.add_graph` made it.

    It takes as many threads as PyTorch would, so that one setting (``OMP_NUM_THREADS``) governs
    both.

    Args:
        checkpoint: a checkpoint with a graph.

    Raises:
        ValueError: if the graph cannot be read by the installed version, or lacks what the
            checkpoint's abstention looks at.
    """

    name = "onnxruntime"

    def __init__(self, checkpoint: Checkpoint) -> None:
        if checkpoint.graph is None:
            raise ValueError("the checkpoint holds no graph (python -m resformer export adds one)")
        self._session = open_session(checkpoint.graph.content, torch.get_num_threads())
        self._input = self._session.get_inputs()[0].name
        self._outputs = [output.name for output in self._session.get_outputs()]
        if checkpoint.abstention and POOLED not in self._outputs:
            raise ValueError(
                "the checkpoint's graph gives no pooled features, which the abstention looks at: "
                "run python -m resformer export"
            )

    def compute(self, pixels: NDArray[np.uint8]) -> NetworkOutputs:
        """Run films ``(B, size, size)``, resized to the checkpoint's input size."""
        arrays = self._session.run(self._outputs, {self._input: pixels})
        tensors = map(torch.from_numpy, arrays)
        return NetworkOutputs.from_named(dict(zip(self._outputs, tensors, strict=True)))


def open_session(graph: bytes, threads: int) -> onnxruntime.InferenceSession:
    """Open a graph on the processor.

    Args:
        graph: the ONNX file.
        threads: that one run uses.

    Raises:
        ValueError: if ONNX Runtime cannot read it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = _ONNX_ERROR_LEVEL
    # Threads that spin are at once there for the next operation, but between two films they
    # would take the cores that decode the next one.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    providers = ["CPUExecutionProvider"]
    try:
        # There is nothing to fall back to, and trying so would print to standard output.
        return onnxruntime.InferenceSession(graph, options, providers, enable_fallback=0)
    except Exception as error:  # its errors have no base class but this
        raise ValueError(f"its version {onnxruntime.__version__} refuses the graph") from error


def choose_backend(checkpoint: Checkpoint, device: torch.device, name: str = "auto") -> Backend:
    """Return the named backend, or for ``auto`` the fastest that can run.

    That is ONNX Runtime on a processor, where it is installed and the checkpoint holds a graph,
    and PyTorch elsewhere.

    Raises:
        ValueError: if the backend is unknown, or is ``onnxruntime`` and cannot run.
        CheckpointError: if the weights do not fit, or the graph does not compute what they do.
    """
    if name not in BACKENDS:
        raise ValueError(f"unknown backend {name!r}: use {', '.join(BACKENDS)}")
    if name == "torch":
        return PyTorchBackend(checkpoint, device)
    try:
        graph = _open_graph(checkpoint, device)
    except ValueError as error:
        if name == "onnxruntime":
            raise ValueError(f"the backend onnxruntime cannot run: {error}") from error
        logger.info("PyTorch runs the network: %s", error)
        return PyTorchBackend(checkpoint, device)
    reference = PyTorchBackend(checkpoint, device)
    difference = compare_backends(graph, reference, checkpoint.input_spec.size)
    if difference:
        raise CheckpointError(
            f"the graph in the checkpoint does not compute what its weights do ({difference}): do "
            "not trust the file, or run python -m resformer export"
        )
    return graph


def _open_graph(checkpoint: Checkpoint, device: torch.device) -> OnnxRuntimeBackend:
    if device.type != "cpu":
        raise ValueError(f"it runs on the processor only, not on {device}")
    if checkpoint.graph and importlib.util.find_spec("onnxruntime") is None:
        raise ValueError("it is not installed (pip install onnxruntime)")
    return OnnxRuntimeBackend(checkpoint)


def probe_films(size: int) -> NDArray[np.uint8]:
    """Make films to try a network on, ``(4, size, size)``: noise, dark, smooth and all alike."""
    films = np.random.default_rng(0).integers(0, 256, (4, size, size), dtype=np.uint8)
    films[1] //= 2
    films[2] = np.add.outer(np.linspace(0, 200, size), np.linspace(0, 55, size)).astype(np.uint8)
    films[3] = 77
    return films


def compare_backends(backend: Backend, reference: Backend, size: int) -> str:
    """Run both on films made for it and say in a few words where they differ; empty if nowhere."""
    pixels = probe_films(size)
    expected = reference.compute(pixels)
    try:
        found = backend.compute(pixels)
    except Exception as error:  # ONNX Runtime's errors have no base class but this
        return f"it cannot be run: {' '.join(str(error).split()):.200}"
    pairs = {LOGITS: (found.logits, expected.logits)}
    pairs |= dict(zip(GRIDS, zip(found.blocks, expected.blocks, strict=True), strict=True))
    for name in (POOLED, LUNGS):
        # A graph of a time before lacks them, and so does a network without a lung head.
        ours, wanted = getattr(found, name), getattr(expected, name)
        if ours is not None and wanted is not None:
            pairs[name] = ours, wanted
    for name, (ours, wanted) in pairs.items():
        wanted = wanted.cpu()
        if ours.shape != wanted.shape:
            return f"its {name} are {tuple(ours.shape)}, not {tuple(wanted.shape)}"
        difference = (ours - wanted).abs().max().item()
        if not difference <= _TOLERANCE * (1 + wanted.abs().max().item()):
            return f"its {name} differ by {difference:.2g}"
    return ""
