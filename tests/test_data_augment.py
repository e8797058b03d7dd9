"""The training augmentation varies each property by itself, and is the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest

from resformer.data.augment import STRENGTHS, AugmentationConfig, FilmAugmentation


@pytest.mark.parametrize("strength", STRENGTHS)
def test_a_seed_gives_one_film(strength: str) -> None:
    augment = FilmAugmentation(64, STRENGTHS[strength])
    film = np.random.default_rng(0).integers(0, 256, (80, 80), dtype=np.uint8)
    first = [augment(film, seed) for seed in range(5)]
    np.testing.assert_array_equal([augment(film, seed) for seed in range(5)], first)
    assert len({picture.tobytes() for picture in first}) == 5


def test_whether_a_film_is_flipped_says_nothing_of_how_else_it_is_varied() -> None:
    """A flip is seen in the mask; brightness, noise and holes in a film that was flat before."""
    augment = FilmAugmentation(64)
    film, mask = np.full((80, 80), 128, np.uint8), np.zeros((80, 80), np.uint8)
    mask[:, :40] = 255
    flipped, varied = [], []
    for seed in range(400):
        picture, (moved,) = augment.vary(film, [mask], seed)
        flipped.append(moved[:, :32].mean() < moved[:, 32:].mean())
        varied.append([picture[28:36, 28:36].mean() != 128, len(np.unique(picture[20:44])) > 2])
    assert 0.4 < np.mean(flipped) < 0.6
    for column in np.array(varied, dtype=float).T:
        assert abs(np.corrcoef(flipped, column)[0, 1]) < 0.2


def test_films_that_are_not_cropped_are_shown_whole() -> None:
    """A disc keeps its share of a whole film; a crop of a third of the film enlarges it or not."""
    config = AugmentationConfig(scale=(1, 1), crop_area=(0.3, 0.3), crop_probability=0.25)
    augment = FilmAugmentation(64, config)
    y, x = np.mgrid[:80, :80] - 39.5
    disc = np.where(np.hypot(x, y) < 15, 255, 0).astype(np.uint8)
    shares = [augment.vary(disc, [disc], seed)[1][0].mean() / disc.mean() for seed in range(400)]
    whole = np.abs(np.array(shares) - 1) < 0.1
    assert 0.68 < whole.mean() < 0.82
