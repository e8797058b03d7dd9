"""Measure how time and memory grow with the side of the image, the batch and the clients.

    python -m benchmarks.growth

Each point of the network is measured in a process of its own, so that its peak of memory, as Linux
counts it, is its own. An exponent is the slope in a plot of logarithms: 1 is linear. The side
counts by its square, the pixels.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from benchmarks import common
from benchmarks.service import OURS, fill_form, put_load, run_server
from resformer.backends import choose_backend
from resformer.checkpoint import load_checkpoint, save_checkpoint
from resformer.evaluation.plots import COLOURS, GUIDE_COLOUR, new_figure
from resformer.evaluation.tables import render_table
from resformer.export import add_graph
from resformer.transforms import InputSpec

SIDES = (128, 192, 256, 384, 512, 768, 1024)
BATCHES = (1, 2, 4, 8, 16, 32, 64)
CLIENTS = (1, 2, 4, 8, 16, 32)
_SIDE, _BATCH, _CLIENTS = "pixels of the image", "images in a batch", "clients"


class Point(NamedTuple):
    """What one run cost.

    Attributes:
        amount: pixels, images or clients.
        seconds: median.
        memory: in bytes; of a network, what it took beyond the loaded model.
    """

    amount: int
    seconds: float
    memory: float


def main(arguments: Sequence[str] | None = None) -> common.Summary:
    """Measure, and write the table and its plot; the README quotes none of it."""
    parser = common.build_speed_parser(__doc__, "growth", seconds=2.0)
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--sides", type=int, nargs="+", default=SIDES)
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--clients", type=int, nargs="+", default=CLIENTS)
    options = parser.parse_args(arguments)
    machine = common.describe_machine(options.threads)
    found: dict[str, list[Point]] = {_BATCH: [], _CLIENTS: [], _SIDE: []}
    with tempfile.TemporaryDirectory() as folder:
        models = {side: write_model(side, Path(folder), options) for side in options.sides}
        first = options.sides[0]
        for batch in options.batches:
            point = measure_alone(models[first], first, batch, options)
            found[_BATCH].append(Point(batch, *point))
        found[_CLIENTS] = measure_clients(models[first], options)
        for side, model in models.items():
            found[_SIDE].append(Point(side**2, *measure_alone(model, side, 1, options)))
    exponents = {name: growth_exponent(points) for name, points in found.items()}
    tables = [
        f"Time grows with the {name} to the power of {exponents[name]:.2f}.\n\n"
        + render_table(
            (name, "median, ms", "memory, MB"),
            [(f"{p.amount:,}", f"{1000 * p.seconds:.2f}", f"{p.memory / 1e6:.0f}") for p in points],
        )
        for name, points in found.items()
    ]
    common.publish("\n\n".join([machine, *tables]), options.out)
    plot(found, options.out.with_suffix(".png"))
    return ()


def write_model(side: int, folder: Path, options: argparse.Namespace) -> Path:
    """Write the checkpoint for another input side; its weights fit any."""
    checkpoint = load_checkpoint(options.model)
    checkpoint = replace(checkpoint, graph=None, gate=None, input_spec=InputSpec(side))
    path = folder / f"{side}.pth"
    save_checkpoint(checkpoint if options.backend == "torch" else add_graph(checkpoint), path)
    return path


def measure_alone(
    model: Path, side: int, batch: int, options: argparse.Namespace
) -> tuple[float, int]:
    """Return seconds and bytes of :func:`measure_batch` in a new process."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool:
        task = pool.submit(
            measure_batch, model, side, batch, options.backend, options.threads, options.seconds
        )
        return task.result()


def measure_batch(
    model: Path, side: int, batch: int, backend: str, threads: int, seconds: float
) -> tuple[float, int]:
    """Return the median seconds of a batch, and the bytes it took beyond the loaded model."""
    torch.set_num_threads(threads)
    runtime = choose_backend(load_checkpoint(model), torch.device("cpu"), backend)
    pixels = np.random.default_rng(0).integers(0, 256, (batch, side, side), dtype=np.uint8)
    before = common.read_status(os.getpid(), "VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of loading
    timing = common.time_together({"run": lambda: runtime.compute(pixels)}, seconds)["run"]
    return timing.median, common.read_status(os.getpid(), "VmHWM") - before


def measure_clients(model: Path, options: argparse.Namespace) -> list[Point]:
    """Return a point of the whole service for each number of clients."""
    body, points = fill_form(common.encode_film(common.draw_film(1024, 1024), "PNG")), []
    most = max(options.clients)
    with run_server(OURS, model, options.threads, options.backend, most) as server:
        for clients in options.clients:
            load = put_load(server.url, body, clients, 2 * options.seconds)
            memory = common.resident_bytes(server.process.pid)
            points.append(Point(clients, float(np.median(load.seconds)), memory))
    return points


def growth_exponent(points: Sequence[Point]) -> float:
    """Return the slope of the time in a plot of logarithms; NaN for a single point."""
    if len(points) < 2:
        return float("nan")
    amounts, seconds, _ = np.array(points).T
    return float(np.polyfit(np.log(amounts), np.log(seconds), 1)[0])


def plot(found: Mapping[str, Sequence[Point]], path: Path) -> None:
    """Draw time and memory against each amount, beside a line of linear growth."""
    figure, panels = new_figure(11, 3.2, columns=len(found))
    for axes, (name, points) in zip(panels, found.items(), strict=True):
        amounts, seconds, memory = np.array(points).T
        axes.loglog(amounts, 1e3 * seconds, "o-", color=COLOURS[0], label="time (ms)")
        axes.loglog(amounts, memory / 1e6, "s--", color=COLOURS[1], label="memory (MB)")
        linear = 1e3 * seconds[-1] * amounts / amounts[-1]
        axes.loglog(amounts, linear, ":", color=GUIDE_COLOUR, label="linear")
        axes.set_xlabel(name)
    panels[0].legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
