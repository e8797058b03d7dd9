"""A seeded split into train, validation and test: by group, and alike for each source and class.

A group (near-duplicates, films of one patient) stands in one split. Eight tenths of the films of
each class of each source go to train, one to validation and one to test, as near as the groups
permit (scikit-learn's ``StratifiedGroupKFold``). Films of an earlier split stay where they were, so
that figures compare: a group with a film of the earlier test split is test as a whole.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from resformer.data.find import DatasetError

SPLITS = ("train", "validation", "test")
_TRAIN, _VALIDATION, _TEST = range(len(SPLITS))
_FOLDS = 10


def assign_splits(
    class_names: Sequence[str],
    groups: Sequence[int],
    *,
    strata: Sequence[str] | None = None,
    earlier: Sequence[str] | None = None,
    seed: int = 0,
) -> list[str]:
    """Assign every image to a split such that no group stands in two.

    Args:
        class_names: class of each of N images.
        groups: group of each of them.
        strata: what each split is to hold the same share of, N names; by default the classes.
        earlier: split of each image in an earlier assignment, empty for a new image.
        seed: of the assignment; the same images in the same order then give the same split.

    Returns:
        The split of each image, ``"train"``, ``"validation"`` or ``"test"``.

    Raises:
        DatasetError: if a class has too few groups for one in each split.
    """
    _check_groups(class_names, groups)
    strata = class_names if strata is None else strata
    kept = _keep_earlier(groups, earlier or [""] * len(groups))
    new = [index for index, group in enumerate(groups) if group not in kept]
    drawn = _draw([strata[index] for index in new], [groups[index] for index in new], seed)
    split_of = kept | {groups[index]: split for index, split in zip(new, drawn, strict=True)}
    _fill_empty_splits(class_names, groups, split_of, fixed=set(kept))
    return [SPLITS[split_of[group]] for group in groups]


def _check_groups(class_names: Sequence[str], groups: Sequence[int]) -> None:
    films = Counter(class_names)
    number = Counter(name for name, _ in set(zip(class_names, groups, strict=True)))
    for name in sorted(films):
        if number[name] < len(SPLITS):
            groups_of = "group" if number[name] == 1 else "groups"
            raise DatasetError(
                f"the class {name!r} has only {number[name]} independent {groups_of} of films "
                "(near-duplicates and the films of one patient count as one); at least "
                f"{len(SPLITS)} are needed, for train, validation and test: add films of other "
                f"patients or, if its {films[name]} films are all different, raise "
                "duplicate_threshold (--duplicate-threshold)"
            )


def _keep_earlier(groups: Sequence[int], earlier: Sequence[str]) -> dict[int, int]:
    """Return the split of each group that has films of an earlier one: test before the others."""
    kept: dict[int, int] = {}
    for group, split in zip(groups, earlier, strict=True):
        if split:
            kept[group] = max(kept.get(group, _TRAIN), SPLITS.index(split))
    return kept


def _draw(strata: Sequence[str], groups: Sequence[int], seed: int) -> NDArray[np.int64]:
    """Choose one of ten folds for test and one for validation, by chance; ``(N,)`` of splits."""
    drawn = np.full(len(groups), _TRAIN, dtype=np.int64)
    # Few films give fewer folds: no fold may be empty.
    folds = min(_FOLDS, len(set(groups)), max(Counter(strata).values(), default=0))
    if folds < len(SPLITS):
        return drawn
    folder = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # Of a stratum with fewer films than folds; those of a class are seen to afterwards.
        warnings.filterwarnings("ignore", "The least populated class in y", UserWarning)
        members = [fold for _, fold in folder.split(np.zeros(len(groups)), strata, groups)]
    # Small strata fill the first folds, so which fold is for what is left to chance.
    test, validation = np.random.default_rng(seed).permutation(folds)[:2]
    drawn[members[test]] = _TEST
    drawn[members[validation]] = _VALIDATION
    return drawn


def _fill_empty_splits(
    class_names: Sequence[str],
    groups: Sequence[int],
    split_of: dict[int, int],
    fixed: set[int],
) -> None:
    """Move groups of small classes, which a tenth may have missed, until no split lacks a class.

    The smallest group that can be moved is: one of the class whose other classes stay where they
    are needed too. Groups of an earlier split are ``fixed``.

    Raises:
        DatasetError: if there is none.
    """
    classes: dict[int, set[str]] = {}
    for name, group in zip(class_names, groups, strict=True):
        classes.setdefault(group, set()).add(name)
    size = Counter(groups)
    held = Counter((name, split_of[group]) for group in classes for name in classes[group])
    for name in sorted(set(class_names)):
        for split in range(len(SPLITS)):
            if held[name, split]:
                continue
            movable = [
                group
                for group in classes
                if group not in fixed
                and name in classes[group]
                and all(held[other, split_of[group]] > 1 for other in classes[group])
            ]
            if not movable:
                raise DatasetError(
                    f"the groups of near-duplicates and patients of {name!r} are linked with "
                    "those of other classes, or with an earlier split, so much that a split would "
                    "hold none of it: look at its duplicates, or add images"
                )
            group = min(movable, key=lambda group: (size[group], group))
            for other in classes[group]:
                held[other, split_of[group]] -= 1
                held[other, split] += 1
            split_of[group] = split
