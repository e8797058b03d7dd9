"""Times the epochs of a training, ours and ResNet-18 in turns, in one process or several.

Run under ``torchrun`` by :mod:`benchmarks.training`, it measures several processes that train
together, and the main one writes the rates as JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from benchmarks.baselines import GreyImages, WithoutLungs, import_torchvision
from benchmarks.training_films import drawn_films, training_config
from benchmarks.training_report import Rates
from resformer.checkpoint import load_checkpoint
from resformer.data.dataset import FilmDataset
from resformer.model import IdentityMappingResFormer, ResFormerConfig
from resformer.training.config import TrainingConfig
from resformer.training.distributed import ProcessGroup, join_processes
from resformer.training.learner import (
    FilmLoader,
    Learner,
    build_learner,
    build_loader,
    build_loss,
    train_epoch,
)

OURS, RESNET, LOADER = "ResFormer (ours)", "ResNet-18", "loader alone"
CPU = torch.device("cpu")
ALONE = ProcessGroup(0, 1, CPU)

Split = tuple[int, int]


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
    learners = {
        OURS: _learner(films, network, config, loader, group),
        RESNET: _learner(films, plain, config, loader, group, _resnet),
    }
    rates: dict[str, list[float]] = {name: [] for name in (*learners, LOADER)}
    for epoch in range(epochs + 1):  # the first warms up and does not count
        for name, learner in learners.items():
            found = train_epoch(learner, loader, group, label=name, progress=False)
            rates[name] += [found["images_per_second"]][: bool(epoch)]
        group.from_main(None)
        rates[LOADER] += [_time_loader(loader, len(films))][: bool(epoch)]
    return rates


def measure_split(
    films: FilmDataset, network: ResFormerConfig, config: TrainingConfig, split: Split, epochs: int
) -> float:
    """Return the median images a second of ours with ``(workers, threads)``."""
    workers, threads = split
    torch.set_num_threads(threads)
    config = replace(config, workers=workers)
    loader = build_loader(films, config, ALONE)
    learner = _learner(films, network, config, loader, ALONE)
    found = [
        train_epoch(learner, loader, ALONE, label=OURS, progress=False)["images_per_second"]
        for _ in range(epochs + 1)
    ]
    return statistics.median(found[1:])


def _learner(
    films: FilmDataset,
    network: ResFormerConfig,
    config: TrainingConfig,
    loader: FilmLoader,
    group: ProcessGroup,
    build: Callable[[ResFormerConfig], nn.Module] = IdentityMappingResFormer,
) -> Learner:
    loss = build_loss(films, network, config)
    return build_learner(loss, len(loader), network, config, group, build=build)


def _resnet(network: ResFormerConfig) -> nn.Module:
    resnet = import_torchvision().models.resnet18(num_classes=network.num_classes)
    return WithoutLungs(GreyImages(resnet))


def _time_loader(loader: FilmLoader, films: int) -> float:
    start = time.perf_counter()
    for _ in loader:
        pass
    return films / (time.perf_counter() - start)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure as one of the processes that torchrun started, each with one thread."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    for name in ("size", "films", "epochs"):
        parser.add_argument(f"--{name}", type=int, required=True)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    checkpoint = load_checkpoint(options.model)
    network = checkpoint.model_config
    config = training_config(
        checkpoint, input_size=options.size, workers=0, epochs=options.epochs + 1, device="cpu"
    )
    with join_processes(CPU) as group:
        films = drawn_films(options.films, network.num_classes, config)
        rates = measure(films, network, config, options.epochs, group)
        if group.is_main:
            options.out.write_text(json.dumps(rates), encoding="utf-8")


if __name__ == "__main__":
    main()
