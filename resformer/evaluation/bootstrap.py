"""Percentile bootstrap intervals over images (Efron and Tibshirani, 1993, chapter 13)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from resformer.evaluation.scores import FloatArray

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
