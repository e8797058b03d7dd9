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

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch

from benchmarks.service import SERVERS, film_in_a_form, put_load
from benchmarks.soak_memory import resident_bytes
from benchmarks.timing import describe_machine, render_table, time_together
from resformer.checkpoint import load_checkpoint, save_checkpoint
from resformer.runtime.backend import choose_backend
from resformer.runtime.export import add_graph
from resformer.transforms import InputSpec
from tests.web.serving import run_command

SIDES = (128, 192, 256, 384, 512, 768, 1024)
BATCHES = (1, 2, 4, 8, 16, 32, 64)
CLIENTS = (1, 2, 4, 8, 16, 32)


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


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write the table and its plot."""
    options = _parse(arguments)
    if options.point:
        side, batch = options.point
        _measure_here(side, batch, options)
        return
    machine = describe_machine(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        small = _export(options.model, SIDES[0], Path(folder))
        found = {
            "batch": [_measure(small, SIDES[0], batch, batch, options) for batch in BATCHES],
            "clients": _measure_clients(small, options),
            "side": [
                _measure(_export(options.model, side, Path(folder)), side, 1, side**2, options)
                for side in SIDES
            ],
        }
    text = f"{machine}\n\n" + "\n\n".join(_render(name, found[name]) for name in found) + "\n"
    options.out.write_text(text, encoding="utf-8")
    print(text)
    _plot(found, options.out.with_suffix(".png"))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("best_model.pth"), help="checkpoint")
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each point")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
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
    body, points = film_in_a_form(1024), []
    variables = {
        "OMP_NUM_THREADS": str(options.threads),
        "RESFORMER_BACKEND": options.backend,
        "RESFORMER_QUEUE_SIZE": str(max(CLIENTS)),
    }
    with (
        tempfile.TemporaryDirectory() as folder,
        run_command(SERVERS["ours"], model, Path(folder) / "log.txt", **variables) as running,
    ):
        for clients in CLIENTS:
            load = put_load(running.url, body, clients, 2 * options.seconds)
            memory = resident_bytes(running.process.pid)
            points.append(Point(clients, float(np.median(load.seconds)), memory))
    return points


def _exponent(points: Sequence[Point]) -> float:
    """Slope of the time in a plot of logarithms."""
    amounts, seconds = zip(*((point.amount, point.seconds) for point in points), strict=True)
    return float(np.polyfit(np.log(amounts), np.log(seconds), 1)[0])


def _render(name: str, points: Sequence[Point]) -> str:
    shown = {"side": "pixels of the image", "batch": "images in a batch", "clients": "clients"}
    rows = [
        (f"{point.amount:,}", f"{1000 * point.seconds:.2f}", f"{point.memory / 1e6:.0f}")
        for point in points
    ]
    return (
        f"Time grows with the {shown[name]} to the power of {_exponent(points):.2f}.\n\n"
        + render_table((shown[name], "median, ms", "memory, MB"), rows)
    )


def _plot(found: dict[str, list[Point]], path: Path) -> None:
    figure, panels = plt.subplots(1, len(found), figsize=(11, 3.2), layout="constrained")
    for axes, (name, points) in zip(panels, found.items(), strict=True):
        amounts = [point.amount for point in points]
        axes.loglog(amounts, [1000 * point.seconds for point in points], "o-", label="time (ms)")
        axes.loglog(amounts, [point.memory / 1e6 for point in points], "s--", label="memory (MB)")
        axes.set_xlabel("pixels" if name == "side" else name)
    panels[0].legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
