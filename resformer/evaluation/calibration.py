"""Temperature scaling: one number that makes the confidence of a trained network honest.

Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 4.2. The
temperature divides the logits, so the predicted class never changes. The search runs over its
logarithm within bounds: a validation set without a single mistake would pull it to zero.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from resformer.evaluation.checks import check_labels, check_rows

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
