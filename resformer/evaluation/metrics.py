"""Scores of class probabilities against labels, with intervals; risk and coverage.

Per class, one against the rest: precision, recall (sensitivity), F1, specificity and AUC. Over
all: accuracy, the macro averages and the expected calibration error (ECE) of the top class
(Guo et al., "On Calibration of Modern Neural Networks", ICML 2017). AUC is the Mann-Whitney
statistic with ties counted half (Hanley and McNeil, Radiology 1982). Intervals are percentile
bootstrap intervals over images (Efron and Tibshirani, 1993, chapter 13); a share of films has its
Wilson interval (Wilson, JASA 1927).

A bootstrap sample is a vector of how often each image was drawn, so that one pass over a matrix of
weights ``(S, N)`` scores ``S`` samples at once, which scikit-learn cannot; tests compare the scores
with scikit-learn's. The plain evaluation is the weighting by ones. Undefined values are NaN inside
and None in a report. Macro averages run over the classes that have images; the precision of such a
class counts as 0 where it is never predicted, for leaving it out would reward ignoring a class.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Estimate = dict[str, float | None]

CLASS_METRICS = ("precision", "recall", "f1", "specificity", "auc")
CALIBRATION_BINS = 15
CONFIDENCE_LEVEL = 0.95

# Float32 softmax outputs of a few classes sum to 1 within 1e-6; bfloat16 ones within 1e-2.
_SUM_TOLERANCE = 1e-3
# Bounds the memory of one pass over the bootstrap samples to some 100 MB.
_WEIGHTS_PER_PASS = 2_000_000


def evaluate_predictions(
    labels: npt.NDArray[Any],
    probabilities: npt.NDArray[Any],
    class_names: Sequence[str],
    *,
    bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Return every score with its interval, as plain data that ``json`` can write.

    Args:
        labels: ``(N,)`` integer class indices.
        probabilities: ``(N, K)``, each row sums to 1.
        class_names: the K class names, in column order.
        bootstrap: number of bootstrap samples; 0 leaves the intervals None.
        seed: seed of the bootstrap.

    Returns:
        ``count``, ``class_names``, ``confusion_matrix`` (rows true, columns predicted),
        ``bootstrap`` (``samples``, ``seed``, ``confidence``), and estimates ``{"value", "low",
        "high"}``: ``accuracy``, ``macro_precision``, ``macro_recall``, ``macro_f1``,
        ``macro_specificity``, ``macro_auc``, ``expected_calibration_error``, and under
        ``per_class``, by name beside ``support``, each of ``CLASS_METRICS``. Resampling adds noise
        to every bin of the calibration error, so its interval leans upwards and may lie above the
        value in small sets.

    Raises:
        ValueError: if an argument has a wrong shape, type or range; the message names the fix.
    """
    names = list(class_names)
    labels, probabilities = check_predictions(labels, probabilities, names)
    if bootstrap < 0:
        raise ValueError(f"bootstrap must be 0 (no intervals) or more samples, not {bootstrap}")
    once = np.ones((1, labels.size))
    values = _scores(labels, probabilities, once)
    samples = [
        _scores(labels, probabilities, weights)
        for weights in bootstrap_weights(labels.size, bootstrap, seed)
    ]
    estimates = {
        name: _estimates(value[0], [sample[name] for sample in samples])
        for name, value in values.items()
    }
    predicted = probabilities.argmax(axis=1)
    confusion = confusion_matrices(labels, predicted, len(names), once)[0].astype(np.int64)
    overall = {name: found[0] for name, found in estimates.items() if name not in CLASS_METRICS}
    per_class = {
        name: {"support": int(confusion[k].sum())} | {m: estimates[m][k] for m in CLASS_METRICS}
        for k, name in enumerate(names)
    }
    return {
        "count": int(labels.size),
        **overall,
        "per_class": per_class,
        "confusion_matrix": confusion.tolist(),
        "class_names": names,
        "bootstrap": {"samples": bootstrap, "seed": seed, "confidence": CONFIDENCE_LEVEL},
    }


def _scores(
    labels: IntArray, probabilities: FloatArray, weights: FloatArray
) -> dict[str, FloatArray]:
    """Return the overall scores ``(S,)`` and the class scores ``(S, K)`` of each weighting."""
    scores = class_scores(labels, probabilities, weights)
    support = scores.pop("support")
    averaged = scores | {"precision": np.nan_to_num(scores["precision"], nan=0.0)}
    macro = {f"macro_{name}": _macro_average(averaged[name], support) for name in CLASS_METRICS}
    error = calibration_error(labels, probabilities, weights)
    return scores | macro | {"expected_calibration_error": error}


def _estimates(value: FloatArray, samples: Sequence[FloatArray]) -> list[Estimate]:
    """Return one estimate for each entry of ``value`` (a scalar or ``(K,)``)."""
    values = np.atleast_1d(value)
    drawn = np.concatenate(samples) if samples else np.empty((0, values.size))
    columns = drawn.reshape(-1, values.size).T
    return [estimate_from(float(v), column) for v, column in zip(values, columns, strict=True)]


def check_predictions(
    labels: npt.NDArray[Any], probabilities: npt.NDArray[Any], class_names: Sequence[str]
) -> tuple[IntArray, FloatArray]:
    """Return labels ``(N,)`` and probabilities ``(N, K)`` ready for the scores.

    Raises:
        ValueError: if shapes, label range, class names or probabilities do not fit together.
    """
    labels, values, classes = np.asarray(labels), np.asarray(probabilities), len(class_names)
    if labels.ndim != 1 or labels.size == 0:
        raise ValueError(f"labels must have the shape (N,) with N >= 1, not {labels.shape}")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be class indices of an integer type, not {labels.dtype}")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"labels must lie between 0 and {classes - 1}, the last of {classes} classes; "
            f"these span {labels.min()} to {labels.max()}"
        )
    if values.ndim != 2 or len(values) != labels.size or values.shape[1] < 2:
        raise ValueError(
            f"probabilities must have the shape (N, K) with N = {labels.size}, one row for each "
            f"label, and K >= 2 classes, not {values.shape}"
        )
    if values.shape[1] != classes:
        raise ValueError(
            f"probabilities have {values.shape[1]} columns but there are {classes} class names; "
            "give one name for each column"
        )
    if len(set(class_names)) != classes:
        raise ValueError(f"class names must differ from one another: {list(class_names)}")
    if not np.isfinite(values).all():
        raise ValueError("probabilities hold NaN or infinity; look for a diverged training")
    values = values.astype(np.float64)
    if values.min() < 0.0 or np.abs(values.sum(axis=1) - 1.0).max() > _SUM_TOLERANCE:
        raise ValueError(
            "probabilities must be >= 0 and sum to 1 in every row; apply softmax to logits first"
        )
    return labels.astype(np.int64), values


def class_scores(
    labels: IntArray, probabilities: FloatArray, weights: FloatArray
) -> dict[str, FloatArray]:
    """Return every one-vs-rest score ``(S, K)``, the support ``(S, K)``, the accuracy ``(S,)``."""
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


def confusion_matrices(
    labels: IntArray, predicted: IntArray, classes: int, weights: FloatArray
) -> FloatArray:
    """Return the weighted confusion matrices ``(S, K, K)``, rows true and columns predicted."""
    cells = np.eye(classes * classes)[labels * classes + predicted]
    counts: FloatArray = weights @ cells
    return counts.reshape(-1, classes, classes)


def roc_auc(positive: npt.NDArray[np.bool_], scores: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the area under the ROC curve for each weighting.

    Args:
        positive: ``(N,)``, true where the image is of the class.
        scores: ``(N,)``, higher means more of the class.
        weights: ``(S, N)``, how often each image counts.

    Returns:
        ``(S,)``; NaN where one of the two sides has no weight.
    """
    # One sort serves all weightings: each positive beats the negatives of all lower scores, and
    # half of those of its own score.
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf) > 0)
    ordered = weights[:, order]
    inside = np.add.reduceat(ordered * positive[order], starts, axis=1)
    outside = np.add.reduceat(ordered * ~positive[order], starts, axis=1)
    outside_below = np.cumsum(outside, axis=1) - outside / 2
    pairs = inside.sum(axis=1) * outside.sum(axis=1)
    return _ratio((inside * outside_below).sum(axis=1), pairs)


def estimate_auc(
    positive: npt.NDArray[np.bool_], scores: FloatArray, *, bootstrap: int = 1000
) -> Estimate:
    """Return the area under the ROC curve with its bootstrap interval; None without two sides."""
    if positive.all() or not positive.any():
        return {"value": None, "low": None, "high": None}
    value = roc_auc(positive, scores, np.ones((1, positive.size)))[0]
    samples = [
        roc_auc(positive, scores, weights)
        for weights in bootstrap_weights(positive.size, bootstrap)
    ]
    return estimate_from(float(value), np.concatenate(samples) if samples else np.empty(0))


def confidence_bins(confidence: FloatArray, bins: int = CALIBRATION_BINS) -> IntArray:
    """Return the index of the equal-width bin ``(m / bins, (m + 1) / bins]`` of each confidence."""
    edges = np.linspace(0.0, 1.0, bins + 1)[1:-1]
    return np.digitize(confidence, edges, right=True).astype(np.int64)


def calibration_error(
    labels: IntArray, probabilities: FloatArray, weights: FloatArray
) -> FloatArray:
    """Return the expected calibration error ``(S,)`` of the top class (Guo et al., equation 3)."""
    confidence = probabilities.max(axis=1)
    surplus = (probabilities.argmax(axis=1) == labels) - confidence
    by_bin = np.eye(CALIBRATION_BINS)[confidence_bins(confidence)] * surplus[:, None]
    error: FloatArray = np.abs(weights @ by_bin).sum(axis=1) / weights.sum(axis=1)
    return error


def _macro_average(values: FloatArray, support: FloatArray) -> FloatArray:
    counted = (support > 0) & ~np.isnan(values)
    return _ratio(np.where(counted, values, 0.0).sum(axis=1), counted.sum(axis=1))


def _ratio(numerator: FloatArray, denominator: FloatArray | IntArray) -> FloatArray:
    ratio = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=ratio, where=denominator > 0)
    return ratio


def bootstrap_weights(count: int, samples: int, seed: int = 0) -> Iterator[FloatArray]:
    """Yield how often each of ``count`` images was drawn, ``(S, count)``, some rows at a time."""
    generator = np.random.default_rng(seed)
    rows_per_pass = max(1, _WEIGHTS_PER_PASS // count)
    for start in range(0, samples, rows_per_pass):
        rows = min(rows_per_pass, samples - start)
        drawn = generator.integers(0, count, size=(rows, count))
        offsets = np.arange(rows)[:, None] * count
        draws = np.bincount((drawn + offsets).ravel(), minlength=rows * count)
        yield draws.reshape(rows, count).astype(np.float64)


def estimate_from(value: float, drawn: FloatArray) -> Estimate:
    """Return a value with the interval of its bootstrap samples ``(S,)``, None where undefined."""
    if np.isnan(value):
        return {"value": None, "low": None, "high": None}
    defined = drawn[~np.isnan(drawn)]
    if defined.size == 0:
        return {"value": value, "low": None, "high": None}
    tail = (1.0 - CONFIDENCE_LEVEL) / 2
    low, high = np.quantile(defined, (tail, 1.0 - tail))
    return {"value": value, "low": float(low), "high": float(high)}


def estimate_mean(values: npt.NDArray[np.floating], *, bootstrap: int = 1000) -> Estimate:
    """Return the mean of one figure for each image ``(N,)``, leaving out those where it is NaN."""
    defined = values[~np.isnan(values)].astype(np.float64)
    if defined.size == 0:
        return {"value": None, "low": None, "high": None}
    drawn = [w @ defined / defined.size for w in bootstrap_weights(defined.size, bootstrap)]
    return estimate_from(float(defined.mean()), np.concatenate(drawn) if drawn else np.empty(0))


def estimate_share(hits: int, count: int) -> Estimate:
    """Return ``hits / count`` with its Wilson interval, all None where there is no film.

    Raises:
        ValueError: if there are more hits than films, or fewer than none.
    """
    from scipy.stats import binomtest  # takes a second, and the page that shows goals needs none

    if not 0 <= hits <= count:
        raise ValueError(f"hits must lie between 0 and the {count} films, got {hits}")
    if count == 0:
        return {"value": None, "low": None, "high": None}
    interval = binomtest(hits, count).proportion_ci(CONFIDENCE_LEVEL, method="wilson")
    return {"value": hits / count, "low": float(interval.low), "high": float(interval.high)}


def risk_curve(labels: npt.NDArray[Any], probabilities: npt.NDArray[Any]) -> FloatArray:
    """Return the risk, the share of answers that are wrong, at the coverages 1/N, 2/N, ..., 1.

    The surest share of the films is answered, the others withheld (El-Yaniv and Wiener, JMLR 2010;
    Geifman and El-Yaniv, NeurIPS 2017); equally sure films keep their order. Labels ``(N,)`` and
    probabilities ``(N, K)`` give risks ``(N,)``.

    Raises:
        ValueError: if the arguments do not fit together.
    """
    columns = [str(k) for k in range(np.shape(probabilities)[-1])]
    labels, probabilities = check_predictions(labels, probabilities, columns)
    order = np.argsort(-probabilities.max(axis=1), kind="stable")
    wrong = (probabilities.argmax(axis=1) != labels)[order]
    risks: FloatArray = np.cumsum(wrong) / np.arange(1, labels.size + 1)
    return risks


@dataclass(frozen=True)
class Mistake:
    """A film put into the wrong class, with the probability of that class and of the label."""

    path: str
    true_class: str
    predicted_class: str
    probability: float
    true_probability: float


def worst_mistakes(
    paths: Sequence[str],
    labels: npt.NDArray[Any],
    probabilities: npt.NDArray[Any],
    class_names: Sequence[str],
    *,
    count: int = 12,
) -> list[Mistake]:
    """Return at most ``count`` wrongly classified films, the least probable label first.

    Args:
        paths: of N films.
        labels: ``(N,)`` integer class indices.
        probabilities: ``(N, K)``, each row sums to 1.
        class_names: the K class names, in column order.
        count: how many at most.

    Raises:
        ValueError: if the arguments do not fit together.
    """
    labels, probabilities = check_predictions(labels, probabilities, class_names)
    if len(paths) != labels.size:
        raise ValueError(f"give one path for each film: {len(paths)} paths, {labels.size} films")
    films = np.arange(labels.size)
    predicted = probabilities.argmax(axis=1)
    of_label = probabilities[films, labels]
    wrong = films[predicted != labels]
    worst = wrong[np.argsort(of_label[wrong], kind="stable")][:count]
    return [
        Mistake(
            path=paths[film],
            true_class=class_names[labels[film]],
            predicted_class=class_names[predicted[film]],
            probability=float(probabilities[film, predicted[film]]),
            true_probability=float(of_label[film]),
        )
        for film in worst
    ]
