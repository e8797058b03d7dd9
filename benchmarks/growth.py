"""Measures how time and memory grow with the side of the image, the batch and the clients.

    python -m benchmarks.growth

Each point of the network is measured in a process of its own, so that its peak of memory, as Linux
counts it, is its own. An exponent is the slope in a plot of logarithms: 1 is linear. The side
counts by its square, the pixels.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.films import as_png, draw_film, put_in_a_form
from benchmarks.load import put_load
from benchmarks.reporting import Summary, SummaryRow, publish, speed_parser
from benchmarks.service import OURS, SERVERS, server_variables
from benchmarks.soak_memory import resident_bytes
from benchmarks.timing import describe_machine, time_together
from resformer.backends import choose_backend
from resformer.checkpoint import load_checkpoint, save_checkpoint
from resformer.evaluation.plots import COLOURS, GUIDE_COLOUR, new_figure
from resformer.evaluation.tables import render_table
from resformer.export import add_graph
from resformer.transforms import InputSpec
from tests.web.serving import run_command

SIDES = (128, 192, 256, 384, 512, 768, 1024)
BATCHES = (1, 2, 4, 8, 16, 32, 64)
CLIENTS = (1, 2, 4, 8, 16, 32)
_SHOWN = {"side": "pixels of the image", "batch": "images in a batch", "clients": "clients"}


@dataclass(frozen=True)
class Point:
    """What one run cost.

    Attributes:
        amount: pixels, images or clients.
        seconds: median.
        memory: in bytes; of a network, what it took beyond the loaded model.
    """

    amount: int
    seconds: float
    memory: float


def main(arguments: Sequence[str] | None = None) -> Summary:
    """Measure, and write the table and its plot."""
    options = _parse(arguments)
    if options.point:
        side, batch = options.point
        _measure_here(side, batch, options)
        return ()
    machine = describe_machine(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        first = options.sides[0]
        small = _export(options.model, first, Path(folder))
        found = {
            "batch": [_measure(small, first, batch, batch, options) for batch in options.batches],
            "clients": _measure_clients(small, options),
            "side": [
                _measure(_export(options.model, side, Path(folder)), side, 1, side**2, options)
                for side in options.sides
            ],
        }
    tables = "\n\n".join(_render(name, points) for name, points in found.items())
    publish(f"{machine}\n\n{tables}", options.out)
    _plot(found, options.out.with_suffix(".png"))
    exponents = ", ".join(f"{_SHOWN[name]} {_exponent(found[name]):.2f}" for name in found)
    return (SummaryRow("time grows with a power of (1 is linear)", exponents, ""),)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = speed_parser(__doc__, __file__, seconds=2.0)
    parser.add_argument("--backend", default="onnxruntime")
    for name, amounts in (("sides", SIDES), ("batches", BATCHES), ("clients", CLIENTS)):
        parser.add_argument(f"--{name}", type=int, nargs="+", default=amounts)
    parser.add_argument("--point", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    return options


def _export(model: Path, side: int, folder: Path) -> Path:
    """Write the checkpoint for another input side; its weights fit any."""
    checkpoint = replace(load_checkpoint(model), graph=None, gate=None)
    path = folder / f"{side}.pth"
    save_checkpoint(add_graph(replace(checkpoint, input_spec=InputSpec(side))), path)
    return path


def _measure(model: Path, side: int, batch: int, amount: int, options: argparse.Namespace) -> Point:
    command = [sys.executable, "-m", "benchmarks.growth", "--point", str(side), str(batch)]
    command += ["--model", str(model), "--backend", options.backend]
    command += ["--threads", str(options.threads), "--seconds", str(options.seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, memory = json.loads(done.stdout)
    return Point(amount, seconds, memory)


def _measure_here(side: int, batch: int, options: argparse.Namespace) -> None:
    backend = choose_backend(load_checkpoint(options.model), torch.device("cpu"), options.backend)
    pixels = np.random.default_rng(0).integers(0, 256, (batch, side, side), dtype=np.uint8)
    before = resident_bytes(os.getpid())
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of loading
    timing = time_together({"run": lambda: backend.compute(pixels)}, options.seconds)["run"]
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(1024 * int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
    print(json.dumps([timing.median, peak - before]))


def _measure_clients(model: Path, options: argparse.Namespace) -> list[Point]:
    body, points = put_in_a_form(as_png(draw_film(1024, 1024))), []
    variables = server_variables(options.threads, options.backend, max(options.clients))
    with (
        tempfile.TemporaryDirectory() as folder,
        run_command(SERVERS[OURS], model, Path(folder) / "log.txt", **variables) as running,
    ):
        for clients in options.clients:
            load = put_load(running.url, body, clients, 2 * options.seconds)
            memory = resident_bytes(running.process.pid)
            points.append(Point(clients, float(np.median(load.seconds)), memory))
    return points


def _exponent(points: Sequence[Point]) -> float:
    """Slope of the time in a plot of logarithms."""
    amounts, seconds = zip(*((point.amount, point.seconds) for point in points), strict=True)
    return float(np.polyfit(np.log(amounts), np.log(seconds), 1)[0])


def _render(name: str, points: Sequence[Point]) -> str:
    rows = [
        (f"{point.amount:,}", f"{1000 * point.seconds:.2f}", f"{point.memory / 1e6:.0f}")
        for point in points
    ]
    return (
        f"Time grows with the {_SHOWN[name]} to the power of {_exponent(points):.2f}.\n\n"
        + render_table((_SHOWN[name], "median, ms", "memory, MB"), rows)
    )


def _plot(found: dict[str, list[Point]], path: Path) -> None:
    figure, panels = new_figure(11, 3.2, columns=len(found))
    for axes, (name, points) in zip(panels, found.items(), strict=True):
        amounts = [point.amount for point in points]
        times = [1000 * point.seconds for point in points]
        axes.loglog(amounts, times, "o-", color=COLOURS[0], label="time (ms)")
        memory = [point.memory / 1e6 for point in points]
        axes.loglog(amounts, memory, "s--", color=COLOURS[1], label="memory (MB)")
        linear = [times[-1] * amount / amounts[-1] for amount in amounts]
        axes.loglog(amounts, linear, ":", color=GUIDE_COLOUR, label="linear")
        axes.set_xlabel(_SHOWN[name])
    panels[0].legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
