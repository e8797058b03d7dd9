"""The split: exact, by group, reproducible, and never without a class."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resformer.data.find import DatasetError
from resformer.data.split import SPLITS, assign_splits

FRACTIONS = (0.70, 0.15, 0.15)


def _counts(classes: list[str], splits: list[str]) -> dict[str, list[int]]:
    found = Counter(zip(classes, splits, strict=True))
    return {name: [found[name, split] for split in SPLITS] for name in sorted(set(classes))}


def test_single_films_meet_the_fractions_exactly_in_every_class() -> None:
    classes = ["a"] * 1000 + ["b"] * 37 + ["c"] * 10
    splits = assign_splits(classes, range(len(classes)), fractions=FRACTIONS)
    assert _counts(classes, splits) == {
        "a": [700, 150, 150],
        "b": [26, 6, 5],  # 25.9, 5.55, 5.55 rounded by largest remainders
        "c": [7, 2, 1],
    }


def test_groups_stay_whole_and_are_spread_like_the_films() -> None:
    classes = ["a"] * 600 + ["b"] * 400
    groups = [i // 4 for i in range(400)] + list(range(1000, 1600))
    splits = assign_splits(classes, groups, fractions=FRACTIONS)
    assert all(len(set(splits[i : i + 4])) == 1 for i in range(0, 400, 4))
    assert _counts(classes, splits) == {"a": [420, 90, 90], "b": [280, 60, 60]}
    in_groups = Counter(splits[:400])
    assert [in_groups[split] for split in SPLITS] == [280, 60, 60]


def test_a_group_of_two_classes_goes_to_one_split() -> None:
    classes = ["a", "b"] * 30
    groups = [0, 0, 1, 1, *range(2, 58)]
    splits = assign_splits(classes, groups, fractions=FRACTIONS)
    assert splits[0] == splits[1]
    assert splits[2] == splits[3]
    assert _counts(classes, splits) == {"a": [21, 5, 4], "b": [21, 5, 4]}


def test_the_seed_decides_and_nothing_else() -> None:
    classes = ["a"] * 60 + ["b"] * 60
    groups = list(range(120))
    first = assign_splits(classes, groups, seed=3)
    assert assign_splits(classes, groups, seed=3) == first
    assert assign_splits(classes, groups, seed=4) != first
    assert assign_splits(classes, [7 * group + 5 for group in groups], seed=3) == first


@pytest.mark.parametrize("sizes", [[5, 5, 5], [10, 9, 1, 1, 1, 1], [20, 1, 1], [1, 1, 1], [2] * 4])
def test_every_split_gets_something_of_a_small_class(sizes: list[int]) -> None:
    groups = [group for group, size in enumerate(sizes) for _ in range(size)]
    classes = ["small"] * len(groups) + ["other"] * 20
    groups += range(100, 120)
    counts = _counts(classes, assign_splits(classes, groups))
    assert min(counts["small"]) >= 1


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 9), min_size=3, max_size=30), min_size=2, max_size=4),
    st.integers(0, 2**32 - 1),
)
def test_any_groups_of_one_class_each_can_be_split(sizes: list[list[int]], seed: int) -> None:
    classes: list[str] = []
    groups: list[int] = []
    for index, of_class in enumerate(sizes):
        for size in of_class:
            groups += [groups[-1] + 1 if groups else 0] * size
            classes += [f"class {index}"] * size
    splits = assign_splits(classes, groups, seed=seed)
    split_of = dict(zip(groups, splits, strict=True))
    assert [split_of[group] for group in groups] == splits
    for name, counts in _counts(classes, splits).items():
        assert min(counts) >= 1
        biggest = max(
            Counter(g for g, c in zip(groups, classes, strict=True) if c == name).values()
        )
        train = 0.8 * sum(counts)
        assert abs(counts[0] - train) <= 2 * biggest + 1


@pytest.mark.parametrize(
    "fractions", [(0.8, 0.1, 0.2), (1.0, 0.0, 0.0), (1.2, -0.1, -0.1), (0.5, 0.5), (0.8, 0.1)]
)
def test_fractions_that_are_none_are_refused(fractions: tuple[float, float, float]) -> None:
    with pytest.raises(DatasetError, match="three positive numbers that add to 1"):
        assign_splits(["a", "b"] * 5, range(10), fractions=fractions)


def test_a_class_of_two_groups_is_refused() -> None:
    with pytest.raises(
        DatasetError, match=r"class 'b' has 6 images in 2 groups of near-duplicates.*add images"
    ):
        assign_splits(["a"] * 10 + ["b"] * 6, [*range(10), 20, 20, 20, 20, 21, 21])


def test_classes_that_hang_together_too_much_are_refused() -> None:
    # The three groups of a, and those of b, need a split each; so c's first two share one.
    members = {0: "ab", 1: "ab", 2: "ac", 3: "bc", 4: "c"}
    classes = [name for names in members.values() for name in names]
    groups = [group for group, names in members.items() for _ in names]
    with pytest.raises(DatasetError, match=r"near-duplicates of '.' and of another class hang"):
        assign_splits(classes, groups)
