"""Write a trained network as an ONNX graph, from grey pixels to logits.

The preprocessing is inside, so that whoever runs the graph cannot normalise otherwise: its input
are films resized to the checkpoint's size. Resizing stays outside, because films come in all sizes
and no ONNX operator resamples exactly as Pillow does. The graph is made once, by the training or
by ``python -m resformer export``, and travels in the checkpoint: to make it takes seconds, and to
load it a fraction of one.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import onnx
import torch
from torch import Tensor, nn

from resformer import __version__
from resformer.backends import (
    GRIDS,
    LOGITS,
    LUNGS,
    POOLED,
    OnnxRuntimeBackend,
    PyTorchBackend,
    compare_backends,
    fold_batch_norm,
    run_network,
)
from resformer.checkpoint import Checkpoint, NetworkGraph
from resformer.devices import choose_device
from resformer.model import IdentityMappingResFormer
from resformer.transforms import InputSpec

logger = logging.getLogger(__name__)

INPUT_NAME = "pixels"
_MAX_BATCH = 4096
_GREY_LEVELS = 256


class ExportError(ValueError):
    """The exported graph does not compute what the network does."""


def add_graph(checkpoint: Checkpoint) -> Checkpoint:
    """Return a checkpoint with the graph of its network, in place of any that it had.

    Raises:
        CheckpointError: if the weights do not fit.
        ExportError: if ONNX Runtime does not compute what PyTorch does.
    """
    exported = replace(checkpoint, graph=NetworkGraph(_export(checkpoint), checkpoint.source))
    reference = PyTorchBackend(checkpoint, choose_device("cpu"))
    size = checkpoint.input_spec.size
    difference = compare_backends(OnnxRuntimeBackend(exported), reference, size)
    if difference:
        raise ExportError(f"the exported graph is not the network: {difference}")
    return exported


def add_graph_if_possible(checkpoint: Checkpoint) -> Checkpoint:
    """As :func:`add_graph`, but a training is not lost if its network cannot be exported.

    Returns:
        the checkpoint without a graph where exporting fails, which the log then says.
    """
    try:
        return add_graph(checkpoint)
    except Exception as error:  # whatever the exporter and its libraries raise
        logger.warning("PyTorch will run this network, it could not be exported: %s", error)
        return replace(checkpoint, graph=None)


def _export(checkpoint: Checkpoint) -> bytes:
    network = fold_batch_norm(checkpoint.build_model())
    size = checkpoint.input_spec.size
    with quiet_exporter():
        program = torch.onnx.export(
            _ExportedNetwork(network, checkpoint.input_spec).eval(),
            (torch.zeros(2, size, size, dtype=torch.uint8),),
            dynamo=True,
            verbose=False,
            input_names=[INPUT_NAME],
            output_names=_output_names(network),
            dynamic_shapes={INPUT_NAME: {0: torch.export.Dim("batch", min=1, max=_MAX_BATCH)}},
        )
    if program is None:
        raise ExportError("torch.onnx wrote no graph")
    model = program.model_proto
    model.producer_name, model.producer_version = "resformer", __version__
    for node in model.graph.node:
        node.ClearField("doc_string")
        node.ClearField("metadata_props")  # where in our source each came from
    described = {
        "class_names": "\n".join(checkpoint.class_names),
        "temperature": str(checkpoint.temperature),
        **{name: str(value) for name, value in checkpoint.input_spec.to_dict().items()},
    }
    onnx.helper.set_model_props(model, described)
    content: bytes = model.SerializeToString()
    return content


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


class _ExportedNetwork(nn.Module):
    """What the graph holds: preprocessing, and all that one pass of the network gives."""

    def __init__(self, network: IdentityMappingResFormer, spec: InputSpec) -> None:
        super().__init__()
        self.preprocess = StretchAndNormalise(spec)
        self.network = network

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        tensors = run_network(self.network, self.preprocess(pixels))
        return tuple(tensors[name] for name in _output_names(self.network))


def _output_names(network: IdentityMappingResFormer) -> list[str]:
    lungs = [] if network.lung_head is None else [LUNGS]
    return [LOGITS, *GRIDS, POOLED, *lungs]


class StretchAndNormalise(nn.Module):
    """:func:`resformer.transforms.normalise_pixels` as a network runs it.

    Args:
        spec: size, percentiles, mean and standard deviation.
    """

    def __init__(self, spec: InputSpec) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, pixels: Tensor) -> Tensor:
        """Map grey pixels ``(B, size, size)`` uint8 to ``(B, 1, size, size)`` float32."""
        values = pixels.flatten(1)
        low, high = self._percentiles(values).split(1, dim=1)
        mean, std = self.spec.mean, self.spec.std
        slope = 1 / (std * (high - low).clamp(min=1))
        normalised = values.float() * slope - (low * slope + mean / std)
        normalised = normalised.clamp(-mean / std, (1 - mean) / std)
        images: Tensor = normalised.reshape(-1, 1, self.spec.size, self.spec.size)
        return images

    def _percentiles(self, values: Tensor) -> Tensor:
        """Return the two percentiles of films ``(B, N)``, ``(B, 2)``, as numpy interpolates them.

        The value at a rank is the number of grey levels up to which no more pixels lie than it.
        """
        ones = torch.ones_like(values, dtype=torch.int32)
        counts = ones.new_zeros(values.shape[0], _GREY_LEVELS).scatter_add(1, values.long(), ones)
        up_to = counts.cumsum(dim=1, dtype=torch.int32)
        ranks, weights = self._ranks_and_weights(values.shape[1] - 1)
        at_ranks = (up_to[:, None] <= ranks[:, None]).float().sum(dim=-1)
        percentiles: Tensor = at_ranks @ weights
        return percentiles

    def _ranks_and_weights(self, last: int) -> tuple[Tensor, Tensor]:
        """Return the ranks next to both percentiles, ``(4,)``, and what each weighs, ``(4, 2)``."""
        exact = [p / 100 * last for p in (self.spec.low_percentile, self.spec.high_percentile)]
        below = [min(int(rank), last - 1) for rank in exact]
        shares = [rank - whole for rank, whole in zip(exact, below, strict=True)]
        ranks = torch.tensor([[whole, whole + 1] for whole in below], dtype=torch.int32)
        pairs = torch.tensor([[1 - share, share] for share in shares])
        return ranks.flatten(), torch.block_diag(*pairs.unsqueeze(-1))
