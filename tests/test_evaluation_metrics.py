"""Scores, intervals, calibration, risk against coverage, and measures of evidence maps."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import norm
from sklearn.metrics import accuracy_score, precision_recall_fscore_support, roc_auc_score

from benchmarks.evidence import replace_by_evidence, share_inside
from resformer.evaluation import metrics
from resformer.evaluation.metrics import (
    Mistake,
    class_scores,
    confidence_bins,
    estimate_mean,
    estimate_share,
    evaluate_predictions,
    risk_curve,
    worst_mistakes,
)
from resformer.evaluation.predictions import Predictions, dice_of_lungs, evaluate_abstention
from resformer.evaluation.tables import class_table, format_estimate, overall_table

NAMES = ("A", "B", "C")
LABELS = np.array([0, 0, 0, 1, 1, 2])
PREDICTED = np.array([0, 0, 1, 1, 2, 2])
PROBABILITIES = np.eye(3)[PREDICTED] * 0.7 + 0.1


def random_predictions(
    count: int, classes: int, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, count)
    odds = np.exp(generator.normal(size=(count, classes)) + np.eye(classes)[labels])
    return labels, odds / odds.sum(axis=1, keepdims=True)


def values(report: dict[str, Any], metric: str) -> list[float | None]:
    return [report["per_class"][name][metric]["value"] for name in report["class_names"]]


def test_values_worked_out_by_hand() -> None:
    report = evaluate_predictions(LABELS, PROBABILITIES, NAMES)
    assert report["count"] == 6
    assert report["confusion_matrix"] == [[2, 1, 0], [0, 1, 1], [0, 0, 1]]
    assert [report["per_class"][name]["support"] for name in NAMES] == [3, 2, 1]
    assert report["accuracy"]["value"] == pytest.approx(4 / 6)
    assert values(report, "precision") == pytest.approx([1, 1 / 2, 1 / 2])
    assert values(report, "recall") == pytest.approx([2 / 3, 1 / 2, 1])
    assert values(report, "f1") == pytest.approx([4 / 5, 1 / 2, 2 / 3])
    assert values(report, "specificity") == pytest.approx([1, 3 / 4, 4 / 5])
    # Two scores only, so the AUC is the mean of recall and specificity.
    assert values(report, "auc") == pytest.approx([5 / 6, 5 / 8, 9 / 10])
    assert report["macro_precision"]["value"] == pytest.approx(2 / 3)
    assert report["macro_recall"]["value"] == pytest.approx(13 / 18)
    assert report["macro_f1"]["value"] == pytest.approx(59 / 90)
    assert report["macro_specificity"]["value"] == pytest.approx(0.85)
    assert report["macro_auc"]["value"] == pytest.approx((5 / 6 + 5 / 8 + 9 / 10) / 3)
    # Four of six are right at a confidence of 0.8.
    assert report["expected_calibration_error"]["value"] == pytest.approx(0.8 - 4 / 6)
    assert report["bootstrap"] == {"samples": 1000, "seed": 0, "confidence": 0.95}


def test_calibration_error_averages_the_gap_of_each_bin() -> None:
    top = np.array([0.9, 0.9, 0.7, 0.7])
    report = evaluate_predictions(
        np.array([0, 1, 0, 0]), np.stack([top, 1 - top], axis=1), ("no", "yes"), bootstrap=0
    )
    # |1/2 - 0.9| and |1 - 0.7|, two images each.
    assert report["expected_calibration_error"]["value"] == pytest.approx(0.35)


def test_a_confidence_on_an_edge_belongs_to_the_bin_below() -> None:
    assert confidence_bins(np.array([0.3, 0.5, 0.51, 1.0]), 2).tolist() == [0, 0, 1, 1]


def test_weighted_scores_equal_scikit_learn_on_the_resampled_images() -> None:
    labels, probabilities = random_predictions(80, 4, seed=1)
    probabilities = probabilities.round(1) + 0.25  # Ties.
    counts = np.random.default_rng(2).integers(0, 3, size=(5, 80))
    found = class_scores(labels, probabilities, counts.astype(float))
    for row, count in enumerate(counts):
        true, given = np.repeat(labels, count), np.repeat(probabilities, count, axis=0)
        predicted = given.argmax(axis=1)
        expected = precision_recall_fscore_support(true, predicted, labels=range(4))
        for name, value in zip(("precision", "recall", "f1", "support"), expected, strict=True):
            np.testing.assert_allclose(found[name][row], value)
        areas = [roc_auc_score(true == k, given[:, k]) for k in range(4)]
        np.testing.assert_allclose(found["auc"][row], areas)
        negatives = [predicted[true != k] != k for k in range(4)]
        np.testing.assert_allclose(found["specificity"][row], [n.mean() for n in negatives])
        assert found["accuracy"][row] == pytest.approx(accuracy_score(true, predicted))


def test_what_does_not_exist_is_none_and_the_rest_stands() -> None:
    # Class B has no images; C is never predicted; no warning may come of either.
    labels, predicted = np.array([0, 0, 2, 2]), np.array([0, 1, 0, 0])
    report = evaluate_predictions(labels, np.eye(3)[predicted], NAMES, bootstrap=50)
    assert values(report, "recall") == [0.5, None, 0.0]
    assert values(report, "precision") == pytest.approx([1 / 3, 0.0, None])
    assert values(report, "auc") == [0.25, None, 0.5]
    assert report["per_class"]["B"]["auc"] == {"value": None, "low": None, "high": None}
    assert report["macro_recall"]["value"] == 0.25
    assert report["macro_precision"]["value"] == pytest.approx(1 / 6)
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_only_one_class_has_images() -> None:
    report = evaluate_predictions(np.zeros(3, dtype=int), np.eye(2)[[0, 0, 1]], ("A", "B"))
    assert report["macro_auc"]["value"] is None
    assert report["macro_specificity"]["value"] is None
    assert values(report, "specificity") == [None, 2 / 3]
    assert report["macro_recall"]["value"] == pytest.approx(2 / 3)


def test_the_seed_decides_the_intervals_and_the_pass_size_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    labels, probabilities = random_predictions(60, 3, seed=3)
    first = evaluate_predictions(labels, probabilities, NAMES, bootstrap=100, seed=1)
    other = evaluate_predictions(labels, probabilities, NAMES, bootstrap=100, seed=2)
    assert first["accuracy"]["value"] == other["accuracy"]["value"]
    assert first["macro_auc"]["low"] != other["macro_auc"]["low"]
    monkeypatch.setattr(metrics, "_WEIGHTS_PER_PASS", 60 * 7)
    again = evaluate_predictions(labels, probabilities, NAMES, bootstrap=100, seed=1)
    assert again["confusion_matrix"] == first["confusion_matrix"]
    for name in ("accuracy", "macro_f1", "macro_auc", "expected_calibration_error"):
        assert again[name] == pytest.approx(first[name])


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    generator = np.random.default_rng(4)
    truth = {"accuracy": norm.cdf(0.5), "macro_auc": norm.cdf(np.sqrt(0.5))}
    held = dict.fromkeys(truth, 0)
    for repeat in range(200):
        labels = generator.integers(0, 2, 200)
        yes = 1 / (1 + np.exp(-generator.normal(labels - 0.5)))
        report = evaluate_predictions(
            labels, np.stack([1 - yes, yes], axis=1), ("no", "yes"), bootstrap=200, seed=repeat
        )
        for name, value in truth.items():
            held[name] += report[name]["low"] <= value <= report[name]["high"]
    # 95 % of 200 give 190, with a standard deviation of 3.
    assert all(180 <= count <= 198 for count in held.values()), held


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.array([0, 0, 0, 1, 1, 3])}, "between 0 and 2"),
        ({"labels": np.array([0, 0, 0, 1, 1, -1])}, "between 0 and 2"),
        ({"labels": LABELS.astype(float)}, "integer type"),
        ({"labels": LABELS[None]}, r"shape \(N,\)"),
        ({"labels": LABELS[:0]}, "N >= 1"),
        ({"labels": LABELS[:5]}, "one row for each label"),
        ({"probabilities": PROBABILITIES[:, 0]}, r"shape \(N, K\)"),
        ({"probabilities": PROBABILITIES * 2}, "softmax"),
        ({"probabilities": PROBABILITIES - np.array([0.2, -0.1, -0.1])}, "softmax"),
        ({"probabilities": PROBABILITIES * np.nan}, "NaN"),
        ({"class_names": ("A", "B", "C", "D")}, "3 columns but there are 4"),
        ({"class_names": ("A", "B", "B")}, "differ"),
        ({"bootstrap": -1}, "bootstrap must be 0"),
    ],
)
def test_bad_arguments_are_named(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "labels": LABELS,
        "probabilities": PROBABILITIES,
        "class_names": NAMES,
    }
    with pytest.raises(ValueError, match=message):
        evaluate_predictions(**(arguments | change))


def test_a_mean_leaves_out_what_is_undefined() -> None:
    values = np.array([1.0, np.nan, 3.0])
    mean = estimate_mean(values, bootstrap=200)
    assert mean == {"value": 2.0, "low": 1.0, "high": 3.0}
    assert estimate_mean(values, bootstrap=0) == {"value": 2.0, "low": None, "high": None}
    nothing = estimate_mean(np.array([np.nan]))
    assert nothing == {"value": None, "low": None, "high": None}


def test_the_dice_of_lungs_is_twice_the_overlap_over_both() -> None:
    masks = np.zeros((2, 64, 64), np.uint8)
    masks[:, :, :32] = 255
    lungs = np.zeros((2, 16, 16), np.float32)
    lungs[0, :, :8] = 0.9
    lungs[1, :, 4:12] = 0.9
    assert dice_of_lungs(lungs, masks) == pytest.approx((1 + 0.5) / 2)


# Confidence 0.9 right, 0.8 wrong, 0.7 right, 0.6 wrong.
SURE_LABELS = np.array([0, 1, 0, 1])
SURE = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])


def test_the_surest_films_are_answered_first_and_equally_sure_ones_keep_their_order() -> None:
    assert risk_curve(SURE_LABELS, SURE).tolist() == [0, 1 / 2, 1 / 3, 2 / 4]
    assert risk_curve(SURE_LABELS[::-1], SURE[::-1]).tolist() == [0, 1 / 2, 1 / 3, 2 / 4]
    even = np.full((3, 2), 0.5)
    assert risk_curve(np.array([1, 0, 0]), even).tolist() == [1, 1 / 2, 1 / 3]


def test_what_is_refused_or_abstained_from_is_not_shown() -> None:
    films = np.arange(4)
    found = evaluate_abstention(SURE_LABELS, Predictions(SURE, films == 1, films == 2))
    assert (found["count"], found["refused"], found["abstained"]) == (4, 1, 1)
    for name, value in {"shown": 0.5, "accuracy_shown": 0.5, "accuracy_withheld": 0.5}.items():
        assert found[name]["value"] == value
    assert found["wrong_without_warning"]["value"] == 0.25
    everything = evaluate_abstention(SURE_LABELS, Predictions(SURE, films < 0, films < 0))
    assert everything["accuracy_withheld"]["value"] is None
    assert everything["area"] == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)
    # 0.95, 0.9 and 0.8 of four films are all four, 0.7 is three and 0.5 two.
    risks = {point["coverage"]: point["risk"] for point in everything["risks"]}
    assert risks == {1.0: 0.5, 0.95: 0.5, 0.9: 0.5, 0.8: 0.5, 0.7: 1 / 3, 0.5: 0.5}


def test_a_share_has_its_wilson_interval() -> None:
    # Wilson (1927) for 1 of 4 at 95 %.
    expected = {"value": 0.25, "low": 0.0456, "high": 0.6994}
    assert estimate_share(1, 4) == pytest.approx(expected, abs=1e-4)
    assert estimate_share(0, 0) == {"value": None, "low": None, "high": None}
    with pytest.raises(ValueError, match="hits must lie between 0 and the 2 films, got 3"):
        estimate_share(3, 2)


def test_an_estimate_reads_as_a_value_and_its_interval() -> None:
    estimate = {"value": 0.9126, "low": 0.8714, "high": 1.0}
    assert format_estimate(estimate) == "0.913 (0.871 to 1.000)"
    assert format_estimate({"value": 0.5, "low": None, "high": None}) == "0.500"


def test_the_tables_hold_the_scores_of_the_report() -> None:
    report = evaluate_predictions(LABELS, PROBABILITIES, (*NAMES[:2], "C"), bootstrap=0)
    overall = overall_table(report)
    assert overall["macro_recall"] == "0.722"
    assert list(overall)[-1] == "expected_calibration_error"
    row = {"precision": "1.000", "recall": "0.667", "f1": "0.800", "specificity": "1.000"}
    assert class_table(report)["A"] == {"support": 3, **row, "auc": "0.833"}
    nobody = evaluate_predictions(LABELS[:5], PROBABILITIES[:5], NAMES, bootstrap=0)
    assert class_table(nobody)["C"]["recall"] == "undefined"


def test_the_worst_mistake_is_the_one_whose_label_was_least_probable() -> None:
    paths = ("a.png", "b.png", "c.png", "d.png")
    labels = np.array([0, 0, 1, 1])
    given = np.array([[0.9, 0.1, 0], [0.25, 0.5, 0.25], [0.75, 0.125, 0.125], [0, 1, 0]])
    expected = [Mistake("c.png", "B", "A", 0.75, 0.125), Mistake("b.png", "A", "B", 0.5, 0.25)]
    assert worst_mistakes(paths, labels, given, NAMES) == expected
    assert worst_mistakes(paths, labels, given, NAMES, count=1) == expected[:1]
    assert worst_mistakes(paths[:2], labels[[0, 2]], np.eye(3)[:2], NAMES) == []
    with pytest.raises(ValueError, match="3 paths, 4 films"):
        worst_mistakes(paths[:3], labels, given, NAMES)


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


def test_the_share_inside_a_mask() -> None:
    evidence = np.array([[3.0, 1.0], [0.0, 4.0]])
    assert share_inside(evidence, np.array([[1.0, 0.0], [1.0, 0.0]])) == 0.375
    assert share_inside(evidence, np.full((2, 2), 0.5)) == 0.5
    assert math.isnan(share_inside(np.zeros((2, 2)), np.ones((2, 2))))
