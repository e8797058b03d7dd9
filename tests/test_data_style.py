"""Style exchange: exact matches of tone and sharpness, and what it leaves alone."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from resformer.data.surroundings import (
    StyleExchange,
    cumulated_levels,
    match_sharpness,
    match_tone,
    ring_strengths,
    spectrum_rings,
)
from tests.phantom import draw_chest_phantom

Pixels = NDArray[np.uint8]


def _strengths(film: Pixels) -> NDArray[np.float64]:
    amplitude = np.abs(np.fft.rfft2(film.astype(np.float32)))
    return ring_strengths(amplitude, spectrum_rings(film.shape))


def _films(count: int = 4) -> Pixels:
    return np.stack([draw_chest_phantom(96, seed=seed) for seed in range(count)])


def test_a_film_matched_with_itself_stays_as_it_is() -> None:
    film = draw_chest_phantom(96, seed=1)
    np.testing.assert_array_equal(match_tone(film, cumulated_levels(film)), film)
    same = match_sharpness(film, _strengths(film), spectrum_rings(film.shape))
    assert np.abs(same.astype(int) - film).max() <= 1


def test_the_tone_of_a_curved_copy_is_taken_over_exactly() -> None:
    film = np.arange(96 * 96, dtype=np.int64).reshape(96, 96) % 251
    curved = (film**2 / 251).astype(np.uint8)
    matched = match_tone(film.astype(np.uint8), cumulated_levels(curved))
    assert np.abs(matched.astype(int) - curved).max() <= 1
    halfway = match_tone(film.astype(np.uint8), cumulated_levels(curved), 0.5)
    assert np.abs(halfway - (film + curved) / 2).max() <= 1


def test_a_tone_never_swaps_two_grey_levels() -> None:
    ramp = np.tile(np.arange(256, dtype=np.uint8), (256, 1)).T.copy()
    matched = match_tone(ramp, cumulated_levels(draw_chest_phantom(96, seed=3)))
    assert (np.diff(matched[:, 0].astype(int)) >= 0).all()


def test_a_blurred_film_becomes_as_sharp_as_the_sharp_one() -> None:
    rng = np.random.default_rng(0)
    sharp = np.clip(
        draw_chest_phantom(96, seed=2) / 2 + 64 + rng.normal(0, 8, (96, 96)), 0, 255
    ).astype(np.uint8)
    blurred = gaussian_filter(sharp.astype(float), 0.6).astype(np.uint8)
    target, before = _strengths(sharp), _strengths(blurred)
    after = _strengths(match_sharpness(blurred, target, spectrum_rings(sharp.shape)))
    # The finest rings were dampened beyond what may be amplified again.
    reached = (target / before < 3) & (target / before > 1.1)
    assert reached.sum() > 5
    np.testing.assert_allclose(after[reached], target[reached], rtol=0.1)


def test_coarse_structures_are_left_alone() -> None:
    film = draw_chest_phantom(96, seed=4)
    smooth = np.zeros(len(_strengths(film)))
    blurred = match_sharpness(film, smooth, spectrum_rings(film.shape))
    before, after = np.fft.rfft2(film.astype(float)), np.fft.rfft2(blurred.astype(float))
    np.testing.assert_allclose(np.abs(after[:4, :4]), np.abs(before[:4, :4]), rtol=0.1)
    assert np.abs(after[30:60, 30:]).mean() < 0.5 * np.abs(before[30:60, 30:]).mean()


def test_it_depends_on_the_generator_alone_and_does_as_often_as_told() -> None:
    films = _films()
    labels = np.array([0, 0, 1, 1])
    exchange = StyleExchange(films, labels, 0.5)
    one = [exchange(films[0], np.random.default_rng(seed)) for seed in range(60)]
    again = [exchange(films[0], np.random.default_rng(seed)) for seed in range(60)]
    np.testing.assert_array_equal(one, again)
    untouched = sum(bool((film == films[0]).all()) for film in one)
    assert 5 <= untouched <= 27  # a quarter of 60, four standard deviations around
    never = StyleExchange(films, labels, 0.0)
    np.testing.assert_array_equal(never(films[1], np.random.default_rng(0)), films[1])


def test_rare_classes_lend_as_often_as_frequent_ones() -> None:
    """A film that is one grey level tells by its tone which class lent it."""
    films = np.full((10, 64, 64), 50, dtype=np.uint8)
    films[9] = 200
    exchange = StyleExchange(films, np.array([0] * 9 + [1]), 1.0)
    ramp = np.tile(np.arange(64, dtype=np.uint8) * 4, (64, 1))
    levels = [exchange(ramp, np.random.default_rng(seed)).mean() for seed in range(200)]
    bright = sum(level > 125 for level in levels)
    assert 60 <= bright <= 140


@pytest.mark.parametrize("probability", [-0.1, 1.1])
def test_an_impossible_probability_is_refused(probability: float) -> None:
    with pytest.raises(ValueError, match=r"probability must be in \[0, 1\]"):
        StyleExchange(_films(2), np.array([0, 1]), probability)


def test_a_film_without_structure_survives() -> None:
    even = np.full((96, 96), 7, dtype=np.uint8)
    exchange = StyleExchange(np.stack([even, draw_chest_phantom(96)]), np.array([0, 1]), 1.0)
    for seed in range(8):
        for film in (even, draw_chest_phantom(96, seed=5)):
            assert exchange(film, np.random.default_rng(seed)).shape == (96, 96)
