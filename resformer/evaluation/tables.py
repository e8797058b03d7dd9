"""Tables of an evaluation, as plain rows that a data frame or a text file takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from resformer.evaluation.checks import check_predictions
from resformer.evaluation.metrics import CLASS_METRICS

_OVERALL = ("accuracy", *(f"macro_{name}" for name in CLASS_METRICS), "expected_calibration_error")


def format_estimate(estimate: Mapping[str, float | None]) -> str:
    """Return an estimate of `evaluate_predictions` as ``0.912 (0.871 to 0.944)``."""
    value, low, high = (estimate[key] for key in ("value", "low", "high"))
    if value is None:
        return "undefined"
    return f"{value:.3f}" if low is None else f"{value:.3f} ({low:.3f} to {high:.3f})"


def overall_table(report: Mapping[str, Any]) -> dict[str, str]:
    """Return the scores over all films with their intervals, by name."""
    return {name: format_estimate(report[name]) for name in _OVERALL}


def class_table(report: Mapping[str, Any]) -> dict[str, dict[str, int | str]]:
    """Return the scores of each class against the rest with their intervals, by class name."""
    return {
        name: {"support": scores["support"]}
        | {metric: format_estimate(scores[metric]) for metric in CLASS_METRICS}
        for name, scores in report["per_class"].items()
    }


@dataclass(frozen=True)
class Mistake:
    """A film that the network put into the wrong class.

    Attributes:
        path: of the film, relative to the data set.
        true_class: the label.
        predicted_class: the most probable class.
        probability: of the predicted class.
        true_probability: of the label.
    """

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
    """Return the wrongly classified films, those first whose label was thought least probable.

    Args:
        paths: of N films.
        labels: `(N,)` integer class indices.
        probabilities: `(N, K)`, each row sums to 1.
        class_names: the K class names, in column order.
        count: how many at most.

    Raises:
        ValueError: the arguments do not fit together.
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
