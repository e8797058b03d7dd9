"""Measures how fast a training goes, ours against torchvision's ResNet-18 in the same loop.

    pip install -r requirements-benchmarks.txt
    python -m benchmarks.training

The checkpoint says how our network is built and how its films are varied. Drawn films go through
the project's own loader, augmentation, loss and optimiser, in turns: an epoch of one network, an
epoch of the other; first in one process with workers and threads, then by ``torchrun`` in as many
processes as there are threads. The loader alone is timed too: where it is the slower part, the
network is not what to improve. `--splits 1:1 1:2 2:1 2:2` measures ours for each number of workers
that augment and of threads that the network gets. How long the checkpoint itself was trained until
it reached an accuracy is read from its history.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.reporting import Summary, SummaryRow, publish, speed_parser
from benchmarks.timing import describe_machine
from benchmarks.training_films import drawn_films, training_config
from benchmarks.training_loop import CPU, OURS, RESNET, Split, measure, measure_split
from benchmarks.training_report import (
    Rates,
    describe_history,
    minutes_to_accuracy,
    plot_rates,
    render_rates,
    render_splits,
    whole_history,
)
from resformer.checkpoint import Checkpoint, load_checkpoint
from resformer.training.config import TrainingConfig
from resformer.training.optim import choose_precision


def main(arguments: Sequence[str] | None = None) -> Summary:
    """Measure, and write the table and its plot."""
    options = _parse(arguments)
    torch.set_num_threads(options.threads)
    machine = describe_machine(options.threads)
    checkpoint = load_checkpoint(options.model)
    config = training_config(
        checkpoint,
        input_size=options.size,
        workers=options.workers,
        epochs=options.epochs + 1,
        device="cpu",
    )
    network = checkpoint.model_config
    films = drawn_films(options.films, network.num_classes, config)
    splits = {s: measure_split(films, network, config, s, options.epochs) for s in options.splits}
    torch.set_num_threads(options.threads)
    alone = measure(films, network, config, options.epochs)
    together = measure_together(options) if options.processes > 1 else {}
    rates = {
        **alone,
        **{f"{name}, {options.processes} processes": together[name] for name in together},
    }
    parts = [
        machine,
        f"{options.films} films of {options.size} x {options.size}, augmented, in batches of "
        f"{config.batch_size}, {choose_precision(config.precision, CPU)}; {options.epochs} epochs. "
        f"One process augments by {config.workers} workers; several have one thread each and none.",
        render_rates(rates),
        *([render_splits(splits)] if splits else []),
        describe_history(checkpoint, options.accuracy),
    ]
    publish("\n\n".join(parts), options.out)
    plot_rates(rates, options.out.with_suffix(".png"))
    return summarise(alone, together, checkpoint, options)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = speed_parser(__doc__, __file__)
    parser.add_argument("--size", type=int, default=128, help="side of the input")
    parser.add_argument("--films", type=int, default=1024, help="in an epoch")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--workers", type=int, default=TrainingConfig().workers)
    parser.add_argument(
        "--processes",
        type=int,
        default=os.cpu_count() or 1,
        help="that train together, the second time; 1: only one process is measured",
    )
    parser.add_argument("--accuracy", type=float, default=0.886, help="of the history")
    parser.add_argument(
        "--splits",
        nargs="+",
        type=_read_split,
        default=[],
        metavar="WORKERS:THREADS",
        help="of the cores, to compare",
    )
    return parser.parse_args(arguments)


def _read_split(text: str) -> Split:
    workers, _, threads = text.partition(":")
    if not (workers.isdecimal() and threads.isdecimal() and int(threads)):
        raise argparse.ArgumentTypeError(f"expected WORKERS:THREADS, such as 1:2, got {text!r}")
    return int(workers), int(threads)


def measure_together(options: argparse.Namespace) -> Rates:
    """Return the same rates of several processes that train together, over all of them."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rates.json"
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        worker = ["--nproc-per-node", str(options.processes), "-m", "benchmarks.training_loop"]
        same = (
            f"--{name}={getattr(options, name)}" for name in ("model", "size", "films", "epochs")
        )
        subprocess.run(
            [*torchrun, *worker, *same, f"--out={out}"],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            check=True,
        )
        rates: Rates = json.loads(out.read_text(encoding="utf-8"))
    return rates


def summarise(
    alone: Rates, together: Rates, checkpoint: Checkpoint, options: argparse.Namespace
) -> Summary:
    """Return the images a second and the minutes to an accuracy."""
    measured = {"one process": alone}
    if together:
        measured[f"{options.processes} processes"] = together
    minutes = minutes_to_accuracy(whole_history(checkpoint), options.accuracy)
    return (
        *(
            SummaryRow(
                f"training, images/s, augmented, {how}",
                f"{statistics.median(rates[OURS]):.0f}",
                f"{RESNET} {statistics.median(rates[RESNET]):.0f}",
            )
            for how, rates in measured.items()
        ),
        SummaryRow(
            f"training to {options.accuracy:.1%} validation accuracy, minutes",
            "not reached" if minutes is None else f"{minutes:.1f}",
            "",
        ),
    )


if __name__ == "__main__":
    main()
