"""Films as a PyTorch data set, and a sampler that makes every epoch reproducible.

The augmentation of a film depends on the seed, the epoch and the film alone, not on the number of
workers or processes, nor on whether the training was interrupted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, DistributedSampler, Sampler, TensorDataset

from resformer.data.augment import Augmentation
from resformer.data.manifest import ManifestRow
from resformer.transforms import InputSpec, to_input

FilmKey = tuple[int, int]


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


class FilmDataset(Dataset[tuple[Tensor, int]]):
    """Decoded films with their classes.

    Args:
        films: ``(N, H, W)`` uint8, as :func:`resformer.data.cache.cache_films` gives them.
        labels: class index of each film, ``(N,)``.
        spec: what the network expects.
        augmentation: varies a film in training; none in evaluation.
        seed: of the augmentation.
    """

    def __init__(
        self,
        films: NDArray[np.uint8],
        labels: NDArray[np.int64],
        spec: InputSpec,
        *,
        augmentation: Augmentation | None = None,
        seed: int = 0,
    ) -> None:
        self.films = films
        self.labels = labels
        self.spec = spec
        self.augmentation = augmentation
        self.seed = seed

    def __len__(self) -> int:
        """Return the number of films."""
        return len(self.labels)

    def __getitem__(self, key: FilmKey) -> tuple[Tensor, int]:
        """Return input ``(1, size, size)`` and class index of the film ``key = (epoch, index)``."""
        epoch, index = key
        film = np.asarray(self.films[index])
        if self.augmentation is not None:
            entropy = np.random.SeedSequence((self.seed, epoch, index))
            film = self.augmentation(film, int(entropy.generate_state(1)[0]))
        return to_input(film, self.spec), int(self.labels[index])


class EpochSampler(Sampler[FilmKey]):
    """Shuffles the films of one process anew in each epoch and tells the data set the epoch.

    Args:
        length: number of films in the data set.
        seed: of the shuffle.
        rank: of this process among those that train together.
        world_size: number of processes that train together; together they see each film once.
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
