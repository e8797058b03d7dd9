"""Temperature and class offsets that make a trained network's probabilities honest.

Temperature scaling (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017) with an
offset for each class, their "bias-corrected" form (Alexandari et al., "Maximum likelihood with
bias-corrected calibration is hard-to-beat at label shift adaptation", ICML 2020):
``softmax((logits + offsets) / temperature)``, fitted by likelihood on the validation films.

Every validation film counts alike. Weighing classes, or classes and sources, alike was measured
beside it: the probabilities were then further from the truth both where the training films come
from and within one hospital (docs/experiments.md).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax

from resformer.checkpoint import Checkpoint

# A validation set without a single mistake would pull the temperature to 0.
LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.1, 10.0
# Largest offset, in units of the scaled logits: a class that is never mistaken has no best one.
_MOST = 5.0
# A pull of the offsets towards 0, too weak to matter where a few films say anything.
_PENALTY = 1e-4
# What a checkpoint calls the last layer's offsets.
_LAST_BIAS = "fc.bias"


@dataclass(frozen=True)
class Calibration:
    """What turns logits into probabilities.

    Attributes:
        temperature: that the logits are divided by.
        offsets: that are added to them before, ``(K,)``; their mean is 0.
    """

    temperature: float
    offsets: NDArray[np.float64]

    def probabilities(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map logits ``(N, K)`` to probabilities."""
        probable: NDArray[np.float64] = softmax((logits + self.offsets) / self.temperature, axis=1)
        return probable

    def apply(self, checkpoint: Checkpoint) -> Checkpoint:
        """Return an uncalibrated checkpoint with the offsets in its last layer's own.

        So the format of checkpoints and everything that reads them stays as it is.
        """
        weights = dict(checkpoint.state_dict)
        bias = weights[_LAST_BIAS]
        weights[_LAST_BIAS] = bias + bias.new_tensor(self.offsets.tolist())
        return replace(checkpoint, state_dict=weights, temperature=self.temperature)


def fit_calibration(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> Calibration:
    """Return the temperature and the offsets of the greatest likelihood.

    With ``inverse = 1 / temperature`` and ``shift = offsets / temperature`` the negative
    log-likelihood of ``inverse * logits + shift`` is convex, so that L-BFGS finds its minimum.

    Raises:
        ValueError: if shapes do not match, labels are out of range, or logits are not finite.
    """
    if logits.ndim != 2 or not len(logits) == len(labels) > 0:
        raise ValueError(f"logits (N, K) need N labels, got {logits.shape} and {len(labels)}")
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise ValueError(f"labels must be from 0 to {logits.shape[1] - 1}, got {set(labels)}")
    if not np.isfinite(logits).all():
        raise ValueError("logits hold NaN or infinity: look for a diverged training")
    one_hot = np.eye(logits.shape[1])[labels]

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        inverse, shift = parameters[0], parameters[1:]
        scaled = inverse * logits + shift
        surprise = logsumexp(scaled, axis=1) - (scaled * one_hot).sum(axis=1)
        surplus = (softmax(scaled, axis=1) - one_hot) / len(labels)
        slope = np.append((surplus * logits).sum(), surplus.sum(axis=0) + 2 * _PENALTY * shift)
        return float(surprise.mean() + _PENALTY * shift @ shift), slope

    classes = logits.shape[1]
    bounds = [(1 / HIGHEST_TEMPERATURE, 1 / LOWEST_TEMPERATURE), *[(-_MOST, _MOST)] * classes]
    start = np.append(1.0, np.zeros(classes))
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
    inverse, shift = float(found.x[0]), found.x[1:]
    return Calibration(1 / inverse, (shift - shift.mean()) / inverse)
