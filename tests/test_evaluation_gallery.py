from __future__ import annotations

import numpy as np
import pytest
from matplotlib.container import BarContainer

from resformer.evaluation.plots import plot_films, plot_probabilities


def film(value: int, side: int = 4) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    return np.full((side, side), value, dtype=np.uint8)


def test_films_are_drawn_in_rows_each_under_its_title() -> None:
    figure = plot_films([film(0), film(90, 8), film(255)], ["a", "b\nc", "d"], columns=2)
    drawn = figure.axes[:3]
    assert [axes.get_title() for axes in drawn] == ["a", "b\nc", "d"]
    assert [int(np.max(np.asarray(axes.images[0].get_array()))) for axes in drawn] == [0, 90, 255]
    assert {axes.images[0].get_clim() for axes in drawn} == {(0.0, 255.0)}
    assert len(figure.axes) == 4
    assert not any(axes.axison for axes in figure.axes)
    assert not figure.axes[3].images


def test_a_row_is_no_wider_than_its_films() -> None:
    assert len(plot_films([film(1)], ["one"]).axes) == 1


@pytest.mark.parametrize(
    ("count", "titles"), [(0, []), (2, ["one"]), (1, ["one", "two"])], ids=["none", "few", "many"]
)
def test_films_and_titles_must_fit(count: int, titles: list[str]) -> None:
    with pytest.raises(ValueError, match="one title for each film"):
        plot_films([film(1)] * count, titles)


def test_probabilities_are_bars_in_class_order_with_the_highest_in_colour() -> None:
    (axes,) = plot_probabilities({"COVID": 0.125, "Normal": 0.875}).axes
    (bars,) = axes.containers
    assert isinstance(bars, BarContainer)
    assert np.asarray(bars.datavalues).tolist() == [0.125, 0.875]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["COVID", "Normal"]
    assert [text.get_text() for text in axes.texts] == ["12.5%", "87.5%"]
    assert axes.yaxis_inverted()
    colours = [bar.get_facecolor() for bar in axes.patches]
    assert colours[0] != colours[1]


def test_probabilities_need_a_class() -> None:
    with pytest.raises(ValueError, match="no class to draw"):
        plot_probabilities({})
