"""A seeded split into train, validation and test, by group and stratified by class.

scikit-learn's StratifiedGroupKFold makes folds of equal size; the fractions wanted here are free,
and each class is to meet them to the image wherever its groups permit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from resformer.data.find import DatasetError

SPLITS = ("train", "validation", "test")
Fractions = tuple[float, float, float]


def assign_splits(
    class_names: Sequence[str],
    groups: Sequence[int],
    *,
    fractions: Fractions = (0.8, 0.1, 0.1),
    seed: int = 0,
) -> list[str]:
    """Assign every image to a split such that no group stands in two.

    Args:
        class_names: class of each of N images.
        groups: group of each of them.
        fractions: of a class's images that go to train, validation and test.
        seed: of the assignment; the same images in the same order then give the same split.

    Returns:
        The split of each image, ``"train"``, ``"validation"`` or ``"test"``.

    Raises:
        DatasetError: if the fractions are no three positive numbers that add to 1, or if a class
            has too few groups for one in each split.
    """
    if len(fractions) != len(SPLITS) or min(fractions) <= 0 or not math.isclose(sum(fractions), 1):
        raise DatasetError(
            f"fractions must be three positive numbers that add to 1, as 0.7 0.15 0.15; "
            f"got {fractions}"
        )
    counts, names = _count(class_names, groups)
    _check_groups(counts, names)
    quotas = np.array([_quota(int(total), fractions) for total in counts.sum(axis=0)])
    split_of = _assign(counts, quotas, np.random.default_rng(seed))
    if missing := _classes_without_split(counts, split_of):
        raise DatasetError(
            f"the groups of near-duplicates of {names[missing[0]]!r} and of another class hang "
            "together so much that a split would hold none of it: look at its duplicates, or "
            "add images"
        )
    index = {group: i for i, group in enumerate(sorted(set(groups)))}
    return [SPLITS[split_of[index[group]]] for group in groups]


def _count(
    class_names: Sequence[str], groups: Sequence[int]
) -> tuple[NDArray[np.int64], list[str]]:
    """Count the images ``(groups, classes)``, both sorted, and name the classes."""
    names, classes = np.unique(np.array(class_names), return_inverse=True)
    numbers, rows = np.unique(np.array(groups), return_inverse=True)
    counts = np.zeros((len(numbers), len(names)), dtype=np.int64)
    np.add.at(counts, (rows, classes), 1)
    return counts, [str(name) for name in names]


def _check_groups(counts: NDArray[np.int64], names: Sequence[str]) -> None:
    for name, column in zip(names, counts.T, strict=True):
        number = int((column > 0).sum())
        if number < len(SPLITS):
            raise DatasetError(
                f"the class {name!r} has {int(column.sum())} images in {number} groups of "
                "near-duplicates, and train, validation and test need a group each: add images "
                "of other patients, or, if they are different films, raise duplicate_threshold"
            )


def _quota(total: int, fractions: Fractions) -> NDArray[np.int64]:
    """Round ``total * fractions`` by largest remainders, none to nothing."""
    exact = np.array(fractions) * total
    quota: NDArray[np.int64] = np.maximum(np.floor(exact), 1).astype(np.int64)
    while quota.sum() < total:
        quota[np.argmax(exact - quota)] += 1
    while quota.sum() > total:
        quota[np.argmax(np.where(quota > 1, quota - exact, -np.inf))] -= 1
    return quota


def _assign(
    counts: NDArray[np.int64], quotas: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Assign groups to splits: the difficult ones (of many classes, then large) first.

    Within that order chance decides. A group goes where its classes lack the largest part of their
    quota, so that groups of every size are spread like the images.
    """
    order = rng.permutation(len(counts))
    keys = (-counts.sum(axis=1)[order], -(counts > 0).sum(axis=1)[order])
    order = order[np.lexsort(keys)]
    remaining = (counts > 0).sum(axis=0)
    filled = np.zeros_like(quotas)
    split_of = np.zeros(len(counts), dtype=np.int64)
    for group in order:
        members = counts[group]
        present = members > 0
        choice = _choose(members[present], quotas[present], filled[present], remaining[present])
        split_of[group] = choice
        filled[:, choice] += members
        remaining -= present
    return split_of


def _choose(
    members: NDArray[np.int64],
    quotas: NDArray[np.int64],
    filled: NDArray[np.int64],
    remaining: NDArray[np.int64],
) -> int:
    """Choose the split of one group; arguments ``(C,)`` or ``(C, 3)`` of its classes alone."""
    empty = filled == 0
    # A class whose last groups must fill its last empty splits leaves no other choice.
    forced = empty.sum(axis=1) >= remaining
    needed = (empty & forced[:, None]).sum(axis=0)
    excess = np.maximum(filled + members[:, None] - quotas, 0).sum(axis=0)
    lack = (((quotas - filled) / quotas) * members[:, None]).sum(axis=0)
    return int(np.lexsort((-lack, excess, -needed))[0])


def _classes_without_split(counts: NDArray[np.int64], split_of: NDArray[np.int64]) -> list[int]:
    filled = np.stack([counts[split_of == s].sum(axis=0) for s in range(len(SPLITS))])
    return [int(c) for c in np.flatnonzero((filled == 0).any(axis=0))]
