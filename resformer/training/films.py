"""Where a training finds its films and leaves its files."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from resformer.data.augment import CACHE_MARGIN, FilmAugmentation
from resformer.data.dataset import FilmDataset, class_indices
from resformer.data.find import DataRoot
from resformer.data.manifest import Manifest
from resformer.data.masks import (
    INFECTION_FOLDER,
    LUNGS_FOLDER,
    RegionMasks,
    cache_films,
    cache_masks,
)
from resformer.training.config import TrainingConfig
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
