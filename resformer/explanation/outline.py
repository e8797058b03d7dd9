"""The outline of the lungs that the network found, to draw over the preview of its film."""

from __future__ import annotations

import numpy as np
from contourpy import contour_generator
from numpy.typing import NDArray

Polygon = list[list[float]]

# Probability of being lung that the outline runs along.
_LEVEL = 0.5
# Share of the film below which a spot is no lung worth an outline.
_LEAST_AREA = 0.005
_DECIMALS = 4


def trace_lungs(lungs: NDArray[np.float32]) -> list[Polygon]:
    """Trace where the network is as sure as not that there is lung.

    Args:
        lungs: probabilities of being lung, ``(h, w)``, evenly spread over the film.

    Returns:
        closed polygons of points ``[x, y]`` in [0, 1], shares of the film's width and height from
        its upper left corner, the largest first; none where no lung was found.

    Raises:
        ValueError: if it is no map of probabilities.
    """
    # NaN fails every comparison, so it is refused too.
    if lungs.ndim != 2 or not (lungs.size and 0 <= lungs.min() <= lungs.max() <= 1):
        raise ValueError(
            f"lungs must be a map (h, w) of probabilities, got the shape {lungs.shape}"
        )
    height, width = lungs.shape
    # A rim without lung closes the outline of a lung that the film cuts off.
    framed = np.pad(lungs.astype(np.float64), 1)
    lines = contour_generator(z=framed).lines(_LEVEL)
    # A value stands for the middle of its cell, and the rim has moved all by one.
    closed = [
        np.clip((np.asarray(line) - 0.5) / (width, height), 0, 1) for line in lines if len(line) > 3
    ]
    traced = sorted(((_area(points), points) for points in closed), key=lambda pair: -pair[0])
    return [points[:-1].round(_DECIMALS).tolist() for area, points in traced if area >= _LEAST_AREA]


def _area(points: NDArray[np.float64]) -> float:
    """Return the area of a closed polygon ``(N, 2)`` by the shoelace formula."""
    x, y = points.T
    return float(abs(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1])) / 2)
