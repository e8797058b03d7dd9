"""Films as a PyTorch data set, and a sampler that makes every epoch reproducible.

The augmentation of a film depends on the seed, the epoch and the film alone, not on the number of
workers or processes, nor on whether the training was interrupted.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d
from torch.utils.data import Dataset, DistributedSampler, Sampler, TensorDataset

from resformer.data.augment import Augmentation
from resformer.data.manifest import ManifestRow
from resformer.data.masks import RegionMasks
from resformer.data.surroundings import BackgroundReplacement, LungConcealment, StyleExchange
from resformer.model import LUNG_CELL
from resformer.transforms import InputSpec, resize_pixels, to_input

FilmKey = tuple[int, int]

# Label of a film that shows nothing of its class.
NO_CLASS = -1


def class_indices(rows: Sequence[ManifestRow], class_names: Sequence[str]) -> NDArray[np.int64]:
    """Return each row's class as an index into ``class_names``, ``(N,)``.

    Raises:
        ValueError: if a row's class is not among the names.
    """
    index = {name: i for i, name in enumerate(class_names)}
    unknown = sorted({row.class_name for row in rows} - set(index))
    if unknown:
        raise ValueError(
            f"classes {unknown} are not among {list(class_names)}: split the data anew"
        )
    return np.array([index[row.class_name] for row in rows], dtype=np.int64)


class Film(NamedTuple):
    """What the training knows of one film; a batch has the same fields, stacked.

    Attributes:
        image: the network's input, ``(1, size, size)``.
        label: class index, or ``NO_CLASS`` for a film whose lungs are covered.
        regions: share of lung, and of infected lung where the data set tells, ``(R, size / 4,
            size / 4)``; 0 where unknown.
        known: how well each region is known, ``(R,)``: 0 not at all, 1 by an outline, 2 by boxes,
            see :class:`resformer.data.masks.RegionMasks`.
        prior: log of the share of each class in the film's source, ``(K,)``, which the loss adds to
            the logits; or one 0 for all classes.
    """

    image: Tensor
    label: int
    regions: Tensor
    known: Tensor
    prior: Tensor


class FilmDataset(Dataset[Film]):
    """Decoded films with their classes.

    Args:
        films: ``(N, H, W)`` uint8, as :func:`resformer.data.masks.cache_films` gives them.
        labels: class index of each film, ``(N,)``.
        spec: what the network expects.
        augmentation: varies a film in training; none in evaluation.
        masks: of the same films and size, the lungs first; none is as good as unknown lungs.
        background: replaces what surrounds the lungs, before the augmentation.
        concealment: covers the lungs, after the background; such a film has no class.
        style: gives a film the tone and the sharpness of another, after the background.
        priors: log of the share of each class in the source of each film, ``(N, K)``; by default
            nothing is known of the sources.
        seed: of the augmentation.
    """

    def __init__(
        self,
        films: NDArray[np.uint8],
        labels: NDArray[np.int64],
        spec: InputSpec,
        *,
        augmentation: Augmentation | None = None,
        masks: Sequence[RegionMasks] = (),
        background: BackgroundReplacement | None = None,
        concealment: LungConcealment | None = None,
        style: StyleExchange | None = None,
        priors: NDArray[np.float32] | None = None,
        seed: int = 0,
    ) -> None:
        self.films = films
        self.labels = labels
        self.spec = spec
        self.augmentation = augmentation
        self.masks = masks
        self.background = background
        self.concealment = concealment
        self.style = style
        self.priors = np.zeros((len(labels), 1), np.float32) if priors is None else priors
        self.seed = seed

    def __len__(self) -> int:
        """Return the number of films."""
        return len(self.labels)

    def subset(self, indices: NDArray[np.intp]) -> FilmDataset:
        """Return some of the films, in memory, without foreign backgrounds and styles."""
        return FilmDataset(
            np.asarray(self.films[indices]),
            self.labels[indices],
            self.spec,
            augmentation=self.augmentation,
            masks=[masks.subset(indices) for masks in self.masks],
            priors=self.priors[indices],
            seed=self.seed,
        )

    def resized(self, size: int, augmentation: Augmentation) -> FilmDataset:
        """Return the same films with an input of another size."""
        resized = copy.copy(self)
        resized.spec = dataclasses.replace(self.spec, size=size)
        resized.augmentation = augmentation
        return resized

    def __getitem__(self, key: FilmKey) -> Film:
        """Return the film ``key = (epoch, index)``."""
        epoch, index = key
        film, label = np.asarray(self.films[index]), int(self.labels[index])
        known = [float(masks.known[index]) for masks in self.masks] or [0.0]
        regions = [np.asarray(masks.masks[index]) for masks in self.masks] or [np.zeros_like(film)]
        entropy = np.random.SeedSequence((self.seed, epoch, index))
        rng = np.random.default_rng(entropy.spawn(1)[0])
        if self.background is not None:
            film = self.background(index, rng)
        if self.concealment is not None:
            covered = self.concealment(index, film, rng)
            if covered is not None:
                film, label, known = covered, NO_CLASS, [0.0] * len(known)
        if self.style is not None:
            film = self.style(film, rng)
        if self.augmentation is not None:
            seed = int(entropy.generate_state(1)[0])
            film, regions = self.augmentation.vary(film, regions, seed)
        return Film(
            to_input(film, self.spec),
            label,
            torch.cat([share_of_region(mask, self.spec.size) for mask in regions]),
            torch.tensor(known),
            torch.from_numpy(self.priors[index]),
        )


def share_of_region(mask: NDArray[np.uint8], size: int) -> Tensor:
    """Average a mask ``(H, W)`` over the lung head's grid, ``(1, size / 4, size / 4)``."""
    cells = torch.from_numpy(resize_pixels(mask, size) / np.float32(255)).unsqueeze(0)
    return avg_pool2d(cells, LUNG_CELL)


class EpochSampler(Sampler[FilmKey]):
    """Shuffles the films of one process anew in each epoch and tells the data set the epoch.

    The ``world_size`` processes together see each film once.
    """

    def __init__(self, length: int, *, seed: int = 0, rank: int = 0, world_size: int = 1) -> None:
        # DistributedSampler wants a data set, of which it uses nothing but the length.
        self._sampler: DistributedSampler[int] = DistributedSampler(
            TensorDataset(torch.arange(length)),
            num_replicas=world_size,
            rank=rank,
            shuffle=True,
            seed=seed,
        )
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration shuffles for."""
        self.epoch = epoch
        self._sampler.set_epoch(epoch)

    def __iter__(self) -> Iterator[FilmKey]:
        """Yield ``(epoch, index)`` of this process's films."""
        return ((self.epoch, index) for index in self._sampler)

    def __len__(self) -> int:
        """Return the number of films that this process sees in an epoch."""
        return len(self._sampler)
