"""The data of a training: decoded films, masks, boxes, augmentation and batches.

Everything that is slow is computed once into the run's folder and found again.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from resformer.checkpoint import Checkpoint
from resformer.data.augment import CACHE_MARGIN, STRENGTHS, FilmAugmentation
from resformer.data.dataset import EpochSampler, Film, FilmDataset, class_indices
from resformer.data.find import DataRoot
from resformer.data.labels import read_boxes
from resformer.data.manifest import Manifest, ManifestRow
from resformer.data.masks import (
    INFECTION_FOLDER,
    LUNGS_FOLDER,
    OUTLINED,
    RegionMasks,
    cache_films,
    cache_masks,
)
from resformer.data.surroundings import BackgroundReplacement, LungConcealment, StyleExchange
from resformer.model import ResFormerConfig
from resformer.training.config import RECOMMENDED, TrainingConfig
from resformer.training.distributed import ProcessGroup
from resformer.transforms import InputSpec

logger = logging.getLogger(__name__)

FilmLoader = DataLoader[Film]


@dataclass(frozen=True)
class TrainingData:
    """The films of a training and the folder of what is computed from them.

    Attributes:
        root: what the manifest's paths are relative to.
        manifest: films, classes and split.
        folder: of the run; decoded films and masks go into its ``cache``.
        spec: what the network expects of an image.
        with_masks: whether masks and boxes are a part of what is trained on.
    """

    root: DataRoot
    manifest: Manifest
    folder: Path
    spec: InputSpec
    with_masks: bool = False
    _found: dict[tuple[str, str], RegionMasks] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def cache(self) -> Path:
        """Folder of what is computed once and found again."""
        return self.folder / "cache"

    @cached_property
    def data_digest(self) -> str:
        """Hash of films, split, classes and sources, and of masks and boxes where they are used."""
        rows = "".join(f"{r.sha256}{r.split}{r.class_name}{r.source}" for r in self.manifest.rows)
        masks = ""
        if self.with_masks:
            masks = self.lungs("train").digest + self.infection("train", "").digest
        return hashlib.sha256((rows + masks).encode()).hexdigest()

    def training_films(self, *, progress: bool = False) -> FilmDataset:
        """Return the training split as it is cached, a margin larger than the input."""
        return self._dataset("train", self._size_of("train"), progress)

    def evaluation_films(self, split: str, *, progress: bool = False) -> FilmDataset:
        """Return a split as serving would see it."""
        return self._dataset(split, self.spec.size, progress)

    def sources(self, split: str) -> NDArray[np.str_]:
        """Return the source of each film of a split, ``(N,)``; empty where it is not known."""
        return np.array([row.source for row in self.manifest.subset(split)], dtype=np.str_)

    def lungs(self, split: str) -> RegionMasks:
        """Return the lung masks of a split, at the size that its films are cached at."""
        return self._masks(split, LUNGS_FOLDER)

    def infection(self, split: str, healthy_class: str) -> RegionMasks:
        """Return what is infected, of a split: outlined, boxed, or known to be nothing.

        Raises:
            ValueError: if the healthy class is not one of the classes.
        """
        names = self.manifest.class_names
        if healthy_class and healthy_class not in names:
            raise ValueError(
                f"healthy_class {healthy_class!r} is not one of the classes: "
                f"choose one of {', '.join(names)}"
            )
        masks = self._masks(split, INFECTION_FOLDER)
        healthy = [row.class_name == healthy_class for row in self.manifest.subset(split)]
        known = np.where(healthy, np.maximum(masks.known, OUTLINED), masks.known)
        return replace(masks, known=known.astype(np.float32))

    def masks(self, split: str, config: TrainingConfig) -> list[RegionMasks]:
        """Return the regions that a configuration learns from, the lungs first."""
        if not config.lung_head:
            return []
        if not config.infection_head:
            return [self.lungs(split)]
        return [self.lungs(split), self.infection(split, config.healthy_class)]

    def _size_of(self, split: str) -> int:
        return round(self.spec.size * CACHE_MARGIN) if split == "train" else self.spec.size

    def _dataset(self, split: str, size: int, progress: bool) -> FilmDataset:
        rows = self.manifest.subset(split)
        films = cache_films(self.root, rows, size, self.cache, progress=progress)
        return FilmDataset(films, class_indices(rows, self.manifest.class_names), self.spec)

    def _masks(self, split: str, region: str) -> RegionMasks:
        if (split, region) not in self._found:
            rows, size = self.manifest.subset(split), self._size_of(split)
            boxes = None
            if region == INFECTION_FOLDER:
                boxes = read_boxes(self.root, [row.path for row in rows])
            self._found[split, region] = cache_masks(
                self.root, rows, size, self.cache, region=region, boxes=boxes
            )
        return self._found[split, region]


def build_augmentation(size: int, config: TrainingConfig) -> FilmAugmentation:
    """Build the augmentation that a configuration wants, for an input of some size."""
    return FilmAugmentation(size, STRENGTHS[config.augmentation])


def build_training_films(
    data: TrainingData,
    config: TrainingConfig,
    masks: Sequence[RegionMasks] = (),
    outlines: NDArray[np.uint8] | None = None,
) -> FilmDataset:
    """Build the training split as a configuration wants it augmented.

    Args:
        data: the films.
        config: how to train.
        masks: of the training films, as :meth:`TrainingData.masks` gives them.
        outlines: lungs of the training films, to replace their surroundings and to cover them.
    """
    films = data.training_films()
    background = concealment = style = None
    if outlines is not None and config.background_replacement:
        background = BackgroundReplacement(films.films, outlines, config.background_replacement)
    if outlines is not None and config.lung_concealment:
        concealment = LungConcealment(outlines, config.lung_concealment)
    if config.style_exchange:
        style = StyleExchange(films.films, films.labels, config.style_exchange)
    rows, names = data.manifest.subset("train"), data.manifest.class_names
    return FilmDataset(
        films.films,
        films.labels,
        films.spec,
        augmentation=build_augmentation(config.input_size, config),
        masks=masks,
        background=background,
        concealment=concealment,
        style=style,
        priors=log_priors(rows, names, config.prior_smoothing),
        seed=config.seed,
    )


def log_priors(
    rows: Sequence[ManifestRow], class_names: Sequence[str], smoothing: float
) -> NDArray[np.float32]:
    """Return the log of the share of each class in each film's source, ``(N, K)``.

    For logit adjustment by source (Menon et al., "Long-tail learning via logit adjustment", ICLR
    2021; as "bias product" in Clark et al., EMNLP 2019, and He et al., "Unlearn dataset bias",
    2019). Where each class comes from other sources (hospitals), a network learns the sources. The
    loss adds this to a film's logits: what the source explains is explained already, and the
    network, used without the addition, is left to learn what the film shows. Departure: the shares
    are softened, or a source of one class would teach nothing.

    Args:
        rows: training films.
        class_names: in the order of the logits.
        smoothing: share of the uniform distribution in each, from above 0 to 1, which is that
            distribution alone.

    Raises:
        ValueError: if the smoothing is out of range: without any, a class that a source lacks
            would have an infinite loss.
    """
    if not 0 < smoothing <= 1:
        raise ValueError(f"smoothing must be in (0, 1], got {smoothing}")
    _, source = np.unique([row.source for row in rows], return_inverse=True)
    counts = np.zeros((source.max(initial=-1) + 1, len(class_names)))
    np.add.at(counts, (source, class_indices(rows, class_names)), 1)
    shares = counts / counts.sum(axis=1, keepdims=True)
    softened = (1 - smoothing) * shares + smoothing / len(class_names)
    priors: NDArray[np.float32] = np.log(softened).astype(np.float32)[source]
    return priors


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


def take_heads(config: TrainingConfig, network: ResFormerConfig) -> TrainingConfig:
    """Return the configuration with the heads that the initial network has."""
    if not network.lung_head:
        return config.without_lungs()
    return replace(config, lung_head=True, infection_head=network.infection_head)


def fit_to_data(
    config: TrainingConfig,
    data: TrainingData,
    drawn_by: Checkpoint | None,
    initial: Checkpoint | None,
    *,
    quiet: bool,
) -> TrainingConfig:
    """Leave out what the data cannot teach, and say so.

    Args:
        config: as it is wanted.
        data: the films.
        drawn_by: network that draws the lungs where there are no masks, if there is one.
        initial: network that is trained further, which keeps its heads.
        quiet: whether to keep what is left out to oneself.

    Raises:
        ValueError: if a healthy class is named that is none.
    """

    def say(message: str) -> None:
        if not quiet:
            logger.warning("%s", message)

    if not config.lung_head:
        return config
    if not data.lungs("train").known.any():
        if drawn_by is None:
            say(
                "NO LUNGS: no training film has a lung mask (<Class>/masks/<name>.png) and no "
                "model that draws them was found (--lung-model): the network is trained WITHOUT a "
                "lung head, and may read the class off what surrounds the lungs"
            )
            return config.without_lungs()
        say("no training film has a lung mask: another network draws the lungs (--lung-model)")
    names = data.manifest.class_names
    if config.healthy_class == RECOMMENDED.healthy_class and config.healthy_class not in names:
        say(f"there is no class {config.healthy_class!r}: no film counts as free of infection")
        config = replace(config, healthy_class="")
    if config.infection_head and not initial and not data.infection("train", "").known.any():
        say("no training film has an infection mask or a box: no infection head is trained")
        config = replace(config, infection_head=False)
    return config
