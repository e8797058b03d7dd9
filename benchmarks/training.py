"""Measures how fast a training goes, ours against torchvision's ResNet-18 in the same loop.

    pip install -r requirements-benchmarks.txt
    python -m benchmarks.training

Drawn films through the project's own loader, augmentation, loss and optimiser, in turns: an epoch
of one network, an epoch of the other. The loader alone is timed too: where it is the slower part,
the network is not what to improve.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.baselines import GreyImages, import_torchvision
from benchmarks.timing import describe_machine, render_table
from resformer.data.augment import STRENGTHS, FilmAugmentation
from resformer.data.dataset import FilmDataset
from resformer.devices import choose_device, place_model
from resformer.model import ResFormerConfig
from resformer.training.config import TrainingConfig
from resformer.training.distributed import ProcessGroup
from resformer.training.engine import FilmLoader, Learner, train_epoch
from resformer.training.optimisation import WeightAverage, build_optimizer, build_scheduler
from resformer.training.workspace import build_learner, build_loader, build_loss
from resformer.transforms import InputSpec
from tests.phantom import draw_chest_phantom

_DRAWN = 32
_CLASSES = 4


class WithoutLungs(nn.Module):
    """A classifier as the training loop calls it.

    Args:
        network: takes ``(B, 1, H, W)``.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, return_lungs: bool = False) -> Tensor:
        """Map ``(B, 1, H, W)`` to logits; it knows nothing of lungs."""
        logits: Tensor = self.network(images)
        return logits


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write the table."""
    options = _parse(arguments)
    machine = describe_machine(torch.get_num_threads())
    config = TrainingConfig(
        input_size=options.size, workers=options.workers, epochs=options.epochs + 1
    )
    group = ProcessGroup(0, 1, choose_device("cpu"))
    films = drawn_films(options.films, config)
    loader = build_loader(films, config, group)
    ours = build_learner(
        build_loss(films, ResFormerConfig(num_classes=_CLASSES), config),
        *(len(loader), ResFormerConfig(num_classes=_CLASSES), config, group),
    )
    learners = {"ResFormer (ours)": ours, "ResNet-18": as_learner(_resnet(), ours, config, loader)}
    rates: dict[str, list[float]] = {name: [] for name in (*learners, "loader alone")}
    for epoch in range(options.epochs + 1):  # the first warms up and does not count
        for name, learner in learners.items():
            epoch_found = train_epoch(learner, loader, group, label=name, progress=False)
            rates[name] += [epoch_found["images_per_second"]][: bool(epoch)]
        rates["loader alone"] += [_time_loader(loader, len(films))][: bool(epoch)]
    rows = [
        (name, f"{statistics.median(found):.0f}", f"{max(found):.0f}")
        for name, found in rates.items()
    ]
    text = (
        f"{machine}\n\n{options.films} films of {options.size} x {options.size}, augmented, in "
        f"batches of {config.batch_size} by {config.workers} workers, {ours.precision}; "
        f"{options.epochs} epochs.\n\n"
        + render_table(("network", "images/s, median", "fastest epoch"), rows)
    )
    options.out.write_text(text + "\n", encoding="utf-8")
    print(text)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=128, help="side of the input")
    parser.add_argument("--films", type=int, default=1024, help="in an epoch")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--workers", type=int, default=TrainingConfig().workers)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    return parser.parse_args(arguments)


def drawn_films(count: int, config: TrainingConfig) -> FilmDataset:
    """Return films as the cache holds them, augmented as a training augments them."""
    size = config.input_size
    drawn = np.stack([draw_chest_phantom(size, seed=seed) for seed in range(_DRAWN)])
    return FilmDataset(
        drawn[np.arange(count) % _DRAWN],
        np.arange(count) % _CLASSES,
        InputSpec(size),
        augmentation=FilmAugmentation(size, STRENGTHS[config.augmentation]),
    )


def as_learner(
    network: nn.Module, ours: Learner, config: TrainingConfig, loader: FilmLoader
) -> Learner:
    """Return another network with the same loss, optimiser, schedule and average."""
    model = place_model(WithoutLungs(network), torch.device("cpu"))
    optimizer = build_optimizer(model, config)
    return replace(
        ours,
        model=model,
        average=WeightAverage(model, config.ema_decay),
        optimizer=optimizer,
        scheduler=build_scheduler(optimizer, config, len(loader)),
    )


def _resnet() -> nn.Module:
    return GreyImages(import_torchvision().models.resnet18(num_classes=_CLASSES))


def _time_loader(loader: FilmLoader, films: int) -> float:
    start = time.perf_counter()
    for _ in loader:
        pass
    return films / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
