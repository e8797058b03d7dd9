"""A share of films with its Wilson interval (Wilson, JASA 1927)."""

from __future__ import annotations

from scipy.stats import binomtest

from resformer.evaluation.bootstrap import CONFIDENCE_LEVEL, Estimate


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
