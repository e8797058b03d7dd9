"""Checks of the arrays that the evaluation is given, with messages that name the fix.

Percentile bootstrap intervals over images (Efron and Tibshirani, 1993, chapter 13).

A share of films with its Wilson interval (Wilson, JASA 1927).

Classification scores of many weightings of the same images at once.

A bootstrap sample is a vector of how often each image was drawn, so one pass over a matrix of
weights `(S, N)` replaces `S` separate evaluations. The plain evaluation is the weighting by ones,
which keeps the value and its interval in one formula. Undefined values are NaN here.

AUC is the Mann-Whitney statistic with ties counted half (Hanley and McNeil, Radiology 1982).

Temperature scaling: one number that makes the confidence of a trained network honest.

Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 4.2. The
temperature divides the logits, so the predicted class never changes. The search runs over its
logarithm within bounds: a validation set without a single mistake would pull it to zero.

Evaluation of class probabilities against labels, with bootstrap intervals.

Per class, one against the rest: precision, recall (sensitivity), F1, specificity and AUC. Over
all: accuracy, the macro averages and the expected calibration error of the top class. Intervals
are percentile bootstrap intervals over images (Efron and Tibshirani, 1993, chapter 13).

A value that does not exist, such as the AUC of a class without images, is None. Macro averages
run over the classes that have images. The precision of such a class counts as 0 in the average
when the class is never predicted: leaving it out would reward a model for ignoring a class.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp
from scipy.stats import binomtest

# Float32 softmax outputs of a few classes sum to 1 within 1e-6; bfloat16 ones within 1e-2.
_SUM_TOLERANCE = 1e-3


def check_labels(labels: npt.NDArray[Any], classes: int) -> IntArray:
    """Return the labels as int64, or say what is wrong with them.

    Raises:
        ValueError: not `(N,)` whole numbers from 0 to `classes` - 1, or none at all.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.size == 0:
        raise ValueError(f"labels must have the shape (N,) with N >= 1, not {labels.shape}")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be class indices of an integer type, not {labels.dtype}")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"labels must lie between 0 and {classes - 1}, the last of {classes} classes; "
            f"these span {labels.min()} to {labels.max()}"
        )
    return labels.astype(np.int64)


def check_rows(name: str, values: npt.NDArray[Any], count: int) -> FloatArray:
    """Return per-class values as float64, or say what is wrong with them.

    Raises:
        ValueError: not `(N, K)` with `count` rows and K >= 2, or not finite.
    """
    values = np.asarray(values)
    if values.ndim != 2 or values.shape[0] != count or values.shape[1] < 2:
        raise ValueError(
            f"{name} must have the shape (N, K) with N = {count}, one row for each label, "
            f"and K >= 2 classes, not {values.shape}"
        )
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"{name} hold NaN or infinity; look for a diverged training")
    return values


def check_predictions(
    labels: npt.NDArray[Any], probabilities: npt.NDArray[Any], class_names: Sequence[str]
) -> tuple[IntArray, FloatArray]:
    """Return labels `(N,)` and probabilities `(N, K)` ready for the scores.

    Raises:
        ValueError: shapes, label range, class names or probabilities do not fit together.
    """
    checked_labels = check_labels(labels, len(class_names))
    values = check_rows("probabilities", probabilities, checked_labels.size)
    if values.shape[1] != len(class_names):
        raise ValueError(
            f"probabilities have {values.shape[1]} columns but there are {len(class_names)} "
            "class names; give one name for each column"
        )
    if len(set(class_names)) != len(class_names):
        raise ValueError(f"class names must differ from one another: {list(class_names)}")
    if values.min() < 0.0 or np.abs(values.sum(axis=1) - 1.0).max() > _SUM_TOLERANCE:
        raise ValueError(
            "probabilities must be >= 0 and sum to 1 in every row; apply softmax to logits first"
        )
    return checked_labels, values


CONFIDENCE_LEVEL = 0.95

# Bounds the memory of one pass over the bootstrap samples to some 100 MB.
_WEIGHTS_PER_PASS = 2_000_000

Estimate = dict[str, float | None]


def bootstrap_weights(count: int, samples: int, seed: int) -> Iterator[FloatArray]:
    """Yield how often each of `count` images was drawn, `(S, count)`, some samples at a time."""
    generator = np.random.default_rng(seed)
    rows_per_pass = max(1, _WEIGHTS_PER_PASS // count)
    for start in range(0, samples, rows_per_pass):
        rows = min(rows_per_pass, samples - start)
        drawn = generator.integers(0, count, size=(rows, count))
        offsets = np.arange(rows)[:, None] * count
        draws = np.bincount((drawn + offsets).ravel(), minlength=rows * count)
        yield draws.reshape(rows, count).astype(np.float64)


def estimate_from(value: float, drawn: FloatArray) -> Estimate:
    """Return a value with the interval of its bootstrap samples `(S,)`, None where undefined."""
    if np.isnan(value):
        return {"value": None, "low": None, "high": None}
    defined = drawn[~np.isnan(drawn)]
    if defined.size == 0:
        return {"value": value, "low": None, "high": None}
    tail = (1.0 - CONFIDENCE_LEVEL) / 2
    low, high = np.quantile(defined, (tail, 1.0 - tail))
    return {"value": value, "low": float(low), "high": float(high)}


def estimate_mean(
    values: npt.NDArray[np.floating], *, bootstrap: int = 1000, seed: int = 0
) -> Estimate:
    """Return the mean of one figure for each image `(N,)`; images where it is NaN are left out."""
    defined = values[~np.isnan(values)].astype(np.float64)
    if defined.size == 0:
        return {"value": None, "low": None, "high": None}
    drawn = [w @ defined / defined.size for w in bootstrap_weights(defined.size, bootstrap, seed)]
    return estimate_from(float(defined.mean()), np.concatenate(drawn) if drawn else np.empty(0))


def estimate_share(hits: int, count: int) -> Estimate:
    """Return ``hits / count`` with its interval, all None where there is no film.

    Raises:
        ValueError: if there are more hits than films, or fewer than none.
    """
    if not 0 <= hits <= count:
        raise ValueError(f"hits must lie between 0 and the {count} films, got {hits}")
    if count == 0:
        return {"value": None, "low": None, "high": None}
    interval = binomtest(hits, count).proportion_ci(CONFIDENCE_LEVEL, method="wilson")
    return {"value": hits / count, "low": float(interval.low), "high": float(interval.high)}


FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def confusion_matrices(
    labels: IntArray, predicted: IntArray, classes: int, weights: FloatArray
) -> FloatArray:
    """Return the weighted confusion matrices `(S, K, K)`, rows true and columns predicted."""
    cells = np.eye(classes * classes)[labels * classes + predicted]
    counts: FloatArray = weights @ cells
    return counts.reshape(-1, classes, classes)


def roc_auc(positive: npt.NDArray[np.bool_], scores: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the area under the ROC curve for each weighting.

    Args:
        positive: `(N,)`, true where the image is of the class.
        scores: `(N,)`, higher means more of the class.
        weights: `(S, N)`, how often each image counts.

    Returns:
        `(S,)`; NaN where one of the two sides has no weight.
    """
    order = np.argsort(scores, kind="stable")
    new_score = np.diff(scores[order], prepend=-np.inf) > 0
    starts = np.flatnonzero(new_score)
    ordered = weights[:, order]
    inside = np.add.reduceat(ordered * positive[order], starts, axis=1)
    outside = np.add.reduceat(ordered * ~positive[order], starts, axis=1)
    outside_below = np.cumsum(outside, axis=1) - outside / 2
    pairs = inside.sum(axis=1) * outside.sum(axis=1)
    return _ratio((inside * outside_below).sum(axis=1), pairs)


def confidence_bins(confidence: FloatArray, bins: int) -> IntArray:
    """Return the index of the equal-width bin `(m / bins, (m + 1) / bins]` of each confidence."""
    edges = np.linspace(0.0, 1.0, bins + 1)[1:-1]
    return np.digitize(confidence, edges, right=True).astype(np.int64)


def calibration_error(
    labels: IntArray, probabilities: FloatArray, weights: FloatArray, bins: int
) -> FloatArray:
    """Return the expected calibration error `(S,)` of the top class.

    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3.
    """
    confidence = probabilities.max(axis=1)
    surplus = (probabilities.argmax(axis=1) == labels) - confidence
    by_bin = np.eye(bins)[confidence_bins(confidence, bins)] * surplus[:, None]
    error: FloatArray = np.abs(weights @ by_bin).sum(axis=1) / weights.sum(axis=1)
    return error


def class_scores(
    labels: IntArray, probabilities: FloatArray, weights: FloatArray
) -> dict[str, FloatArray]:
    """Return every one-vs-rest score `(S, K)`, the support `(S, K)` and the accuracy `(S,)`."""
    classes = probabilities.shape[1]
    confusion = confusion_matrices(labels, probabilities.argmax(axis=1), classes, weights)
    hits = np.diagonal(confusion, axis1=1, axis2=2)
    support, called = confusion.sum(axis=2), confusion.sum(axis=1)
    total = weights.sum(axis=1, keepdims=True)
    areas = [roc_auc(labels == k, probabilities[:, k], weights) for k in range(classes)]
    return {
        "support": support,
        "accuracy": hits.sum(axis=1) / total[:, 0],
        "precision": _ratio(hits, called),
        "recall": _ratio(hits, support),
        "f1": _ratio(2 * hits, support + called),
        "specificity": _ratio(total - support - called + hits, total - support),
        "auc": np.stack(areas, axis=1),
    }


def macro_average(values: FloatArray, support: FloatArray) -> FloatArray:
    """Return the mean `(S,)` of `values` `(S, K)` over the classes that have images.

    An undefined value is left out; NaN where nothing is left.
    """
    counted = (support > 0) & ~np.isnan(values)
    return _ratio(np.where(counted, values, 0.0).sum(axis=1), counted.sum(axis=1))


def _ratio(numerator: FloatArray, denominator: FloatArray | IntArray) -> FloatArray:
    ratio = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=ratio, where=denominator > 0)
    return ratio


LOWEST_TEMPERATURE = 0.1
HIGHEST_TEMPERATURE = 10.0


def fit_temperature(logits: npt.NDArray[Any], labels: npt.NDArray[Any]) -> float:
    """Return the temperature that minimises the negative log-likelihood of the labels.

    Args:
        logits: `(N, K)` of the validation images, before softmax.
        labels: `(N,)` integer class indices.

    Returns:
        A number within `LOWEST_TEMPERATURE` and `HIGHEST_TEMPERATURE`; above 1 the network was
        too sure of itself.

    Raises:
        ValueError: shapes that do not match, labels out of range, or logits that are not finite.
    """
    scores = check_rows("logits", logits, np.asarray(labels).size)
    targets = check_labels(labels, scores.shape[1])
    true_class = np.arange(targets.size), targets

    def negative_log_likelihood(log_temperature: float) -> float:
        scaled = scores / math.exp(log_temperature)
        return float(np.mean(logsumexp(scaled, axis=1) - scaled[true_class]))

    bounds = (math.log(LOWEST_TEMPERATURE), math.log(HIGHEST_TEMPERATURE))
    found = minimize_scalar(
        negative_log_likelihood, bounds=bounds, method="bounded", options={"xatol": 1e-8}
    )
    return math.exp(found.x)


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
