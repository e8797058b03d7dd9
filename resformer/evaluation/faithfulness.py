"""Measures of how well an evidence map tells what the network looked at.

Deletion and insertion curves (Petsiuk et al., "RISE", BMVC 2018): the class's probability while
the pixels with the most evidence are taken away, or put back, first. The share of the evidence
inside a mask against the mask's own share of the area, which is what chance would give. And how
alike two maps are, by rank correlation and structural similarity, for the sanity check with
randomised weights (Adebayo et al., NeurIPS 2018).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

FloatMap = NDArray[np.floating]

# Constants of the structural similarity index, from its paper.
_WINDOW_SIGMA = 1.5
_C1, _C2 = 0.01**2, 0.03**2


def replace_by_evidence(
    film: FloatMap, substitute: FloatMap, evidence: FloatMap, steps: int
) -> NDArray[np.float32]:
    """Replace ever more of a film's pixels, those with the most evidence first.

    With the film and a featureless substitute this is deletion; with the two exchanged it is
    insertion.

    Args:
        film: ``(H, W)``, where it starts.
        substitute: ``(H, W)``, where it ends.
        evidence: ``(H, W)``, of any scale; among equals the first in reading order goes first.
        steps: how many replacements, each of the same number of pixels within one.

    Returns:
        ``(steps + 1, H, W)``, the film first and the substitute last.

    Raises:
        ValueError: if the shapes differ or there is no step.
    """
    if not film.shape == substitute.shape == evidence.shape or steps < 1:
        raise ValueError(
            f"film {film.shape}, substitute {substitute.shape} and evidence {evidence.shape} need "
            f"the same shape, and there must be a step at least, got {steps}"
        )
    rank = np.empty(film.size, dtype=np.int64)
    rank[np.argsort(-evidence, axis=None, kind="stable")] = np.arange(film.size)
    counts = np.round(np.linspace(0, film.size, steps + 1)).astype(np.int64)
    replaced = rank.reshape(film.shape) < counts[:, None, None]
    return np.where(replaced, substitute, film).astype(np.float32)


def area_under_curve(values: NDArray[np.floating]) -> float:
    """Return the area under values ``(S,)`` that are evenly spread over [0, 1], by trapezoids.

    Raises:
        ValueError: if there are fewer than two values.
    """
    if values.ndim != 1 or values.size < 2:
        raise ValueError(f"a curve needs two values at least, got the shape {values.shape}")
    return float(np.trapezoid(values, dx=1 / (values.size - 1)))


def share_inside(evidence: FloatMap, mask: FloatMap) -> float:
    """Return the share of the evidence that lies inside a mask.

    Args:
        evidence: ``(H, W)``, 0 or more.
        mask: ``(H, W)``, from 0, outside, to 1, inside.

    Returns:
        from 0 to 1; NaN where there is no evidence.

    Raises:
        ValueError: if the shapes differ or a value is negative.
    """
    if evidence.shape != mask.shape or evidence.min() < 0 or mask.min() < 0:
        raise ValueError(
            f"evidence {evidence.shape} and mask {mask.shape} need the same shape and no value "
            "below 0: rectify the evidence first"
        )
    total = float(evidence.sum())
    return float((evidence * mask).sum()) / total if total > 0 else float("nan")


def structural_similarity(first: FloatMap, second: FloatMap) -> float:
    """Return the mean structural similarity index of two maps ``(H, W)`` in [0, 1].

    Source: Wang et al., "Image Quality Assessment: From Error Visibility to Structural
    Similarity", IEEE TIP 2004, with its Gaussian window of sigma 1.5.
    """

    def smooth(values: FloatMap) -> NDArray[np.float64]:
        filtered: NDArray[np.float64] = gaussian_filter(values, _WINDOW_SIGMA, truncate=3.5)
        return filtered

    a, b = first.astype(np.float64), second.astype(np.float64)
    mean_a, mean_b = smooth(a), smooth(b)
    variances = smooth(a * a) - mean_a**2 + smooth(b * b) - mean_b**2
    covariance = smooth(a * b) - mean_a * mean_b
    likeness = (2 * mean_a * mean_b + _C1) * (2 * covariance + _C2)
    return float(np.mean(likeness / ((mean_a**2 + mean_b**2 + _C1) * (variances + _C2))))
