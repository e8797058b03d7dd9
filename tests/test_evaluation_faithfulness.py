from __future__ import annotations

import math

import numpy as np
import pytest

from resformer.evaluation.faithfulness import (
    area_under_curve,
    rank_correlation,
    replace_by_evidence,
    share_inside,
    structural_similarity,
)


def test_pixels_are_replaced_in_the_order_of_their_evidence() -> None:
    film = np.array([[1.0, 2.0], [3.0, 4.0]])
    evidence = np.array([[0.1, 0.9], [-5.0, 0.5]])
    steps = replace_by_evidence(film, np.zeros((2, 2)), evidence, 4)
    assert steps.dtype == np.float32
    assert steps.tolist() == [
        [[1, 2], [3, 4]],
        [[1, 0], [3, 4]],
        [[1, 0], [3, 0]],
        [[0, 0], [3, 0]],
        [[0, 0], [0, 0]],
    ]


def test_equal_evidence_goes_in_reading_order_and_steps_share_the_pixels() -> None:
    steps = replace_by_evidence(np.ones((2, 5)), np.zeros((2, 5)), np.zeros((2, 5)), 4)
    assert steps.reshape(5, -1).sum(axis=1).tolist() == [10, 8, 5, 2, 0]
    assert steps[1].ravel().tolist() == [0, 0] + [1] * 8


@pytest.mark.parametrize(("shape", "steps"), [((2, 2), 0), ((2, 3), 4)])
def test_a_replacement_needs_equal_shapes_and_a_step(shape: tuple[int, int], steps: int) -> None:
    with pytest.raises(ValueError, match="same shape, and there must be a step"):
        replace_by_evidence(np.ones((2, 2)), np.zeros((2, 2)), np.zeros(shape), steps)


def test_the_area_under_a_curve() -> None:
    assert area_under_curve(np.array([1.0, 0.5, 0.0])) == 0.5
    assert area_under_curve(np.array([1.0, 0.0, 0.0, 0.0, 0.0])) == 0.125
    with pytest.raises(ValueError, match="two values at least"):
        area_under_curve(np.array([1.0]))


def test_the_share_inside_a_mask() -> None:
    evidence = np.array([[3.0, 1.0], [0.0, 4.0]])
    assert share_inside(evidence, np.array([[1.0, 0.0], [1.0, 0.0]])) == 0.375
    assert share_inside(evidence, np.full((2, 2), 0.5)) == 0.5
    assert math.isnan(share_inside(np.zeros((2, 2)), np.ones((2, 2))))


@pytest.mark.parametrize("mask", [np.ones((2, 3)), -np.ones((2, 2))])
def test_a_share_needs_a_mask_of_the_maps_shape(mask: np.ndarray) -> None:
    with pytest.raises(ValueError, match="rectify the evidence"):
        share_inside(np.ones((2, 2)), mask)


def test_the_rank_correlation_sees_order_alone() -> None:
    a = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert rank_correlation(a, np.exp(a)) == pytest.approx(1)
    assert rank_correlation(a, -a) == pytest.approx(-1)
    assert rank_correlation(a, np.array([[2.0, 1.0], [4.0, 3.0]])) == pytest.approx(0.6)
    assert rank_correlation(a, np.array([[1.0, 1.0], [2.0, 2.0]])) == pytest.approx(2 / 5**0.5)
    assert math.isnan(rank_correlation(a, np.zeros((2, 2))))


def test_the_structural_similarity_of_constant_maps_follows_the_formula() -> None:
    low, high = np.full((32, 32), 0.2), np.full((32, 32), 0.8)
    expected = (2 * 0.2 * 0.8 + 1e-4) / (0.2**2 + 0.8**2 + 1e-4)
    assert structural_similarity(low, high) == pytest.approx(expected)


def test_the_structural_similarity_tells_like_from_unlike() -> None:
    generator = np.random.default_rng(0)
    a, b = generator.random((2, 32, 32))
    assert structural_similarity(a, a) == pytest.approx(1)
    assert abs(structural_similarity(a, b)) < 0.1
    assert structural_similarity(a, 1 - a) < -0.5
