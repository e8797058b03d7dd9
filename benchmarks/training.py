"""Measures how fast a training goes, ours against torchvision's ResNet-18 in the same loop.

    pip install -r requirements-benchmarks.txt
    python -m benchmarks.training

The checkpoint says how our network is built and how its films are varied. Drawn films go through
the project's own loader, augmentation, loss and optimiser, in turns: an epoch of one network, an
epoch of the other. The loader alone is timed too: where it is the slower part, the network is not
what to improve. `--splits 1:1 1:2 2:1 2:2` measures ours for each number of workers that augment
and of threads that the network gets. How long the checkpoint itself was trained until it reached
an accuracy is read from its history.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from benchmarks.baselines import GreyImages, WithoutLungs, import_torchvision
from benchmarks.reporting import Summary, SummaryRow, publish, speed_parser
from benchmarks.timing import describe_machine
from benchmarks.training_films import drawn_films, training_config
from benchmarks.training_report import (
    Rates,
    describe_history,
    minutes_to_accuracy,
    plot_rates,
    render_rates,
    render_splits,
    whole_history,
)
from resformer.allocator import keep_memory
from resformer.checkpoint import Checkpoint, load_checkpoint
from resformer.data.dataset import FilmDataset
from resformer.devices import choose_device, place_model
from resformer.model import ResFormerConfig
from resformer.training.builders import build_learner, build_loader, build_loss
from resformer.training.config import TrainingConfig
from resformer.training.distributed import ProcessGroup
from resformer.training.engine import FilmLoader, Learner, train_epoch
from resformer.training.optimisation import (
    WeightAverage,
    build_optimizer,
    build_scheduler,
    choose_precision,
)

OURS, RESNET, LOADER = "ResFormer (ours)", "ResNet-18", "loader alone"

Split = tuple[int, int]


def main(arguments: Sequence[str] | None = None) -> Summary:
    """Measure, and write the table and its plot."""
    options = _parse(arguments)
    if options.keep_memory:
        keep_memory()
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
    rates = measure(films, network, config, options.epochs)
    precision = choose_precision(config.precision, torch.device("cpu"))
    parts = [
        machine,
        f"{options.films} films of {options.size} x {options.size}, augmented, in batches of "
        f"{config.batch_size} by {config.workers} workers, {precision}; {options.epochs} epochs.",
        render_rates(rates),
        *([render_splits(splits)] if splits else []),
        describe_history(checkpoint, options.accuracy),
    ]
    publish("\n\n".join(parts), options.out)
    plot_rates(rates, options.out.with_suffix(".png"))
    return summarise(rates, checkpoint, options.accuracy)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = speed_parser(__doc__, __file__)
    parser.add_argument("--size", type=int, default=128, help="side of the input")
    parser.add_argument("--films", type=int, default=1024, help="in an epoch")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--workers", type=int, default=TrainingConfig().workers)
    parser.add_argument("--accuracy", type=float, default=0.886, help="of the history")
    parser.add_argument(
        "--splits",
        nargs="+",
        type=_read_split,
        default=[],
        metavar="WORKERS:THREADS",
        help="of the cores, to compare",
    )
    parser.add_argument(
        "--keep-memory",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="as a training does; without, as glibc would",
    )
    return parser.parse_args(arguments)


def _read_split(text: str) -> Split:
    workers, _, threads = text.partition(":")
    if not (workers.isdecimal() and threads.isdecimal() and int(threads)):
        raise argparse.ArgumentTypeError(f"expected WORKERS:THREADS, such as 1:2, got {text!r}")
    return int(workers), int(threads)


def summarise(rates: Rates, checkpoint: Checkpoint, accuracy: float) -> Summary:
    """Return the images a second and the minutes to an accuracy."""
    medians = {name: f"{statistics.median(found):.0f}" for name, found in rates.items()}
    minutes = minutes_to_accuracy(whole_history(checkpoint), accuracy)
    return (
        SummaryRow(
            "training, images/s, augmented",
            medians[OURS],
            f"{RESNET} {medians[RESNET]}, {LOADER} {medians[LOADER]}",
        ),
        SummaryRow(
            f"training to {accuracy:.1%} validation accuracy, minutes",
            "not reached" if minutes is None else f"{minutes:.1f}",
            "",
        ),
    )


def measure(
    films: FilmDataset, network: ResFormerConfig, config: TrainingConfig, epochs: int
) -> Rates:
    """Return the images a second of each epoch, by network, and of the loader alone."""
    group = ProcessGroup(0, 1, choose_device("cpu"))
    loader = build_loader(films, config, group)
    ours = _learner(films, network, config, loader)
    learners = {OURS: ours, RESNET: as_learner(_resnet(network), films, ours, config, loader)}
    rates: dict[str, list[float]] = {name: [] for name in (*learners, LOADER)}
    for epoch in range(epochs + 1):  # the first warms up and does not count
        for name, learner in learners.items():
            found = train_epoch(learner, loader, group, label=name, progress=False)
            rates[name] += [found["images_per_second"]][: bool(epoch)]
        rates[LOADER] += [_time_loader(loader, len(films))][: bool(epoch)]
    return rates


def measure_split(
    films: FilmDataset, network: ResFormerConfig, config: TrainingConfig, split: Split, epochs: int
) -> float:
    """Return the median images a second of ours with ``(workers, threads)``."""
    workers, threads = split
    torch.set_num_threads(threads)
    config = replace(config, workers=workers)
    group = ProcessGroup(0, 1, choose_device("cpu"))
    loader = build_loader(films, config, group)
    learner = _learner(films, network, config, loader)
    found = [
        train_epoch(learner, loader, group, label=OURS, progress=False)["images_per_second"]
        for _ in range(epochs + 1)
    ]
    return statistics.median(found[1:])


def _learner(
    films: FilmDataset, network: ResFormerConfig, config: TrainingConfig, loader: FilmLoader
) -> Learner:
    group = ProcessGroup(0, 1, choose_device("cpu"))
    return build_learner(build_loss(films, network, config), len(loader), network, config, group)


def as_learner(
    model: nn.Module, films: FilmDataset, ours: Learner, config: TrainingConfig, loader: FilmLoader
) -> Learner:
    """Return another network with the same loss of the classes, optimiser, schedule and average."""
    placed = place_model(WithoutLungs(model), torch.device("cpu"))
    optimizer = build_optimizer(placed, config)
    plain = ResFormerConfig(num_classes=len(ours.criterion.class_weights))
    return replace(
        ours,
        model=placed,
        average=WeightAverage(placed, config.ema_decay),
        optimizer=optimizer,
        scheduler=build_scheduler(optimizer, config, len(loader)),
        criterion=build_loss(films, plain, config),
    )


def _resnet(network: ResFormerConfig) -> nn.Module:
    return GreyImages(import_torchvision().models.resnet18(num_classes=network.num_classes))


def _time_loader(loader: FilmLoader, films: int) -> float:
    start = time.perf_counter()
    for _ in loader:
        pass
    return films / (time.perf_counter() - start)
