"""Risk against coverage: exact values, ties, what is withheld, and the picture."""

from __future__ import annotations

import numpy as np
import pytest

from resformer.evaluation.answers import (
    Answers,
    evaluate_abstention,
    plot_risk_coverage,
    risk_curve,
)
from resformer.evaluation.metrics import estimate_share

LABELS = np.array([0, 1, 0, 1])
# Confidence 0.9 right, 0.8 wrong, 0.7 right, 0.6 wrong.
PROBABILITIES = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])


def answers(refused: int | None = None, abstained: int | None = None) -> Answers:
    films = np.arange(4)
    return Answers(PROBABILITIES, films == refused, films == abstained)


def test_the_surest_films_are_answered_first() -> None:
    assert risk_curve(LABELS, PROBABILITIES).tolist() == [0, 1 / 2, 1 / 3, 2 / 4]
    backwards = risk_curve(LABELS[::-1], PROBABILITIES[::-1])
    assert backwards.tolist() == [0, 1 / 2, 1 / 3, 2 / 4]


def test_equally_sure_films_keep_their_order() -> None:
    even = np.full((3, 2), 0.5)
    assert risk_curve(np.array([1, 0, 0]), even).tolist() == [1, 1 / 2, 1 / 3]


def test_coverages_are_rounded_up_to_whole_films() -> None:
    found = evaluate_abstention(LABELS, answers())
    assert found["area"] == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)
    risks = {point["coverage"]: point["risk"] for point in found["risks"]}
    # 0.95, 0.9 and 0.8 of four films are all four, 0.7 is three and 0.5 two.
    assert risks == {1.0: 0.5, 0.95: 0.5, 0.9: 0.5, 0.8: 0.5, 0.7: 1 / 3, 0.5: 0.5}


def test_what_is_refused_or_abstained_from_is_not_shown() -> None:
    found = evaluate_abstention(LABELS, answers(refused=1, abstained=2))
    assert (found["count"], found["refused"], found["abstained"]) == (4, 1, 1)
    assert found["shown"]["value"] == 0.5
    assert found["accuracy_shown"]["value"] == 0.5
    assert found["accuracy_withheld"]["value"] == 0.5
    assert found["wrong_without_warning"]["value"] == 0.25
    everything = evaluate_abstention(LABELS, answers())
    assert everything["accuracy_withheld"]["value"] is None


def test_a_share_has_its_wilson_interval() -> None:
    share = estimate_share(1, 4)
    # Wilson (1927) for 1 of 4 at 95 %.
    assert share == pytest.approx({"value": 0.25, "low": 0.0456, "high": 0.6994}, abs=1e-4)
    assert estimate_share(0, 0) == {"value": None, "low": None, "high": None}
    with pytest.raises(ValueError, match="hits must lie between 0 and the 2 films, got 3"):
        estimate_share(3, 2)


def test_the_curve_and_the_shipped_model_are_drawn() -> None:
    (axes,) = plot_risk_coverage(LABELS, answers(refused=3)).axes
    curve, shipped = axes.lines
    assert np.asarray(curve.get_xydata()).tolist() == [
        [0.25, 0.0],
        [0.5, 0.5],
        [0.75, 1 / 3],
        [1.0, 0.5],
    ]
    (point,) = np.asarray(shipped.get_xydata()).tolist()
    assert point == pytest.approx([0.75, 1 / 3])
