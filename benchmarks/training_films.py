"""Drawn films for a training, varied as the training of a checkpoint varied its own."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from resformer.checkpoint import Checkpoint
from resformer.data.augment import CACHE_MARGIN, STRENGTHS, FilmAugmentation
from resformer.data.dataset import FilmDataset
from resformer.data.masks import RegionMasks
from resformer.data.surroundings import BackgroundReplacement, StyleExchange
from resformer.training.config import TrainingConfig
from resformer.transforms import InputSpec
from tests.phantom import draw_chest_phantom

_DRAWN = 32
# Of a lung, as a share of half the side: away from the middle, half its width, half its height.
_LUNG = (0.42, 0.28, 0.6)


def training_config(checkpoint: Checkpoint, **changes: Any) -> TrainingConfig:
    """Return how a checkpoint was trained, with changes; defaults where it does not say."""
    return TrainingConfig.from_dict({**checkpoint.training.get("config", {}), **changes})


def drawn_films(count: int, classes: int, config: TrainingConfig) -> FilmDataset:
    """Return films as the cache holds them, augmented as a training augments them."""
    size = round(config.input_size * CACHE_MARGIN)
    kinds = np.arange(count) % _DRAWN
    films = np.stack([draw_chest_phantom(size, seed=seed) for seed in range(_DRAWN)])[kinds]
    labels = np.arange(count) % classes
    outlines = np.repeat(_outline(size)[np.newaxis], count, axis=0)
    region = RegionMasks(outlines, np.ones(count, dtype=bool), "drawn")
    share, exchange = config.background_replacement, config.style_exchange
    return FilmDataset(
        films,
        labels,
        InputSpec(config.input_size),
        augmentation=FilmAugmentation(config.input_size, STRENGTHS[config.augmentation]),
        masks=[region] * (config.lung_head + config.infection_head),
        background=BackgroundReplacement(films, outlines, share) if share else None,
        style=StyleExchange(films, labels, exchange) if exchange else None,
    )


def _outline(size: int) -> NDArray[np.uint8]:
    """Two ovals where a film has its lungs, ``(size, size)``, 255 inside."""
    away, width, height = _LUNG
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    inside = np.hypot((np.abs(x) - away) / width, y / height) < 1
    outline: NDArray[np.uint8] = (255 * inside).astype(np.uint8)
    return outline
