"""How long a training will take, told before it starts by a few batches of drawn films."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import nn

from resformer.data.augment import CACHE_MARGIN
from resformer.data.dataset import FilmDataset
from resformer.data.manifest import Manifest
from resformer.data.masks import OUTLINED, RegionMasks
from resformer.data.surroundings import BackgroundReplacement, StyleExchange
from resformer.devices import choose_device
from resformer.model import IdentityMappingResFormer, ResFormerConfig
from resformer.phantom import draw_chest_phantom
from resformer.training.baselines import build_baseline
from resformer.training.config import OURS, TrainingConfig
from resformer.training.data import build_augmentation, build_loader
from resformer.training.distributed import ProcessGroup
from resformer.training.epoch import begin_epoch, build_learner, build_loss, train_one_epoch
from resformer.training.gate_fit import GateConfig
from resformer.transforms import InputSpec

# Few enough to be told soon. All are trained on twice: the first time warms up.
_BATCHES, _BATCH_SIZE = 2, 32
_PHANTOMS = 8
# A film that is only looked at costs this share of one that is trained on: no backward pass.
_FORWARD_SHARE = 1 / 3


def estimate_seconds(manifest: Manifest, config: TrainingConfig) -> float:
    """Estimate how long a training on one device will take.

    Each size of the input is timed in steps as the training will take them, with films that are
    augmented in the same process: where many cores are free, the training will be faster. The
    films' decoding is not counted, and all films are counted as if they had a lung mask.

    Returns:
        seconds, as far as the machine stays as busy as it is.
    """
    rates = {
        size: _films_per_second(size, len(manifest.class_names), config)
        for size in {*config.sizes, config.input_size}
    }
    train, validation = len(manifest.subset("train")), len(manifest.subset("validation"))
    sizes = [config.size_at(epoch) for epoch in range(config.epochs)]
    seconds = sum(train / rates[size] for size in sizes)
    looked_at = validation * config.epochs
    if config.network == OURS:
        gate = GateConfig()
        looked_at += min(gate.films, train) + min(gate.variations, 4 * train)
    if config.lung_head:
        seconds += config.lung_epochs * train / rates[config.input_size]
        looked_at += train
    return seconds + looked_at * _FORWARD_SHARE / rates[config.input_size]


def _films_per_second(size: int, num_classes: int, config: TrainingConfig) -> float:
    """Train on drawn films at one size, and time it once all is warm."""
    # The start of worker processes would take longer than the batches.
    config = replace(config, workers=0, batch_size=min(config.batch_size, _BATCH_SIZE))
    group = ProcessGroup(0, 1, choose_device(config.device))
    network = ResFormerConfig(
        num_classes=num_classes,
        lung_head=config.lung_head,
        infection_head=config.infection_head,
    )

    def build(network: ResFormerConfig) -> nn.Module:
        if config.network == OURS:
            return IdentityMappingResFormer(network)
        return build_baseline(config.network, network.num_classes)

    films = draw_films(_BATCHES * config.batch_size, size, num_classes, config)
    loader = build_loader(films, config, group)
    loss = build_loss(network, config)
    learner = build_learner(loss, len(loader), network, config, group, build=build)
    rate = 0.0
    for epoch in range(2):
        begin_epoch(epoch, loader, config, group)
        figures = train_one_epoch(learner, loader, group, label="", progress=False)
        rate = figures["images_per_second"]
    return rate


def draw_films(count: int, size: int, num_classes: int, config: TrainingConfig) -> FilmDataset:
    """Draw films as the cache holds them, augmented for an input of some size, with masks."""
    side = round(config.input_size * CACHE_MARGIN)
    drawn = np.stack([draw_chest_phantom(side, seed) for seed in range(_PHANTOMS)])
    films = np.resize(drawn, (count, side, side))
    labels = np.arange(count) % num_classes
    lungs: NDArray[np.uint8] = np.zeros_like(films)
    lungs[:, side // 5 : -side // 4, side // 6 : -side // 6] = 255
    known = np.full(count, OUTLINED, np.float32)
    regions = config.lung_head + config.infection_head
    background, style = config.background_replacement, config.style_exchange
    return FilmDataset(
        films,
        labels,
        InputSpec(size=size),
        augmentation=build_augmentation(size, config),
        masks=[RegionMasks(lungs, known, "")] * regions,
        background=BackgroundReplacement(films, lungs, background) if background else None,
        style=StyleExchange(films, labels, style) if style else None,
    )
