"""Classification scores of many weightings of the same images at once.

A bootstrap sample is a vector of how often each image was drawn, so one pass over a matrix of
weights `(S, N)` replaces `S` separate evaluations. The plain evaluation is the weighting by ones,
which keeps the value and its interval in one formula. Undefined values are NaN here.

AUC is the Mann-Whitney statistic with ties counted half (Hanley and McNeil, Radiology 1982).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

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
