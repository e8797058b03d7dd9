"""Measure how fast a training goes, ours against torchvision's ResNet-18 in the same loop.

    python -m benchmarks.training

The checkpoint says how our network is built and how its films are varied. Drawn films go through
the project's own loader, augmentation, loss and optimiser, in turns: an epoch of one network, an
epoch of the other; first in one process with workers and threads, then by ``torchrun`` in as many
processes as there are threads. The loader alone is timed too: where it is the slower part, the
network is not what to improve. How long the checkpoint itself was trained is read
from its history.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks import common
from benchmarks.network import BASELINES, OURS
from resformer.checkpoint import Checkpoint, load_checkpoint
from resformer.data.dataset import FilmDataset
from resformer.evaluation.lineage import list_stages
from resformer.evaluation.tables import render_table
from resformer.model import IdentityMappingResFormer, ResFormerConfig
from resformer.training.baselines import build_baseline
from resformer.training.config import TrainingConfig
from resformer.training.data import build_loader, take_heads
from resformer.training.distributed import ProcessGroup, join_processes
from resformer.training.epoch import Learner, build_learner, build_loss, train_one_epoch
from resformer.training.optim import choose_precision
from resformer.training.timing import draw_films

RESNET, LOADER = "ResNet-18", "loader alone"
CPU = torch.device("cpu")
ALONE = ProcessGroup(0, 1, CPU)

Rates = dict[str, list[float]]


def main(arguments: Sequence[str] | None = None) -> common.Summary:
    """Measure, and write the table and its plot; a process of torchrun writes its rates alone."""
    options = _parse(arguments)
    checkpoint = load_checkpoint(options.model)
    network = checkpoint.model_config
    options.size = options.size or checkpoint.input_spec.size
    config = training_config(
        checkpoint,
        input_size=options.size,
        workers=options.workers,
        epochs=options.epochs + 1,
        device="cpu",
    )
    films = draw_films(options.films, options.size, network.num_classes, config)
    if options.rates:
        torch.set_num_threads(1)
        group = join_processes(CPU)
        rates = measure(films, network, config, options.epochs, group)
        if group.is_main:
            options.rates.write_text(json.dumps(rates), encoding="utf-8")
        return ()
    machine = common.describe_machine(options.threads)
    torch.set_num_threads(options.threads)
    measured = {"one process": measure(films, network, config, options.epochs)}
    if options.processes > 1:
        measured[f"{options.processes} processes"] = measure_together(options)
    rates = {
        name if how == "one process" else f"{name}, {how}": found
        for how, by_name in measured.items()
        for name, found in by_name.items()
    }
    medians = {name: statistics.median(found) for name, found in rates.items()}
    rows = [(name, f"{medians[name]:.0f}", f"{max(found):.0f}") for name, found in rates.items()]
    parts = [
        machine,
        f"{options.films} films of {options.size} x {options.size}, augmented, in batches of "
        f"{config.batch_size}, {choose_precision(config.precision, CPU)}; {options.epochs} epochs. "
        f"One process augments by {config.workers} workers; several have one thread each and none.",
        render_table(("network", "images/s, median", "fastest epoch"), rows),
        describe_history(checkpoint),
    ]
    common.publish("\n\n".join(parts), options.out)
    common.save_bars({"images/s": medians}, options.out.with_suffix(".png"))
    return tuple(
        common.SummaryRow(
            f"training, images/s, augmented, {how}",
            f"{statistics.median(found[OURS]):.0f}",
            f"{RESNET} {statistics.median(found[RESNET]):.0f}",
        )
        for how, found in measured.items()
    )


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = common.build_speed_parser(__doc__, "training")
    parser.add_argument("--size", type=int, help="side of the input (default: the model's own)")
    parser.add_argument("--films", type=int, default=1024, help="in an epoch")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--workers", type=int, default=TrainingConfig().workers)
    parser.add_argument(
        "--processes",
        type=int,
        default=os.cpu_count() or 1,
        help="that train together, the second time; 1: only one process is measured",
    )
    # Of each process that torchrun starts: where the main one writes the rates.
    parser.add_argument("--rates", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def training_config(checkpoint: Checkpoint, **changes: Any) -> TrainingConfig:
    """Return how a checkpoint was trained, with changes; defaults where it does not say."""
    told = {**checkpoint.training.get("config", {}), **changes}
    known = {option.name for option in fields(TrainingConfig)}
    config = TrainingConfig(**{name: value for name, value in told.items() if name in known})
    return take_heads(config, checkpoint.model_config)


def measure(
    films: FilmDataset,
    network: ResFormerConfig,
    config: TrainingConfig,
    epochs: int,
    group: ProcessGroup = ALONE,
) -> Rates:
    """Return the images a second of each epoch, by network, and of the loader alone."""
    loader = build_loader(films, config, group)
    plain = replace(network, lung_head=False, infection_head=False)

    def learn(sizes: ResFormerConfig, build: Callable[[ResFormerConfig], nn.Module]) -> Learner:
        loss = build_loss(sizes, config)
        return build_learner(loss, len(loader), sizes, config, group, build=build)

    learners = {
        OURS: learn(network, IdentityMappingResFormer),
        RESNET: learn(plain, lambda sizes: build_baseline(BASELINES[RESNET], sizes.num_classes)),
    }
    rates: Rates = {name: [] for name in (*learners, LOADER)}
    for epoch in range(epochs + 1):
        for name, learner in learners.items():
            found = train_one_epoch(learner, loader, group, label=name, progress=False)
            rates[name].append(found["images_per_second"])
        group.wait()
        start = time.perf_counter()
        for _ in loader:
            pass
        rates[LOADER].append(len(films) / (time.perf_counter() - start))
        if epoch == 0:  # it warms up and does not count
            rates = {name: [] for name in rates}
    return rates


def measure_together(options: argparse.Namespace) -> Rates:
    """Return the same rates of several processes that train together, over all of them."""
    with tempfile.TemporaryDirectory() as folder:
        rates = Path(folder) / "rates.json"
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        worker = ["--nproc-per-node", str(options.processes), "-m", "benchmarks.training"]
        names = ("model", "size", "films", "epochs")
        same = [f"--{name}={getattr(options, name)}" for name in names]
        subprocess.run(
            [*torchrun, *worker, *same, "--workers=0", f"--rates={rates}"],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            check=True,
        )
        found: Rates = json.loads(rates.read_text(encoding="utf-8"))
    return found


def read_history(checkpoint: Checkpoint) -> list[Mapping[str, float]]:
    """Return the epochs of all stages of a checkpoint's training, the first stage first."""
    stages = list_stages(checkpoint.training)
    return [figures for stage in stages for figures in stage.get("history", [])]


def describe_history(checkpoint: Checkpoint) -> str:
    """Say in a sentence how long a checkpoint was trained."""
    history = read_history(checkpoint)
    minutes = sum(figures["seconds"] for figures in history) / 60
    rate = statistics.median(figures["images_per_second"] for figures in history)
    before = ", after the stage that learns the lungs" if "lungs" in checkpoint.training else ""
    return (
        f"The checkpoint was trained for {len(history)} epochs, {minutes:.0f} minutes of training "
        f"at a median of {rate:.0f} images/s{before}; validation is not counted. It was trained on "
        "whatever else the machine had to do."
    )


if __name__ == "__main__":
    main()
