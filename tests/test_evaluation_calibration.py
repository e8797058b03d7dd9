from __future__ import annotations

import numpy as np
import pytest

from resformer.evaluation.metrics import HIGHEST_TEMPERATURE, LOWEST_TEMPERATURE, fit_temperature

# Three of four are class 0, just as a softmax of (0.75, 0.25) says.
CALIBRATED = np.log(np.array([[0.75, 0.25]] * 4))
LABELS = np.array([0, 0, 0, 1])


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_finds_the_factor_that_calibrated_logits_were_scaled_by(scale: float) -> None:
    assert fit_temperature(CALIBRATED * scale, LABELS) == pytest.approx(scale, rel=1e-5)


def test_a_constant_added_to_a_row_changes_nothing() -> None:
    shifted = CALIBRATED * 3 + np.array([[1000.0], [-1000.0], [5.0], [0.0]])
    assert fit_temperature(shifted, LABELS) == pytest.approx(3.0, rel=1e-5)


def test_no_mistake_or_only_mistakes_end_at_the_bounds() -> None:
    right = np.zeros(4, dtype=int)
    assert fit_temperature(CALIBRATED, right) == pytest.approx(LOWEST_TEMPERATURE, rel=1e-3)
    assert fit_temperature(CALIBRATED, 1 - right) == pytest.approx(HIGHEST_TEMPERATURE, rel=1e-3)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"logits must have the shape \(N, K\)"):
        fit_temperature(CALIBRATED[0], LABELS)
    with pytest.raises(ValueError, match="one row for each label"):
        fit_temperature(CALIBRATED, LABELS[:3])
    with pytest.raises(ValueError, match="between 0 and 1"):
        fit_temperature(CALIBRATED, LABELS + 1)
    with pytest.raises(ValueError, match="NaN or infinity"):
        fit_temperature(CALIBRATED * np.inf, LABELS)
