"""Checks of the arrays that the evaluation is given, with messages that name the fix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from resformer.evaluation.scores import FloatArray, IntArray

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
