from __future__ import annotations

import numpy as np
import pytest

from resformer.evaluation.metrics import evaluate_predictions
from resformer.evaluation.report import (
    Mistake,
    class_table,
    format_estimate,
    overall_table,
    worst_mistakes,
)

NAMES = ("COVID", "Normal", "Viral Pneumonia")
PATHS = ("a.png", "b.png", "c.png", "d.png")
LABELS = np.array([0, 0, 1, 1])
PROBABILITIES = np.array([[0.9, 0.1, 0], [0.25, 0.5, 0.25], [0.75, 0.125, 0.125], [0, 1, 0]])


def test_an_estimate_reads_as_a_value_and_its_interval() -> None:
    assert format_estimate({"value": 0.9126, "low": 0.8714, "high": 1.0}) == (
        "0.913 (0.871 to 1.000)"
    )
    assert format_estimate({"value": 0.5, "low": None, "high": None}) == "0.500"
    assert format_estimate({"value": None, "low": None, "high": None}) == "undefined"


def test_the_tables_hold_the_scores_of_the_report() -> None:
    report = evaluate_predictions(LABELS, PROBABILITIES, NAMES, bootstrap=0)
    overall = overall_table(report)
    assert overall["accuracy"] == "0.500"
    assert overall["macro_f1"] == "0.500"
    assert list(overall)[-1] == "expected_calibration_error"
    by_class = class_table(report)
    assert list(by_class) == list(NAMES)
    assert by_class["COVID"] == {
        "support": 2,
        "precision": "0.500",
        "recall": "0.500",
        "f1": "0.500",
        "specificity": "0.500",
        "auc": "0.750",
    }
    assert by_class["Viral Pneumonia"]["support"] == 0
    assert by_class["Viral Pneumonia"]["recall"] == "undefined"


def test_the_worst_mistake_is_the_one_whose_label_was_least_probable() -> None:
    expected = [
        Mistake("c.png", "Normal", "COVID", 0.75, 0.125),
        Mistake("b.png", "COVID", "Normal", 0.5, 0.25),
    ]
    assert worst_mistakes(PATHS, LABELS, PROBABILITIES, NAMES) == expected
    assert worst_mistakes(PATHS, LABELS, PROBABILITIES, NAMES, count=1) == expected[:1]


def test_a_network_without_mistakes_has_no_worst() -> None:
    assert worst_mistakes(PATHS[:2], LABELS[[0, 2]], np.eye(3)[:2], NAMES) == []


def test_every_film_needs_its_path() -> None:
    with pytest.raises(ValueError, match="3 paths, 4 films"):
        worst_mistakes(PATHS[:3], LABELS, PROBABILITIES, NAMES)
