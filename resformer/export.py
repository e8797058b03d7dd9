"""Write a checkpoint's :class:`resformer.inference.InferenceNetwork` as an ONNX graph.

The graph is made once, by the training or by ``python -m resformer export``, and travels in the
checkpoint: to make it takes seconds, and to load it a fraction of one. What a program needs to know
of it besides its outputs, as thresholds and class names, is in its metadata, as one JSON text.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import onnx
import torch

from resformer import __version__
from resformer.backends import OnnxRuntimeBackend, PyTorchBackend, choose_backend, compare_backends
from resformer.checkpoint import Checkpoint, CheckpointError, NetworkGraph
from resformer.devices import choose_device
from resformer.inference import FILMS, InferenceNetwork

logger = logging.getLogger(__name__)

# The metadata's key.
METADATA = "resformer"
_LICENCE = (
    "The code is under the MIT licence; whoever trained the weights says under which they come. "
    "For research and teaching: no medical device."
)
_INPUT = (
    "grey films (N, size, size), one byte a pixel, resized with an antialiased bilinear filter "
    "(Pillow's BILINEAR) whatever their aspect ratio"
)
_MAX_BATCH = 4096


class ExportError(ValueError):
    """The exported graph does not compute what the network does."""


def add_graph(checkpoint: Checkpoint) -> Checkpoint:
    """Return a checkpoint with the graph of its network, in place of any that it had.

    Raises:
        CheckpointError: if the weights do not fit.
        ExportError: if ONNX Runtime does not compute what PyTorch does.
    """
    logger.info("exporting the graph")
    graph = NetworkGraph(_export(checkpoint), checkpoint.graph_source)
    exported = replace(checkpoint, graph=graph)
    reference = PyTorchBackend(checkpoint, choose_device("cpu"))
    size = checkpoint.input_spec.size
    difference = compare_backends(OnnxRuntimeBackend(exported), reference, size)
    if difference:
        raise ExportError(f"the exported graph is not the network: {difference}")
    return exported


def add_graph_if_possible(checkpoint: Checkpoint) -> Checkpoint:
    """Do as :func:`add_graph`, but lose no training whose network cannot be exported.

    Returns:
        the checkpoint without a graph where exporting fails, which the log then says.
    """
    try:
        return add_graph(checkpoint)
    except Exception as error:  # whatever the exporter and its libraries raise
        logger.warning("PyTorch will run this network, it could not be exported: %s", error)
        return replace(checkpoint, graph=None)


def find_graph(checkpoint: Checkpoint) -> NetworkGraph | None:
    """Return the graph that a checkpoint holds, if it computes what the rest of it says.

    Raises:
        CheckpointError: if it does not, though it says so.
    """
    try:
        choose_backend(checkpoint, choose_device("cpu"), "onnxruntime")
    except CheckpointError:
        raise
    except ValueError:
        return None
    return checkpoint.graph


def _export(checkpoint: Checkpoint) -> bytes:
    size = checkpoint.input_spec.size
    network = InferenceNetwork(checkpoint, choose_device("cpu"))
    films = torch.zeros(2, size, size, dtype=torch.uint8)
    with torch.inference_mode():
        output_names = list(network(films))
    with quiet_exporter():
        program = torch.onnx.export(
            network,
            (films,),
            dynamo=True,
            verbose=False,
            input_names=[FILMS],
            output_names=output_names,
            dynamic_shapes={FILMS: {0: torch.export.Dim("batch", min=1, max=_MAX_BATCH)}},
        )
    if program is None:
        raise ExportError("torch.onnx wrote no graph")
    model = program.model_proto
    model.producer_name, model.producer_version = "resformer", __version__
    for node in model.graph.node:
        node.ClearField("doc_string")
        node.ClearField("metadata_props")  # where in our source each came from
    onnx.helper.set_model_props(model, {METADATA: json.dumps(describe_graph(checkpoint))})
    content: bytes = model.SerializeToString()
    return content


def describe_graph(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what a graph's metadata say, as plain data; a threshold that it lacks is ``None``."""
    return {
        "version": __version__,
        "class_names": list(checkpoint.class_names),
        "input": {"name": FILMS, "size": checkpoint.input_spec.size, "description": _INPUT},
        "thresholds": checkpoint.thresholds,
        "licence": _LICENCE,
    }


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Keep from the user what the exporter says of itself: nothing of it can be acted upon."""
    loggers = {name: logging.getLogger(name) for name in ("torch.onnx", "onnx_ir", "onnxscript")}
    levels = {name: logger.level for name, logger in loggers.items()}
    for logger in loggers.values():
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, logger in loggers.items():
            logger.setLevel(levels[name])
