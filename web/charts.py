"""Geometry of the model page's plots: numbers in, coordinates of an SVG out, no drawing library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WIDTH, HEIGHT = 360, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 42, 10, 12, 28
_TICKS = 4


@dataclass(frozen=True)
class Tick:
    """A labelled position on an axis."""

    position: float
    label: str


@dataclass(frozen=True)
class Curve:
    """A line through `points`, as SVG's `polyline` takes them."""

    name: str
    points: str


@dataclass(frozen=True)
class LineChart:
    """Curves over epochs in a box of `WIDTH` x `HEIGHT`.

    Attributes:
        title: what is drawn.
        curves: one for each name that has values.
        epochs: ticks of the horizontal axis.
        values: ticks of the vertical axis.
        mark: horizontal position of the epoch that was kept, or None.
    """

    title: str
    curves: tuple[Curve, ...]
    epochs: tuple[Tick, ...]
    values: tuple[Tick, ...]
    mark: float | None


def draw_history(
    history: Sequence[Mapping[str, Any]],
    title: str,
    keys: Mapping[str, str],
    best_epoch: int | None = None,
) -> LineChart | None:
    """Place the curves of a training; None where there is no curve to draw.

    Args:
        history: one entry for each epoch, in order.
        title: of the chart.
        keys: the entries' keys by the names of the curves.
        best_epoch: the epoch that was kept, from 1.
    """
    series = {name: [_number(entry.get(key)) for entry in history] for name, key in keys.items()}
    known = [value for values in series.values() for value in values if value is not None]
    if len(history) < 2 or not known:
        return None
    steps = _nice_steps(min(known), max(known))
    horizontal = _Axis(1, len(history), _LEFT, WIDTH - _RIGHT)
    vertical = _Axis(steps[0], steps[-1], HEIGHT - _BOTTOM, _TOP)
    curves = tuple(
        Curve(name, _join(values, horizontal, vertical)) for name, values in series.items()
    )
    return LineChart(
        title=title,
        curves=tuple(curve for curve in curves if curve.points),
        epochs=tuple(
            Tick(horizontal.place(epoch), str(epoch))
            for epoch in sorted({1, (len(history) + 1) // 2, len(history)})
        ),
        values=tuple(Tick(vertical.place(step), f"{step:g}") for step in steps),
        mark=horizontal.place(best_epoch) if best_epoch else None,
    )


@dataclass(frozen=True)
class _Axis:
    low: float
    high: float
    start: float
    end: float

    def place(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and math.isfinite(value)
    return float(value) if is_number else None


def _join(values: Sequence[float | None], horizontal: _Axis, vertical: _Axis) -> str:
    return " ".join(
        f"{horizontal.place(epoch)},{vertical.place(value)}"
        for epoch, value in enumerate(values, start=1)
        if value is not None
    )


def _nice_steps(low: float, high: float) -> list[float]:
    """Round steps of 1, 2 or 5 times a power of ten that enclose a range."""
    span = (high - low) or abs(high) or 1.0
    magnitude = 10.0 ** math.floor(math.log10(span / _TICKS))
    step = next(f * magnitude for f in (1, 2, 5, 10) if f * magnitude * _TICKS >= span)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(number * step, 10) for number in range(first, max(last, first + 1) + 1)]
