"""Where a training finds its films and leaves its files, and what it builds from them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader

from resformer.data.augment import CACHE_MARGIN, FilmAugmentation
from resformer.data.cache import cache_films
from resformer.data.dataset import EpochSampler, FilmDataset, class_indices
from resformer.data.manifest import Manifest
from resformer.data.roots import DataRoot
from resformer.devices import place_model
from resformer.model import IdentityMappingResFormer, ResFormerConfig
from resformer.training.config import TrainingConfig
from resformer.training.distributed import ProcessGroup
from resformer.training.engine import FilmLoader, Learner
from resformer.training.optimisation import (
    WeightAverage,
    build_optimizer,
    build_scheduler,
    choose_precision,
    class_weights,
)
from resformer.transforms import InputSpec

_CACHE_FOLDER = "cache"


@dataclass(frozen=True)
class Workspace:
    """The films of a training and the folder of its files.

    Attributes:
        root: what the manifest's paths are relative to.
        manifest: films, classes and split.
        folder: of this run: the state to resume from and the decoded films.
        spec: what the network expects of an image.
    """

    root: DataRoot
    manifest: Manifest
    folder: Path
    spec: InputSpec

    @property
    def data_digest(self) -> str:
        """Hash of the films and of their split."""
        rows = "".join(f"{row.sha256}{row.split}{row.class_name}" for row in self.manifest.rows)
        return hashlib.sha256(rows.encode()).hexdigest()

    def training_films(self, seed: int, *, progress: bool = False) -> FilmDataset:
        """Return the training split, augmented; decoded now or found decoded."""
        size = round(self.spec.size * CACHE_MARGIN)
        return self._dataset("train", size, FilmAugmentation(self.spec.size), seed, progress)

    def evaluation_films(self, split: str, *, progress: bool = False) -> FilmDataset:
        """Return a split as serving would see it; decoded now or found decoded."""
        return self._dataset(split, self.spec.size, None, 0, progress)

    def _dataset(
        self,
        split: str,
        size: int,
        augmentation: FilmAugmentation | None,
        seed: int,
        progress: bool,
    ) -> FilmDataset:
        rows = self.manifest.subset(split)
        films = cache_films(self.root, rows, size, self.folder / _CACHE_FOLDER, progress=progress)
        labels = class_indices(rows, self.manifest.class_names)
        return FilmDataset(films, labels, self.spec, augmentation=augmentation, seed=seed)


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


def build_learner(
    films: FilmDataset,
    steps_per_epoch: int,
    network: ResFormerConfig,
    config: TrainingConfig,
    group: ProcessGroup,
) -> Learner:
    """Build the network with random weights and all that trains it."""
    torch.manual_seed(config.seed)
    model = place_model(IdentityMappingResFormer(network), group.device)
    weights = class_weights(films.labels, network.num_classes, config.class_balance)
    optimizer = build_optimizer(model, config)
    return Learner(
        model=group.wrap(model),
        average=WeightAverage(model, config.ema_decay),
        optimizer=optimizer,
        scheduler=build_scheduler(optimizer, config, steps_per_epoch),
        criterion=nn.CrossEntropyLoss(weights, label_smoothing=config.label_smoothing).to(
            group.device
        ),
        gradient_clip=config.gradient_clip,
        precision=choose_precision(config.precision, group.device),
    )
