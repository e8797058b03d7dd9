"""Films whose lungs are covered, which have no class, and what the loss makes of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from resformer.data.dataset import NO_CLASS, FilmDataset
from resformer.data.masks import RegionMasks
from resformer.data.surroundings import LungConcealment
from resformer.training.losses import FilmBatch, TrainingLoss
from resformer.transforms import InputSpec
from tests.data_sets import draw_texture

LUNGS = (slice(20, 60), slice(20, 60))


@pytest.fixture(scope="module")
def films() -> NDArray[np.uint8]:
    return np.stack([draw_texture(seed, 80) for seed in range(4)]).astype(np.uint8)


@pytest.fixture(scope="module")
def outlines(films: NDArray[np.uint8]) -> NDArray[np.uint8]:
    outlines = np.zeros_like(films)
    outlines[:, *LUNGS] = 255
    return outlines


def _batch(labels: list[int]) -> FilmBatch:
    count = len(labels)
    nothing = torch.zeros(count, 1, 16, 16)
    images = torch.zeros(count, 1, 64, 64)
    return FilmBatch(images, torch.tensor(labels), nothing, nothing[..., 0, 0], torch.ones(count))


def test_nothing_is_left_of_the_lungs_and_all_of_what_is_far_from_them(
    films: NDArray[np.uint8], outlines: NDArray[np.uint8]
) -> None:
    cover = LungConcealment(outlines, 1.0)
    for seed in range(30):
        first = cover(2, films[2], np.random.default_rng(seed))
        second = cover(2, films[3], np.random.default_rng(seed))
        assert first is not None
        assert second is not None
        np.testing.assert_array_equal(first[LUNGS], second[LUNGS])
        np.testing.assert_array_equal(first[:4], films[2, :4])


def test_lungs_are_covered_as_often_as_said(
    films: NDArray[np.uint8], outlines: NDArray[np.uint8]
) -> None:
    cover = LungConcealment(outlines, 0.3)
    made = [cover(0, films[0], np.random.default_rng(seed)) for seed in range(200)]
    assert 40 <= sum(film is not None for film in made) <= 80


def test_an_outline_that_can_be_no_lungs_covers_nothing(films: NDArray[np.uint8]) -> None:
    cover = LungConcealment(np.zeros_like(films), 1.0)
    assert cover(0, films[0], np.random.default_rng(0)) is None
    with pytest.raises(ValueError, match=r"probability must be in \[0, 1\], got 2"):
        LungConcealment(films, 2)


def test_a_film_without_lungs_brings_neither_class_nor_regions(
    films: NDArray[np.uint8], outlines: NDArray[np.uint8]
) -> None:
    dataset = FilmDataset(
        films,
        np.array([3, 2, 1, 0]),
        InputSpec(size=64),
        masks=[RegionMasks(outlines, np.ones(4, dtype=bool), "digest")],
        concealment=LungConcealment(outlines, 0.5),
    )
    made = [dataset[epoch, 0] for epoch in range(20)]
    assert {(film.label, film.known.item()) for film in made} == {(3, 1.0), (NO_CLASS, 0.0)}


def test_a_film_without_class_shall_make_all_classes_as_probable() -> None:
    loss = TrainingLoss(torch.tensor([0.5, 1.0, 2.0, 4.0]), label_smoothing=0.05)
    even, sure = torch.zeros(1, 4), torch.tensor([[5.0, 0, 0, 0]])
    assert loss(even, _batch([NO_CLASS])).item() == pytest.approx(math.log(4))
    assert loss(sure, _batch([NO_CLASS])) > loss(even, _batch([NO_CLASS]))


def test_films_with_and_without_class_are_averaged_by_their_weights() -> None:
    logits, weights = torch.tensor([[1.0, 2, 3, 4], [4, 1, 1, 0]]), torch.tensor([0.5, 1, 2, 4])
    loss = TrainingLoss(weights)
    of_class = loss(logits[:1], _batch([3])).item()
    of_none = loss(logits[1:], _batch([NO_CLASS])).item()
    both = loss(logits, _batch([3, NO_CLASS])).item()
    assert both == pytest.approx((4 * of_class + 1 * of_none) / 5)
