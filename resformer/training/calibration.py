"""Temperature and class offsets that make a trained network's probabilities honest.

Temperature scaling (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017) with an
offset for each class, their "bias-corrected" form (Alexandari et al., "Maximum likelihood with
bias-corrected calibration is hard-to-beat at label shift adaptation", ICML 2020):
``softmax((logits + offsets) / temperature)``, fitted by likelihood on the validation films.

Departure, and the choice that matters: **every class weighs the same, and within a class every
source**. A network that was trained with logit adjustment by source has no opinion of how frequent
a class is; offsets fitted on films as they come would give it back the shares of the validation
films, which are those of how the data was collected, not of any clinic, and would lean towards the
source that has the most films. Weighed so, the offsets put the lines between the classes where the
sources agree best. A cell of a class and a source with fewer than ``FULL_CELL`` films weighs less
in proportion, or a handful of films would decide as much as hundreds.
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
FULL_CELL = 20
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


def cell_weights(labels: NDArray[np.int64], sources: NDArray[np.str_]) -> NDArray[np.float64]:
    """Return the weight of each film, ``(N,)``; they sum to 1.

    Each class has the same weight; within it each source, less where it has few films.
    """
    _, source = np.unique(sources, return_inverse=True)
    counts = np.zeros((labels.max() + 1, source.max() + 1))
    np.add.at(counts, (labels, source), 1)
    of_cell = np.minimum(counts, FULL_CELL)
    of_class = of_cell.sum(axis=1, keepdims=True)
    shares = of_cell / np.maximum(of_class, 1) / np.maximum(counts, 1)
    weights: NDArray[np.float64] = shares[labels, source]
    weights /= weights.sum()
    return weights


def fit_calibration(
    logits: NDArray[np.float64], labels: NDArray[np.int64], sources: NDArray[np.str_]
) -> Calibration:
    """Return the temperature and the offsets of the greatest balanced likelihood.

    With ``inverse = 1 / temperature`` and ``shift = offsets / temperature`` the negative
    log-likelihood of ``inverse * logits + shift`` is convex, so that L-BFGS finds its minimum.

    Args:
        logits: ``(N, K)`` of the validation films.
        labels: ``(N,)`` class indices.
        sources: ``(N,)`` names; equal ones make this a balance of classes alone.

    Raises:
        ValueError: shapes that do not match, labels out of range, or logits that are not finite.
    """
    if logits.ndim != 2 or not len(logits) == len(labels) == len(sources) > 0:
        raise ValueError(
            f"logits (N, K) need N labels and N sources, got {logits.shape}, {len(labels)} and "
            f"{len(sources)}"
        )
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise ValueError(f"labels must be from 0 to {logits.shape[1] - 1}, got {set(labels)}")
    if not np.isfinite(logits).all():
        raise ValueError("logits hold NaN or infinity: look for a diverged training")
    weights = cell_weights(labels, sources)
    one_hot = np.eye(logits.shape[1])[labels]

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        inverse, shift = parameters[0], parameters[1:]
        scaled = inverse * logits + shift
        surprise = logsumexp(scaled, axis=1) - (scaled * one_hot).sum(axis=1)
        surplus = weights[:, None] * (softmax(scaled, axis=1) - one_hot)
        slope = np.append((surplus * logits).sum(), surplus.sum(axis=0) + 2 * _PENALTY * shift)
        return float(weights @ surprise + _PENALTY * shift @ shift), slope

    classes = logits.shape[1]
    bounds = [(1 / HIGHEST_TEMPERATURE, 1 / LOWEST_TEMPERATURE), *[(-_MOST, _MOST)] * classes]
    start = np.append(1.0, np.zeros(classes))
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
    inverse, shift = float(found.x[0]), found.x[1:]
    return Calibration(1 / inverse, (shift - shift.mean()) / inverse)
