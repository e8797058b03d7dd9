"""Measures the network against those that people would use instead.

    pip install -r requirements-benchmarks.txt
    python -m benchmarks.network

Every network gets the same input and the same threads, in PyTorch as it is (eager) and exported to
ONNX Runtime, one image and a batch; all are timed in turns. Ours runs with its preprocessing left
out, as the others do. The operations are those of PyTorch's counter, two for a multiplication with
an addition; the machine's limit is the rate of a large matrix product in the same run.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.baselines import build_baselines
from benchmarks.reporting import Summary, SummaryRow, publish, speed_parser
from benchmarks.timing import Timing, describe_machine, measure_limit, time_together
from resformer.backends import fold_batch_norm, open_session
from resformer.checkpoint import Checkpoint, load_checkpoint
from resformer.evaluation.plots import COLOURS, new_figure
from resformer.evaluation.tables import render_table
from resformer.export import quiet_exporter

OURS = "ResFormer (ours)"
_HEADER = ("network", "parameters", "GFLOP", "eager, ms", "exported, ms", "exported, images/s")
Run = Callable[[], object]


@dataclass(frozen=True)
class Measured:
    """What was measured of one network.

    Attributes:
        parameters: how many.
        operations: for one image.
        eager: one image in PyTorch.
        exported: one image in ONNX Runtime.
        batch: a batch in ONNX Runtime.
    """

    parameters: int
    operations: float
    eager: Timing
    exported: Timing
    batch: Timing


def main(arguments: Sequence[str] | None = None) -> Summary:
    """Measure, and write the table and its plot."""
    options, machine, checkpoint, ours = prepare(__doc__, __file__, arguments)
    networks = {OURS: ours, **build_baselines(len(checkpoint.class_names))}
    limit = measure_limit()
    found = measure(networks, options.size, options.batch, options.threads, options.seconds)
    limit = max(limit, measure_limit())
    report = render(found, options.size, options.batch, limit)
    publish(f"{machine}\n\n{report}", options.out)
    plot(found, options.batch, options.out.with_suffix(".png"))
    return summarise(found, options.size, options.batch, limit)


def prepare(
    description: str | None, file: str, arguments: Sequence[str] | None
) -> tuple[argparse.Namespace, str, Checkpoint, nn.Module]:
    """Return the options, the machine in words, the checkpoint and its folded network."""
    parser = speed_parser(description, file, seconds=3.0)
    parser.add_argument("--size", type=int, default=128, help="side of the image")
    parser.add_argument("--batch", type=int, default=32, help="images in a batch")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    machine = describe_machine(options.threads)
    checkpoint = load_checkpoint(options.model)
    return options, machine, checkpoint, fold_batch_norm(checkpoint.build_model())


def measure(
    networks: Mapping[str, nn.Module], size: int, batch: int, threads: int, seconds: float
) -> dict[str, Measured]:
    """Time networks that take ``(B, 1, size, size)``, by name."""
    image = torch.rand(1, 1, size, size)
    images = np.random.default_rng(0).random((batch, 1, size, size), dtype=np.float32)
    sessions = {
        name: open_session(export_network(network, size), threads)
        for name, network in networks.items()
    }
    eager = time_together(
        {name: _eager(network, image) for name, network in networks.items()}, seconds
    )
    alone = time_together(
        {name: _exported(session, image.numpy()) for name, session in sessions.items()}, seconds
    )
    together = time_together(
        {name: _exported(session, images) for name, session in sessions.items()}, seconds
    )
    return {
        name: Measured(
            sum(p.numel() for p in network.parameters()),
            count_operations(network, image),
            *(timing[name] for timing in (eager, alone, together)),
        )
        for name, network in networks.items()
    }


def count_operations(network: nn.Module, image: Tensor) -> float:
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


def _eager(network: nn.Module, images: Tensor) -> Run:
    def run() -> object:
        with torch.inference_mode():
            return network(images)

    return run


def _exported(session: onnxruntime.InferenceSession, images: NDArray[np.float32]) -> Run:
    name = session.get_inputs()[0].name
    return lambda: session.run(None, {name: images})


def render(found: Mapping[str, Measured], size: int, batch: int, limit: float) -> str:
    """Return the table, and how much of the machine's limit ours reaches."""
    rows = [
        (
            name,
            f"{m.parameters / 1e6:.1f} M",
            f"{m.operations / 1e9:.2f}",
            m.eager.milliseconds,
            m.exported.milliseconds,
            f"{batch / m.batch.median:.0f} ({batch / m.batch.fastest:.0f})",
        )
        for name, m in found.items()
    ]
    rate = _rate(found[OURS], batch)
    return (
        f"{size} x {size}; one image, and batches of {batch}. Medians, and in brackets the "
        f"fastest.\n\n{render_table(_HEADER, rows)}\n\n"
        f"The machine multiplies matrices at {limit / 1e9:.0f} GFLOP/s; in batches ours does "
        f"{rate / 1e9:.0f} GFLOP/s, {rate / limit:.0%} of it."
    )


def _rate(ours: Measured, batch: int) -> float:
    """Return the floating-point operations of a second, in batches."""
    return batch * ours.operations / ours.batch.median


def summarise(found: Mapping[str, Measured], size: int, batch: int, limit: float) -> Summary:
    """Return one film, a batch, and the share of the machine's limit."""

    def row(what: str, show: Callable[[Measured], str]) -> SummaryRow:
        beside = ", ".join(f"{name} {show(m)}" for name, m in found.items() if name != OURS)
        return SummaryRow(what, show(found[OURS]), beside)

    share = _rate(found[OURS], batch) / limit
    return (
        row(f"network, one image of {size}, exported, ms", lambda m: _milliseconds(m.exported)),
        row("network, the same in PyTorch, ms", lambda m: _milliseconds(m.eager)),
        row(f"network, images/s in batches of {batch}", lambda m: f"{batch / m.batch.median:.0f}"),
        SummaryRow("share of the machine's rate of matrix products", f"{share:.0%}", ""),
    )


def _milliseconds(timing: Timing) -> str:
    return f"{1000 * timing.median:.2f}"


def plot(found: Mapping[str, Measured], batch: int, path: Path) -> None:
    """Draw the time of one image and the images of a second."""
    names = list(found)
    figure, (left, right) = new_figure(10, 3.2, columns=2)
    left.barh(names, [1000 * found[name].exported.median for name in names], color=COLOURS[0])
    left.set_xlabel("one image, exported (ms)")
    right.barh(names, [batch / found[name].batch.median for name in names], color=COLOURS[2])
    right.set_xlabel(f"images/s in batches of {batch}, exported")
    right.tick_params(labelleft=False)
    for axes in (left, right):
        axes.invert_yaxis()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
