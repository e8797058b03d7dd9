"""ONNX Runtime as the backend: the checkpoint's own graph, on the processor.

OpenVINO was measured beside it and left out: see ``benchmarks/README.md``.
"""

from __future__ import annotations

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from resformer.checkpoint import Checkpoint, CheckpointError
from resformer.runtime.outputs import POOLED, NetworkOutputs

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
    """The graph that :func:`resformer.runtime.export.export_graph` made.

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
