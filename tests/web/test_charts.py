"""The curves of a training, as the page draws them."""

from __future__ import annotations

import pytest

from web.charts import HEIGHT, WIDTH, LineChart, draw_history


def draw(values: list[float | None], best: int | None = None) -> LineChart | None:
    history = [{"loss": value} for value in values]
    return draw_history(history, "Loss", {"Training": "loss"}, best)


def test_a_curve_runs_over_its_axes() -> None:
    chart = draw([1.0, 0.5, 0.0], best=3)
    assert chart
    places = [tuple(map(float, p.split(","))) for p in chart.curves[0].points.split()]
    assert [x for x, _ in places] == [tick.position for tick in chart.epochs]
    assert [tick.label for tick in chart.epochs] == ["1", "2", "3"]
    assert chart.mark == places[2][0]
    heights = {tick.label: tick.position for tick in chart.values}
    assert [y for _, y in places] == [heights["1"], heights["0.5"], heights["0"]]
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in places)


@pytest.mark.parametrize("values", [[], [1.0], [None, None], [float("nan"), float("inf")]])
def test_there_is_no_chart_without_a_curve(values: list[float | None]) -> None:
    assert draw(values) is None


@pytest.mark.parametrize("values", [[0.3, 0.3], [0.0, 0.0], [1e-9, 2e-9], [-3.0, 1e6], [0.7, None]])
def test_ticks_enclose_the_values(values: list[float | None]) -> None:
    chart = draw(values)
    assert chart
    labels = [float(tick.label) for tick in chart.values]
    known = [value for value in values if value is not None]
    assert 2 <= len(labels) <= 7
    assert labels == sorted(labels)
    assert labels[0] <= min(known) + 1e-12
    assert labels[-1] >= max(known) - 1e-12
