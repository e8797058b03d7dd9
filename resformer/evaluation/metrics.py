"""Evaluation of class probabilities against labels, with bootstrap intervals.

Per class, one against the rest: precision, recall (sensitivity), F1, specificity and AUC. Over
all: accuracy, the macro averages and the expected calibration error of the top class. Intervals
are percentile bootstrap intervals over images (Efron and Tibshirani, 1993, chapter 13).

A value that does not exist, such as the AUC of a class without images, is None. Macro averages
run over the classes that have images. The precision of such a class counts as 0 in the average
when the class is never predicted: leaving it out would reward a model for ignoring a class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from resformer.evaluation.bootstrap import (
    CONFIDENCE_LEVEL,
    Estimate,
    bootstrap_weights,
    estimate_from,
)
from resformer.evaluation.checks import check_predictions
from resformer.evaluation.scores import (
    FloatArray,
    IntArray,
    calibration_error,
    class_scores,
    confusion_matrices,
    macro_average,
)

CALIBRATION_BINS = 15
CLASS_METRICS = ("precision", "recall", "f1", "specificity", "auc")


def evaluate_predictions(
    labels: npt.NDArray[Any],
    probabilities: npt.NDArray[Any],
    class_names: Sequence[str],
    *,
    bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Return the evaluation report as plain data that `json` can write.

    Args:
        labels: `(N,)` integer class indices.
        probabilities: `(N, K)`, each row sums to 1.
        class_names: the K class names, in column order.
        bootstrap: number of bootstrap samples; 0 leaves the intervals None.
        seed: seed of the bootstrap.

    Returns:
        `count`, `class_names`, `confusion_matrix` (rows true, columns predicted), `bootstrap`
        (`samples`, `seed`, `confidence`), and estimates `{"value", "low", "high"}`: `accuracy`,
        `macro_precision`, `macro_recall`, `macro_f1`, `macro_specificity`, `macro_auc`,
        `expected_calibration_error`, and under `per_class`, by name beside `support`, each of
        `CLASS_METRICS`. Resampling adds noise to every bin of the calibration error, so its
        interval leans upwards and may lie above the value in small sets.

    Raises:
        ValueError: an argument has a wrong shape, type or range; the message names the fix.
    """
    names = list(class_names)
    checked_labels, checked = check_predictions(labels, probabilities, names)
    if bootstrap < 0:
        raise ValueError(f"bootstrap must be 0 (no intervals) or more samples, not {bootstrap}")
    count = checked_labels.size
    values = _scores(checked_labels, checked, np.ones((1, count)))
    samples = [
        _scores(checked_labels, checked, weights)
        for weights in bootstrap_weights(count, bootstrap, seed)
    ]
    estimates = {
        name: _estimates(value[0], [sample[name] for sample in samples])
        for name, value in values.items()
    }
    confusion = confusion_matrices(
        checked_labels, checked.argmax(axis=1), len(names), np.ones((1, count))
    )[0].astype(np.int64)
    overall = {name: found[0] for name, found in estimates.items() if name not in CLASS_METRICS}
    per_class = {
        name: {"support": int(confusion[k].sum())} | {m: estimates[m][k] for m in CLASS_METRICS}
        for k, name in enumerate(names)
    }
    return {
        "count": int(count),
        **overall,
        "per_class": per_class,
        "confusion_matrix": confusion.tolist(),
        "class_names": names,
        "bootstrap": {"samples": bootstrap, "seed": seed, "confidence": CONFIDENCE_LEVEL},
    }


def _scores(
    labels: IntArray, probabilities: FloatArray, weights: FloatArray
) -> dict[str, FloatArray]:
    """Return the overall scores `(S,)` and the class scores `(S, K)` of each weighting."""
    scores = class_scores(labels, probabilities, weights)
    support = scores.pop("support")
    averaged = scores | {"precision": np.nan_to_num(scores["precision"], nan=0.0)}
    macro = {f"macro_{name}": macro_average(averaged[name], support) for name in CLASS_METRICS}
    error = calibration_error(labels, probabilities, weights, CALIBRATION_BINS)
    return scores | macro | {"expected_calibration_error": error}


def _estimates(value: FloatArray, samples: Sequence[FloatArray]) -> list[Estimate]:
    """Return one estimate for each entry of `value` (a scalar or `(K,)`)."""
    values = np.atleast_1d(value)
    drawn = np.concatenate(samples) if samples else np.empty((0, values.size))
    columns = drawn.reshape(-1, values.size).T
    return [estimate_from(float(v), column) for v, column in zip(values, columns, strict=True)]
