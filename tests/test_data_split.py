"""The split: by group, reproducible, alike for every stratum, and never without a class."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resformer.data.find import DatasetError
from resformer.data.split import SPLITS, assign_splits


def _counts(names: list[str], splits: list[str]) -> dict[str, list[int]]:
    found = Counter(zip(names, splits, strict=True))
    return {name: [found[name, split] for split in SPLITS] for name in sorted(set(names))}


@pytest.mark.parametrize("seed", range(3))
def test_each_class_is_split_in_tenths(seed: int) -> None:
    classes = ["a"] * 1000 + ["b"] * 37 + ["c"] * 10
    counts = _counts(classes, assign_splits(classes, range(len(classes)), seed=seed))
    assert counts["a"] == [800, 100, 100]
    assert counts["c"] == [8, 1, 1]
    assert all(3 <= number <= 4 for number in counts["b"][1:])


def test_each_stratum_of_a_class_is_split_in_tenths() -> None:
    classes = ["a"] * 200 + ["b"] * 100
    strata = ["here"] * 150 + ["there"] * 50 + ["b"] * 100
    splits = assign_splits(classes, range(300), strata=strata)
    expected = {"b": [80, 10, 10], "here": [120, 15, 15], "there": [40, 5, 5]}
    assert _counts(strata, splits) == expected


def test_groups_stay_whole_and_are_spread_like_the_films() -> None:
    classes = ["a"] * 600 + ["b"] * 400
    groups = [i // 4 for i in range(400)] + list(range(1000, 1600))
    splits = assign_splits(classes, groups)
    assert all(len(set(splits[i : i + 4])) == 1 for i in range(0, 400, 4))
    assert _counts(classes, splits) == {"a": [480, 60, 60], "b": [320, 40, 40]}
    in_groups = Counter(splits[:400])
    assert [in_groups[split] for split in SPLITS] == [320, 40, 40]


def test_the_seed_decides_and_nothing_else() -> None:
    classes = ["a"] * 60 + ["b"] * 60
    groups = list(range(120))
    first = assign_splits(classes, groups, seed=3)
    assert assign_splits(classes, groups, seed=3) == first
    assert assign_splits(classes, groups, seed=4) != first
    assert assign_splits(classes, [7 * group + 5 for group in groups], seed=3) == first


def test_films_of_an_earlier_split_stay_and_take_their_groups_along() -> None:
    classes = ["a", "b"] * 50
    groups = [0, 0, 1, 1, *range(2, 98)]
    earlier = ["train", "test", "validation", "", *[""] * 96]
    splits = assign_splits(classes, groups, earlier=earlier)
    assert splits[:4] == ["test", "test", "validation", "validation"]
    assert _counts(classes[4:], splits[4:]) == {"a": [38, 5, 5], "b": [38, 5, 5]}
    assert assign_splits(classes, groups, earlier=splits, seed=9) == splits
    # A new film after all the others: there are no tenths of it.
    more = assign_splits([*classes, "a"], [*groups, 98], earlier=[*splits, ""])
    assert more == [*splits, "train"]


@pytest.mark.parametrize("sizes", [[5, 5, 5], [10, 9, 1, 1, 1, 1], [20, 1, 1], [1, 1, 1], [2] * 4])
def test_every_split_gets_something_of_a_small_class(sizes: list[int]) -> None:
    groups = [group for group, size in enumerate(sizes) for _ in range(size)]
    classes = ["small"] * len(groups) + ["other"] * 20
    groups += range(100, 120)
    for seed in range(5):
        assert min(_counts(classes, assign_splits(classes, groups, seed=seed))["small"]) >= 1


@settings(max_examples=30, deadline=None)
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
        assert min(counts) >= 1, name


def test_a_class_of_two_groups_is_refused() -> None:
    message = r"class 'b' has only 2 independent groups .*at least 3 are needed.* its 6 films"
    with pytest.raises(DatasetError, match=message):
        assign_splits(["a"] * 10 + ["b"] * 6, [*range(10), 20, 20, 20, 20, 21, 21])


def test_classes_that_hang_together_too_much_are_refused() -> None:
    # The three groups of a, and those of b, need a split each; so c's first two share one.
    members = {0: "ab", 1: "ab", 2: "ac", 3: "bc", 4: "c"}
    classes = [name for names in members.values() for name in names]
    groups = [group for group, names in members.items() for _ in names]
    with pytest.raises(DatasetError, match=r"patients of '.' are linked with those of other"):
        assign_splits(classes, groups)
