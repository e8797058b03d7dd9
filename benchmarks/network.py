"""Measure the network against those that people would use instead.

    python -m benchmarks.network

ResNet-18, MobileNetV3-Small and DenseNet-121 are torchvision's, and where
``requirements-benchmarks.txt`` is installed TorchXRayVision's DenseNet comes beside them. Every
network gets the same input and the same threads, in PyTorch as it is (eager) and exported to ONNX
Runtime, one image and a batch; all are timed in turns. Ours runs with its preprocessing left out,
as the others do. The operations are those of PyTorch's counter, two for a multiplication with an
addition; the machine's limit is the rate of a large matrix product in the same run.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import densenet121, mobilenet_v3_small, resnet18

from benchmarks.common import (
    Summary,
    SummaryRow,
    Timing,
    build_speed_parser,
    compare,
    describe_machine,
    publish,
    save_bars,
    time_together,
)
from resformer.checkpoint import Checkpoint, load_checkpoint
from resformer.evaluation.markdown import render_table
from resformer.runtime.export import quiet_exporter
from resformer.runtime.folding import fold_batch_norm
from resformer.runtime.onnx_runtime import open_session

logger = logging.getLogger(__name__)

OURS = "ResFormer (ours)"
BASELINES: Mapping[str, Callable[..., nn.Module]] = {
    "ResNet-18": resnet18,
    "MobileNetV3-Small": mobilenet_v3_small,
    "DenseNet-121": densenet121,
}
_MATRIX_SIDE = 1536

Images = NDArray[np.float32]
Run = Callable[[Images], Images]


class GreyClassifier(nn.Module):
    """A network of RGB images that takes grey ones and is called as the training loop calls ours.

    Args:
        network: takes ``(B, 3, H, W)``.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, return_lungs: bool = False) -> Tensor:
        """Map ``(B, 1, H, W)`` to logits; it knows nothing of lungs."""
        logits: Tensor = self.network(images.expand(-1, 3, -1, -1))
        return logits


def build_baseline(name: str, num_classes: int) -> nn.Module:
    """Return a network of :data:`BASELINES` with random weights; it takes ``(B, 1, H, W)``."""
    return GreyClassifier(BASELINES[name](num_classes=num_classes))


@dataclass(frozen=True)
class Speed:
    """What was measured of one network.

    Attributes:
        parameters: how many.
        flops: floating-point operations of one image.
        eager: one image in PyTorch.
        exported: one image in ONNX Runtime.
        batch: a batch in ONNX Runtime.
    """

    parameters: int
    flops: float
    eager: Timing
    exported: Timing
    batch: Timing


def main(arguments: Sequence[str] | None = None) -> Summary:
    """Measure, and write the table and its plot."""
    options, machine, checkpoint, ours = prepare(__doc__, "network", arguments)
    size, batch = options.size, options.batch
    networks = {OURS: ours, **build_competitors(len(checkpoint.class_names))}
    limit = measure_limit(options.seconds)
    found = measure(networks, size, batch, options.threads, options.seconds)
    limit = max(limit, measure_limit(options.seconds))
    rows = [
        (
            name,
            f"{speed.parameters / 1e6:.1f} M",
            f"{speed.flops / 1e9:.2f}",
            speed.eager.milliseconds,
            speed.exported.milliseconds,
            f"{batch / speed.batch.median:.0f} ({batch / speed.batch.fastest:.0f})",
        )
        for name, speed in found.items()
    ]
    header = ("network", "parameters", "GFLOP", "eager, ms", "exported, ms", "exported, images/s")
    rate = batch * found[OURS].flops / found[OURS].batch.median
    publish(
        f"{machine}\n\n{describe_sizes(options)}\n\n{render_table(header, rows)}\n\n"
        f"The machine multiplies matrices at {limit / 1e9:.0f} GFLOP/s; in batches ours does "
        f"{rate / 1e9:.0f} GFLOP/s, {rate / limit:.0%} of it.",
        options.out,
    )
    exported = {name: 1000 * speed.exported.median for name, speed in found.items()}
    eager = {name: 1000 * speed.eager.median for name, speed in found.items()}
    rates = {name: batch / speed.batch.median for name, speed in found.items()}
    save_bars(
        {
            "one image, exported (ms)": exported,
            f"images/s in batches of {batch}, exported": rates,
        },
        options.out.with_suffix(".png"),
    )
    return (
        compare(f"network, one image of {size}, exported, ms", exported, ".2f"),
        compare("network, the same in PyTorch, ms", eager, ".2f"),
        compare(f"network, images/s in batches of {batch}", rates, ".0f"),
        SummaryRow("share of the machine's rate of matrix products", f"{rate / limit:.0%}"),
    )


def prepare(
    description: str | None, name: str, arguments: Sequence[str] | None
) -> tuple[argparse.Namespace, str, Checkpoint, nn.Module]:
    """Return the options, the machine in words, the checkpoint and its folded network."""
    parser = build_speed_parser(description, name, seconds=3.0)
    parser.add_argument("--size", type=int, default=128, help="side of the image")
    parser.add_argument("--batch", type=int, default=32, help="images in a batch")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    machine = describe_machine(options.threads)
    checkpoint = load_checkpoint(options.model)
    return options, machine, checkpoint, fold_batch_norm(checkpoint.build_model())


def build_competitors(num_classes: int) -> dict[str, nn.Module]:
    """Return what ours is compared with, in evaluation mode and with random weights."""
    networks = {name: build_baseline(name, num_classes) for name in BASELINES}
    try:
        import torchxrayvision.models
    except ImportError:
        logger.warning(
            "TorchXRayVision's DenseNet is left out: pip install -r requirements-benchmarks.txt"
        )
    else:
        networks["TorchXRayVision DenseNet"] = torchxrayvision.models.DenseNet(
            weights=None, num_classes=num_classes, in_channels=1, apply_sigmoid=False
        )
    return {name: network.eval() for name, network in networks.items()}


def measure(
    networks: Mapping[str, nn.Module], size: int, batch: int, threads: int, seconds: float
) -> dict[str, Speed]:
    """Time networks that take ``(B, 1, size, size)``, by name."""
    image = torch.rand(1, 1, size, size)
    images = np.random.default_rng(0).random((batch, 1, size, size), dtype=np.float32)
    sessions = {
        name: run_in_onnx_runtime(export_network(network, size), threads)
        for name, network in networks.items()
    }
    eager = time_together(
        {name: run_in_pytorch(network, image) for name, network in networks.items()}, seconds
    )
    alone = time_runs(sessions, image.numpy(), seconds)
    together = time_runs(sessions, images, seconds)
    return {
        name: Speed(
            sum(weight.numel() for weight in network.parameters()),
            count_flops(network, image),
            eager[name],
            alone[name],
            together[name],
        )
        for name, network in networks.items()
    }


def measure_limit(seconds: float) -> float:
    """Return the best rate of float32 matrix multiplication on PyTorch's threads, in FLOP/s."""
    one, other = torch.rand(2, _MATRIX_SIDE, _MATRIX_SIDE).unbind(0)
    timing = time_together({"product": lambda: torch.mm(one, other)}, min(seconds, 2.0))["product"]
    return 2 * _MATRIX_SIDE**3 / timing.fastest


def count_flops(network: nn.Module, image: Tensor) -> float:
    """Return the floating-point operations of one image ``(1, 1, H, W)``."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(image)
    return float(counter.get_total_flops())


def export_network(network: nn.Module, size: int) -> bytes:
    """Write a network as an ONNX graph, for any batch."""
    with quiet_exporter():
        program = torch.onnx.export(
            network,
            (torch.rand(2, 1, size, size),),
            dynamo=True,
            verbose=False,
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=4096)},),
        )
    if program is None:
        raise RuntimeError("torch.onnx wrote no graph")
    graph: bytes = program.model_proto.SerializeToString()
    return graph


def run_in_pytorch(network: nn.Module, images: Tensor) -> Callable[[], Tensor]:
    """Return a call of a network as it is."""

    @torch.inference_mode()
    def run() -> Tensor:
        logits: Tensor = network(images)
        return logits

    return run


def run_in_onnx_runtime(graph: bytes, threads: int) -> Run:
    """Return a function that maps images ``(B, 1, H, W)`` to the logits of a graph."""
    session: onnxruntime.InferenceSession = open_session(graph, threads)
    name = session.get_inputs()[0].name
    return lambda images: np.asarray(session.run(None, {name: images})[0])


def time_runs(runs: Mapping[str, Run], images: Images, seconds: float) -> dict[str, Timing]:
    """Time functions on the same images in turns."""

    def call(run: Run) -> Callable[[], Images]:
        return lambda: run(images)

    return time_together({name: call(run) for name, run in runs.items()}, seconds)


def describe_sizes(options: argparse.Namespace) -> str:
    """Say which images were measured and how their times are shown."""
    return (
        f"{options.size} x {options.size}; one image, and batches of {options.batch}. "
        "Medians, and in brackets the fastest."
    )


if __name__ == "__main__":
    main()
