"""Where a training finds its films and leaves its files, and what it builds from them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from resformer.data.augment import CACHE_MARGIN, STRENGTHS, FilmAugmentation
from resformer.data.background import BackgroundReplacement, LungConcealment
from resformer.data.cache import cache_films
from resformer.data.dataset import EpochSampler, FilmDataset, class_indices
from resformer.data.manifest import Manifest
from resformer.data.masks import INFECTION_FOLDER, LUNGS_FOLDER, RegionMasks, cache_masks
from resformer.data.roots import DataRoot
from resformer.data.sources import source_weights
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
from resformer.transforms import InputSpec


@dataclass(frozen=True)
class Workspace:
    """The films of a training and the folder of its files.

    Attributes:
        root: what the manifest's paths are relative to.
        manifest: films, classes and split.
        folder: of this run: the state to resume from and the decoded films.
        spec: what the network expects of an image.
        with_masks: whether the lung masks are a part of what is trained on.
    """

    root: DataRoot
    manifest: Manifest
    folder: Path
    spec: InputSpec
    with_masks: bool = False

    @cached_property
    def data_digest(self) -> str:
        """Hash of the films and of their split, and of the masks where they are used."""
        rows = "".join(f"{row.sha256}{row.split}{row.class_name}" for row in self.manifest.rows)
        masks = self.lungs("train").digest if self.with_masks else ""
        return hashlib.sha256((rows + masks).encode()).hexdigest()

    def training_films(self, seed: int, *, progress: bool = False) -> FilmDataset:
        """Return the training split, augmented; decoded now or found decoded."""
        size = round(self.spec.size * CACHE_MARGIN)
        return self._dataset("train", size, FilmAugmentation(self.spec.size), seed, progress)

    def unvaried_films(self, split: str) -> FilmDataset:
        """Return a split without augmentation, at the size that it is cached at."""
        size = round(self.spec.size * CACHE_MARGIN) if split == "train" else self.spec.size
        return self._dataset(split, size, None, 0, False)

    def evaluation_films(self, split: str, *, progress: bool = False) -> FilmDataset:
        """Return a split as serving would see it; decoded now or found decoded."""
        return self._dataset(split, self.spec.size, None, 0, progress)

    def lungs(self, split: str) -> RegionMasks:
        """Return the lung masks of a split, at the size that its films are cached at."""
        return self._masks(split, LUNGS_FOLDER)

    def infection(self, split: str, healthy_class: str) -> RegionMasks:
        """Return the infection masks of a split likewise; healthy films have none, and known so.

        Raises:
            ValueError: if there is a name of a healthy class that is no class.
        """
        masks, names = self._masks(split, INFECTION_FOLDER), self.manifest.class_names
        if healthy_class and healthy_class not in names:
            raise ValueError(
                f"healthy_class {healthy_class!r} is no class: choose one of {', '.join(names)}"
            )
        healthy = [row.class_name == healthy_class for row in self.manifest.subset(split)]
        return replace(masks, known=masks.known | np.array(healthy))

    def masks(self, split: str, config: TrainingConfig) -> list[RegionMasks]:
        """Return the regions that a configuration learns from, the lungs first."""
        if not config.infection_head:
            return [self.lungs(split)]
        return [self.lungs(split), self.infection(split, config.healthy_class)]

    def _masks(self, split: str, region: str) -> RegionMasks:
        size = round(self.spec.size * CACHE_MARGIN) if split == "train" else self.spec.size
        rows = self.manifest.subset(split)
        return cache_masks(self.root, rows, size, self.cache, region=region)

    @property
    def cache(self) -> Path:
        """Folder of what is computed once and found again."""
        return self.folder / "cache"

    def _dataset(
        self,
        split: str,
        size: int,
        augmentation: FilmAugmentation | None,
        seed: int,
        progress: bool,
    ) -> FilmDataset:
        rows = self.manifest.subset(split)
        films = cache_films(self.root, rows, size, self.cache, progress=progress)
        labels = class_indices(rows, self.manifest.class_names)
        return FilmDataset(films, labels, self.spec, augmentation=augmentation, seed=seed)


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
        outlines: lungs of the training films, whose surroundings are replaced.
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
