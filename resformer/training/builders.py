"""What a training is built from: films, batches, loss, network and optimiser."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from resformer.data.augment import FilmAugmentation
from resformer.data.background import BackgroundReplacement, LungConcealment
from resformer.data.dataset import EpochSampler, FilmDataset
from resformer.data.masks import RegionMasks
from resformer.data.sources import source_weights
from resformer.data.strengths import STRENGTHS
from resformer.data.style import StyleExchange
from resformer.devices import place_model
from resformer.model import IdentityMappingResFormer, ResFormerConfig
from resformer.training.config import TrainingConfig
from resformer.training.distributed import ProcessGroup
from resformer.training.engine import FilmLoader, Learner
from resformer.training.losses import TrainingLoss
from resformer.training.optimisation import (
    WeightAverage,
    build_optimizer,
    build_scheduler,
    choose_precision,
    class_weights,
)
from resformer.training.workspace import Workspace


def build_augmentation(size: int, config: TrainingConfig) -> FilmAugmentation:
    """Build the augmentation that a configuration wants, for an input of some size."""
    return FilmAugmentation(size, STRENGTHS[config.augmentation])


def build_training_films(
    workspace: Workspace,
    config: TrainingConfig,
    masks: Sequence[RegionMasks] = (),
    outlines: NDArray[np.uint8] | None = None,
) -> FilmDataset:
    """Build the training split as a configuration wants it augmented and weighed.

    Args:
        workspace: the films.
        config: how to train.
        masks: of the training films, as :meth:`Workspace.masks` gives them.
        outlines: lungs of the training films, to replace their surroundings and to cover them.
    """
    films = workspace.training_films(config.seed)
    share = config.background_replacement
    return FilmDataset(
        films.films,
        films.labels,
        films.spec,
        augmentation=build_augmentation(config.input_size, config),
        masks=masks,
        background=None
        if outlines is None or not share
        else BackgroundReplacement(films.films, outlines, share),
        concealment=None
        if outlines is None or not config.lung_concealment
        else LungConcealment(outlines, config.lung_concealment),
        style=StyleExchange(films.films, films.labels, config.style_exchange)
        if config.style_exchange
        else None,
        weights=source_weights(workspace.manifest.subset("train"), config.source_balance),
        seed=config.seed,
    )


def build_loader(films: FilmDataset, config: TrainingConfig, group: ProcessGroup) -> FilmLoader:
    """Build the batches of one process; all processes together see every film once an epoch."""
    sampler = EpochSampler(
        len(films), seed=config.seed, rank=group.rank, world_size=group.world_size
    )
    return DataLoader(
        films,
        batch_size=max(1, config.batch_size // group.world_size),
        sampler=sampler,
        num_workers=config.workers,
        persistent_workers=config.workers > 0,
        pin_memory=group.device.type == "cuda",
        # Without its own generator the loader would draw from the one that dropout draws from.
        generator=torch.Generator().manual_seed(config.seed),
    )


def build_loss(
    films: FilmDataset, network: ResFormerConfig, config: TrainingConfig
) -> TrainingLoss:
    """Build the loss of the classes, weighed by how many films each has, and of the lungs."""
    return TrainingLoss(
        class_weights(films.labels, network.num_classes, config.class_balance),
        label_smoothing=config.label_smoothing,
        lung_loss=config.lung_loss if network.lung_head else 0.0,
    )


def build_learner(
    loss: TrainingLoss,
    steps_per_epoch: int,
    network: ResFormerConfig,
    config: TrainingConfig,
    group: ProcessGroup,
    weights: dict[str, Tensor] | None = None,
    *,
    build: Callable[[ResFormerConfig], nn.Module] = IdentityMappingResFormer,
) -> Learner:
    """Build the network and all that trains it.

    Args:
        loss: what to minimise.
        steps_per_epoch: of this process.
        network: what to build.
        config: how to train.
        group: this process's place among the others.
        weights: what the network starts from; random by default.
        build: makes the network, for benchmarks that train another one in the same way.
    """
    torch.manual_seed(config.seed)
    model = build(network)
    if weights is not None:
        model.load_state_dict(weights)
    place_model(model, group.device)
    optimizer = build_optimizer(model, config)
    return Learner(
        model=group.wrap(model),
        average=WeightAverage(model, config.ema_decay),
        optimizer=optimizer,
        scheduler=build_scheduler(optimizer, config, steps_per_epoch),
        criterion=loss.to(group.device),
        gradient_clip=config.gradient_clip,
        precision=choose_precision(config.precision, group.device),
    )
