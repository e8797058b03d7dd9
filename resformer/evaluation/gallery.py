"""Films side by side, and the answer for one film, as figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from resformer.evaluation.style import COLOURS, new_figure

_CELL_INCHES = 2.4
_TITLE_INCHES = 0.3


def plot_films(
    films: Sequence[NDArray[np.uint8]], titles: Sequence[str], *, columns: int = 4
) -> Figure:
    """Draw films in rows, each under its title, black at 0 and white at 255.

    Args:
        films: ``(H, W)`` each, of any sizes.
        titles: one for each film; a line break makes a second line.
        columns: films in a row.

    Raises:
        ValueError: no film, or not one title for each.
    """
    if not films or len(films) != len(titles):
        raise ValueError(
            f"give one title for each film, and a film at least: {len(films)} films, "
            f"{len(titles)} titles"
        )
    columns = min(columns, len(films))
    rows = -(-len(films) // columns)
    lines = 1 + max(title.count("\n") for title in titles)
    height = rows * (_CELL_INCHES + lines * _TITLE_INCHES)
    figure, panels = new_figure(columns * _CELL_INCHES, height, rows=rows, columns=columns)
    for axes in panels:
        axes.set_axis_off()
    for axes, film, title in zip(panels, films, titles, strict=False):
        axes.imshow(film, cmap="gray", vmin=0, vmax=255)
        axes.set_title(title, fontsize=9)
    return figure


def plot_probabilities(probabilities: Mapping[str, float]) -> Figure:
    """Draw a bar for the probability of each class, the first on top, the highest in colour.

    Args:
        probabilities: by class name, as :class:`resformer.inference.Prediction` holds them.

    Raises:
        ValueError: if there is no class.
    """
    if not probabilities:
        raise ValueError("there is no class to draw: give a probability for each")
    names, values = list(probabilities), list(probabilities.values())
    colours = [COLOURS[0] if value == max(values) else "#B0B0B0" for value in values]
    figure, (axes,) = new_figure(7, 1.0 + 0.45 * len(names))
    bars = axes.barh(names, values, color=colours)
    axes.bar_label(bars, [f"{value:.1%}" for value in values], padding=4)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1.12), xticks=np.linspace(0, 1, 6), xlabel="Probability")
    axes.grid(visible=False, axis="y")
    return figure
