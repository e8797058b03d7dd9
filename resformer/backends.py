"""The one way to run a finished model: decoded films in, everything that is said of them out.

A backend runs a checkpoint's :class:`resformer.inference.InferenceNetwork` on a batch of films,
whichever library does it. There are two: :class:`PyTorchBackend`, on every device and the reference
for the other, and :class:`OnnxRuntimeBackend`, which runs the checkpoint's own graph and is faster
on a processor. Which of them is faster on a GPU, ``benchmarks/gpu.py`` measures; nobody has yet.
OpenVINO was measured and left out: see ``benchmarks/README.md``.

:func:`choose_backend` chooses between them, and does not trust the graph: it must compute what the
weights do. While a training goes, :mod:`resformer.training.finish` asks it for logits.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from resformer.checkpoint import Checkpoint, CheckpointError
from resformer.inference import FILMS, PROBABILITIES, InferenceNetwork

if TYPE_CHECKING:
    import onnxruntime

logger = logging.getLogger(__name__)

BACKENDS = ("auto", "torch", "onnxruntime")

# Of an output, between the two backends, as a share of its largest value; they differ in nothing
# but the order of additions.
_TOLERANCE = 1e-3
_CPU = torch.device("cpu")
_ONNX_ERROR_LEVEL = 3
SPIN_MICROSECONDS = 1000


@dataclass(frozen=True)
class NetworkOutputs:
    """What is said of a batch, as :meth:`resformer.inference.InferenceNetwork.forward` names it.

    Attributes:
        probabilities: ``(B, K)`` float64; each row sums to 1 within rounding of a double.
        features: that the class is read off, ``(B, D)``.
        gate_score: ``(B,)``; none without a gate.
        distance: to the nearest class, ``(B,)``; none without an abstention.
        lungs: probabilities of being lung, ``(B, h, w)``; none without a lung head.
    """

    probabilities: NDArray[np.float64]
    features: NDArray[np.float32]
    gate_score: NDArray[np.float32] | None = None
    distance: NDArray[np.float32] | None = None
    lungs: NDArray[np.float32] | None = None

    @classmethod
    def from_named(cls, arrays: Mapping[str, NDArray[np.float32]]) -> NetworkOutputs:
        """Put together what a network gave.

        Raises:
            TypeError: if an output is missing or unknown.
        """
        named: dict[str, Any] = dict(arrays)
        probabilities = named[PROBABILITIES].astype(np.float64)
        named[PROBABILITIES] = probabilities / probabilities.sum(axis=1, keepdims=True)
        return cls(**named)


class Backend(Protocol):
    """A network ready to run; safe to share between threads."""

    @property
    def name(self) -> str:
        """One of :data:`BACKENDS`."""
        ...

    def compute(self, pixels: NDArray[np.uint8]) -> NetworkOutputs:
        """Run films ``(B, size, size)``, resized to the checkpoint's input size."""
        ...


class PyTorchBackend:
    """The network as PyTorch runs it.

    Args:
        checkpoint: a loaded checkpoint.
        device: where to run.

    Raises:
        CheckpointError: if the weights do not fit.
    """

    name = "torch"

    def __init__(self, checkpoint: Checkpoint, device: torch.device) -> None:
        self._network = InferenceNetwork(checkpoint, device)
        self._device = device
        if device.type == "cuda":
            # Convolutions rounded to TF32 would give a film other probabilities than elsewhere.
            torch.backends.cudnn.allow_tf32 = False

    @torch.inference_mode()
    def compute(self, pixels: NDArray[np.uint8]) -> NetworkOutputs:
        """Run films ``(B, size, size)``, resized to the checkpoint's input size."""
        found = self._network(torch.tensor(pixels, device=self._device))
        return NetworkOutputs.from_named({n: tensor.cpu().numpy() for n, tensor in found.items()})

    @torch.inference_mode()
    def describe(self, pixels: NDArray[np.uint8]) -> list[Tensor]:
        """Return what a gate looks at of such films, as :func:`resformer.gate.describe`."""
        blocks = self._network.describe(torch.tensor(pixels, device=self._device))
        return [block.cpu() for block in blocks]


class OnnxRuntimeBackend:
    """The checkpoint's graph, as :func:`resformer.export.add_graph` made it.

    It takes as many threads as PyTorch would, so that one setting (``OMP_NUM_THREADS``) governs
    both.

    Args:
        checkpoint: a checkpoint with a graph.
        device: where to run: a processor, or with the package ``onnxruntime-gpu`` CUDA.

    Raises:
        ValueError: if there is none, if it was made from another checkpoint, or if the installed
            version cannot read it or run there.
    """

    name = "onnxruntime"

    def __init__(self, checkpoint: Checkpoint, device: torch.device = _CPU) -> None:
        if checkpoint.graph is None:
            raise ValueError(
                "the checkpoint holds no graph (python -m resformer export --overwrite adds one)"
            )
        if checkpoint.graph.source != checkpoint.graph_source:
            raise ValueError(
                "the graph was not exported from what the checkpoint holds now "
                "(python -m resformer export --overwrite makes it anew)"
            )
        graph, threads = checkpoint.graph.content, torch.get_num_threads()
        self._alone = open_session(graph, threads, device, spin_microseconds=SPIN_MICROSECONDS)
        self._together = (
            open_session(graph, threads, device) if device.type == "cpu" else self._alone
        )
        self._outputs = [output.name for output in self._alone.get_outputs()]

    def compute(self, pixels: NDArray[np.uint8]) -> NetworkOutputs:
        """Run films ``(B, size, size)``, resized to the checkpoint's input size."""
        session = self._alone if len(pixels) == 1 else self._together
        arrays = session.run(self._outputs, {FILMS: pixels})
        return NetworkOutputs.from_named(dict(zip(self._outputs, arrays, strict=True)))


def open_session(
    graph: bytes, threads: int, device: torch.device = _CPU, *, spin_microseconds: int = 0
) -> onnxruntime.InferenceSession:
    """Open a graph.

    Args:
        graph: the ONNX file.
        threads: that one run uses.
        device: where to run.
        spin_microseconds: how long a thread waits actively for its next operation. One film's
            follow so closely that to sleep between them takes longer than many of them do. With a
            batch, a thread that waits takes a core from those that decode.

    Raises:
        ValueError: if ONNX Runtime cannot read it, or not run it there.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = _ONNX_ERROR_LEVEL
    options.add_session_config_entry(
        "session.intra_op.allow_spinning", "1" if spin_microseconds else "0"
    )
    options.add_session_config_entry("session.intra_op.spin_duration_us", str(spin_microseconds))
    # Between two films they would take the cores that decode the next one.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}.get(device.type)
    if provider not in onnxruntime.get_available_providers():
        raise ValueError(f"it cannot run on {device} (for cuda: pip install onnxruntime-gpu)")
    settings = {"device_id": device.index or 0, "use_tf32": 0} if device.type == "cuda" else {}
    providers = [(provider, settings)]
    try:
        # There is nothing to fall back to, and trying so would print to standard output.
        return onnxruntime.InferenceSession(graph, options, providers, enable_fallback=0)
    except Exception as error:  # its errors have no base class but this
        raise ValueError(f"its version {onnxruntime.__version__} refuses the graph") from error


def choose_backend(checkpoint: Checkpoint, device: torch.device, name: str = "auto") -> Backend:
    """Return the named backend, or for ``auto`` the fastest that can run.

    That is ONNX Runtime on a processor, where it is installed and the checkpoint holds a graph,
    and PyTorch elsewhere, with CUDA for instance.

    Raises:
        ValueError: if the backend is unknown, or is ``onnxruntime`` and cannot run.
        CheckpointError: if the weights do not fit, or the graph does not compute what they do.
    """
    if name not in BACKENDS:
        raise ValueError(f"unknown backend {name!r}: use {', '.join(BACKENDS)}")
    if name == "torch" or (name == "auto" and device.type != "cpu"):
        return PyTorchBackend(checkpoint, device)
    try:
        graph = _open_graph(checkpoint, device)
    except ValueError as error:
        if name == "onnxruntime":
            raise ValueError(f"the backend onnxruntime cannot run: {error}") from error
        level = logging.WARNING if checkpoint.graph else logging.INFO
        # As text: who keeps the record would keep the error, and with it the frames of the callers.
        logger.log(level, "PyTorch runs the network: %s", str(error))
        return PyTorchBackend(checkpoint, device)
    reference = PyTorchBackend(checkpoint, device)
    difference = compare_backends(graph, reference, checkpoint.input_spec.size)
    if difference:
        raise CheckpointError(
            f"the graph in the checkpoint does not compute what its weights do ({difference}): do "
            "not trust the file, or run python -m resformer export --overwrite"
        )
    return graph


def _open_graph(checkpoint: Checkpoint, device: torch.device) -> OnnxRuntimeBackend:
    if checkpoint.graph and importlib.util.find_spec("onnxruntime") is None:
        raise ValueError("it is not installed (pip install onnxruntime)")
    return OnnxRuntimeBackend(checkpoint, device)


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
    for field in fields(NetworkOutputs):
        ours, wanted = getattr(found, field.name), getattr(expected, field.name)
        if np.shape(ours) != np.shape(wanted):
            return f"its {field.name} are {np.shape(ours)}, not {np.shape(wanted)}"
        if wanted is None:
            continue
        difference = np.abs(ours - wanted).max()
        if not difference <= _TOLERANCE * (1 + np.abs(wanted).max()):
            return f"its {field.name} differ by {difference:.2g}"
    return ""
