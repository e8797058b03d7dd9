"""The table and the plot of the training benchmark, and what a checkpoint's history tells."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from resformer.checkpoint import Checkpoint
from resformer.evaluation.lineage import list_stages
from resformer.evaluation.plots import COLOURS, new_figure
from resformer.evaluation.tables import render_table

Rates = Mapping[str, Sequence[float]]


def render_rates(rates: Rates) -> str:
    """Return the table of images a second, by network."""
    rows = [
        (name, f"{statistics.median(found):.0f}", f"{max(found):.0f}")
        for name, found in rates.items()
    ]
    return render_table(("network", "images/s, median", "fastest epoch"), rows)


def render_splits(splits: Mapping[tuple[int, int], float]) -> str:
    """Return the table of images a second, by workers and threads."""
    rows = [(str(w), str(threads), f"{rate:.0f}") for (w, threads), rate in splits.items()]
    return render_table(("workers", "threads", "images/s, median"), rows)


def plot_rates(rates: Rates, path: Path) -> None:
    """Draw the median of each network as a bar."""
    figure, (axes,) = new_figure(7, 2.0)
    medians = [statistics.median(found) for found in rates.values()]
    axes.barh(list(rates), medians, color=COLOURS[0])
    axes.invert_yaxis()
    axes.set_xlabel("images/s")
    figure.savefig(path, dpi=120)


def epoch_of_accuracy(history: Iterable[Mapping[str, float]], accuracy: float) -> int | None:
    """Return the first epoch, counted from 1, whose validation accuracy is so high, if any."""
    for number, figures in enumerate(history, start=1):
        if figures["validation_accuracy"] >= accuracy:
            return number
    return None


def minutes_to_accuracy(history: Sequence[Mapping[str, float]], accuracy: float) -> float | None:
    """Return the minutes of the epochs up to the first with such a validation accuracy, if any."""
    epoch = epoch_of_accuracy(history, accuracy)
    if epoch is None:
        return None
    return sum(figures["seconds"] for figures in history[:epoch]) / 60


def whole_history(checkpoint: Checkpoint) -> list[Mapping[str, float]]:
    """Return the epochs of all stages of a checkpoint's training, the first stage first."""
    stages = list_stages(checkpoint.training)
    return [figures for stage in stages for figures in stage.get("history", [])]


def describe_history(checkpoint: Checkpoint, accuracy: float) -> str:
    """Say in a sentence how long a checkpoint was trained until it reached an accuracy."""
    history = whole_history(checkpoint)
    epoch, minutes = epoch_of_accuracy(history, accuracy), minutes_to_accuracy(history, accuracy)
    if epoch is None or minutes is None:
        return f"The checkpoint's history has no epoch with {accuracy:.1%} validation accuracy."
    rate = statistics.median(figures["images_per_second"] for figures in history)
    before = ", after the stage that learns the lungs" if "lungs" in checkpoint.training else ""
    return (
        f"The checkpoint reached {accuracy:.1%} validation accuracy in epoch {epoch}, with "
        f"{minutes:.1f} minutes of training at a median of {rate:.0f} images/s{before}; validation "
        "is not counted. It was trained on whatever else the machine had to do."
    )
