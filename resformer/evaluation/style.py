"""The look that the evaluation's pictures share.

Colours are those of Okabe and Ito (2008), which people with any common colour vision can tell
apart; line styles repeat the distinction for print in grey.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GUIDE_COLOUR = "#767676"
_GRID_COLOUR = "#E3E3E3"
_LINE_STYLES = ("-", "--", "-.", ":")


def new_figure(
    width: float,
    height: float,
    *,
    rows: int = 1,
    columns: int = 1,
    height_ratios: Sequence[float] | None = None,
    sharex: bool = False,
) -> tuple[Figure, list[Axes]]:
    """Return a figure of `width` by `height` inches and its panels, row by row."""
    figure = Figure(figsize=(width, height), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=sharex, height_ratios=height_ratios)
    panels = list(grid.ravel())
    for axes in panels:
        axes.grid(color=_GRID_COLOUR, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels


def draw_line(
    axes: Axes,
    index: int,
    x: Sequence[float] | npt.NDArray[np.float64],
    y: Sequence[float] | npt.NDArray[np.float64],
    label: str | None = None,
) -> None:
    """Draw a series in the colour and line style of its index; one point alone as a dot."""
    axes.plot(
        x,
        y,
        color=COLOURS[index % len(COLOURS)],
        linestyle=_LINE_STYLES[index % len(_LINE_STYLES)],
        marker="o" if len(x) == 1 else None,
        linewidth=2,
        label=label,
    )
