"""An abstention is fitted: thresholds on validation films, distances on training films."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from resformer.abstention import AbstentionConfig, FilmFeatures, choose_thresholds, fit_abstention


@pytest.mark.parametrize(
    ("order", "least", "greatest"),
    [
        # The least sure are the furthest: the furthest is one of the 5 of 100 that are least sure.
        (lambda n: 99 - n, 0.045, 98.5),
        # The surest are the furthest: a fifth of the 5 for its distance and 4 others.
        (lambda n: n, 0.035, 98.5),
    ],
)
def test_the_thresholds_lie_between_the_films_that_may_and_the_rest(
    order: Callable[[int], int], least: float, greatest: float
) -> None:
    confidence = torch.arange(100, dtype=torch.float64) / 100
    distance = torch.tensor([float(order(n)) for n in range(100)])
    found = choose_thresholds(confidence, distance, AbstentionConfig(share=0.05))
    assert found == pytest.approx((least, greatest))


@pytest.mark.parametrize(
    ("distance_share", "least", "greatest"), [(0.0, 0.045, 99.5), (1.0, 0.0, 94.5)]
)
def test_all_may_be_abstained_on_for_one_reason(
    distance_share: float, least: float, greatest: float
) -> None:
    rising = torch.arange(100, dtype=torch.float64)
    config = AbstentionConfig(share=0.05, distance_share=distance_share)
    assert choose_thresholds(rising / 100, rising, config) == pytest.approx((least, greatest))


def test_films_that_are_alike_are_not_abstained_on_together() -> None:
    confidence = torch.full((40,), 0.9, dtype=torch.float64)
    distance = torch.full((40,), 3.0)
    found = choose_thresholds(confidence, distance, AbstentionConfig(share=0.05))
    assert found == pytest.approx((0.9, 3.0))


@pytest.mark.parametrize("share", [0.0, 0.05, 0.29, 0.7])
@pytest.mark.parametrize("count", [1, 19, 100, 1079])
def test_no_more_validation_films_are_abstained_on_than_may_be(share: float, count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    confidence = torch.rand(count, generator=generator, dtype=torch.float64)
    distance = torch.rand(count, generator=generator) + (1 - confidence.float())
    least, greatest = choose_thresholds(confidence, distance, AbstentionConfig(share))
    abstained = int(((confidence < least) | (distance.double() > greatest)).sum())
    allowed = int(share * count + 1e-9)
    # The next film of each threshold would have made too many.
    assert max(0, allowed - 1) <= abstained <= allowed


def _films(count: int, seed: int, shift: float = 0.0) -> FilmFeatures:
    """Two classes in five features: correlated, of unlike scales, 8 deviations apart."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    noise = torch.randn(count, 5, generator=generator)
    noise[:, 1] = 0.8 * noise[:, 0] + 0.6 * noise[:, 1]
    scale = torch.tensor([100.0, 1.0, 1.0, 0.1, 5.0])
    offset = torch.zeros(5)
    offset[3] = 8.0
    pooled = (noise + labels.unsqueeze(1) * offset + shift) * scale
    return FilmFeatures(pooled, torch.linspace(0.5, 1, count, dtype=torch.float64), labels)


def test_a_fit_makes_the_covariance_within_the_classes_the_identity() -> None:
    training = _films(4000, seed=0)
    fitted = fit_abstention(training, _films(200, seed=1), 2, AbstentionConfig())
    positions = (training.pooled - fitted.mean) @ fitted.projection
    offsets = positions - fitted.class_means[training.labels]
    covariance = offsets.T @ offsets / len(offsets)
    torch.testing.assert_close(covariance, torch.eye(5), atol=0.03, rtol=0)
    torch.testing.assert_close(offsets.mean(0), torch.zeros(5), atol=1e-3, rtol=0)
    apart = (fitted.class_means[1] - fitted.class_means[0]).norm().item()
    assert apart == pytest.approx(8.0, abs=0.3)


def test_a_fit_tells_films_unlike_all_others_by_their_distance() -> None:
    validation = _films(200, seed=1)
    fitted = fit_abstention(_films(2000, seed=0), validation, 2, AbstentionConfig())
    among = fitted.judge(validation.confidence, validation.pooled)
    assert 1 <= sum(doubt.abstained for doubt in among) <= 10
    foreign = _films(200, seed=2, shift=4.0)
    sure = torch.ones(200, dtype=torch.float64)
    far = fitted.judge(sure, foreign.pooled)
    assert sum(doubt.abstained for doubt in far) >= 190


def test_a_fit_takes_no_more_directions_than_it_is_told() -> None:
    config = AbstentionConfig(directions=2)
    fitted = fit_abstention(_films(50, seed=0), _films(50, seed=1), 2, config)
    assert fitted.projection.shape == (5, 2)
    assert fitted.class_means.shape == (2, 2)


def test_a_fit_needs_films_of_every_class_and_of_validation() -> None:
    films = _films(20, seed=0)
    with pytest.raises(ValueError, match="training films of every class"):
        fit_abstention(films, films, 3, AbstentionConfig())
    nothing = FilmFeatures(*(part[:0] for part in (films.pooled, films.confidence, films.labels)))
    with pytest.raises(ValueError, match="needs validation films"):
        fit_abstention(films, nothing, 2, AbstentionConfig())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"share": 1.0}, "share must be"),
        ({"distance_share": 1.5}, "distance_share must be from 0 to 1"),
        ({"directions": 0}, "directions must be 1 or more"),
    ],
)
def test_an_impossible_configuration_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AbstentionConfig(**wrong)
