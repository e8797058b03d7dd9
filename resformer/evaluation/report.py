"""Writing an evaluation to a folder: `metrics.json` and one PNG for each picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
from matplotlib.figure import Figure

from resformer.evaluation.plots import (
    plot_confusion_matrix,
    plot_history,
    plot_reliability,
    plot_roc,
)

_DOTS_PER_INCH = 150


def write_report(
    report: Mapping[str, Any],
    labels: npt.NDArray[Any],
    probabilities: npt.NDArray[Any],
    history: Sequence[Mapping[str, float]],
    folder: Path,
) -> list[Path]:
    """Write `metrics.json` and the pictures, and return the files written.

    Args:
        report: what `evaluate_predictions` returned for these labels and probabilities.
        labels: `(N,)` integer class indices.
        probabilities: `(N, K)`, each row sums to 1.
        history: one entry for each epoch; empty leaves `history.png` out.
        folder: is made where it does not exist; files of the same names are replaced.

    Raises:
        ValueError: labels, probabilities or history that the plots cannot draw.
        OSError: the folder cannot be written.
    """
    figures = {
        "confusion_matrix": plot_confusion_matrix(report),
        "roc": plot_roc(labels, probabilities, report["class_names"]),
        "reliability": plot_reliability(labels, probabilities),
    }
    if history:
        figures["history"] = plot_history(history)
    folder.mkdir(parents=True, exist_ok=True)
    metrics = write_json(report, folder / "metrics.json")
    return [metrics, *save_figures(figures, folder)]


def write_training_report(
    metrics: Mapping[str, Any], history: Sequence[Mapping[str, float]], folder: Path
) -> list[Path]:
    """Write what a checkpoint tells of its training, and return the files written.

    Args:
        metrics: reports of `evaluate_predictions` by split.
        history: one entry for each epoch.
        folder: is made where it does not exist; files of the same names are replaced.

    Raises:
        ValueError: a history that cannot be drawn.
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [
        write_json(metrics, folder / "metrics.json"),
        write_json(history, folder / "history.json"),
    ]
    figures = {f"confusion_matrix_{s}": plot_confusion_matrix(r) for s, r in metrics.items()}
    return [*files, *save_figures({"history": plot_history(history), **figures}, folder)]


def save_figures(
    figures: Mapping[str, Figure], folder: Path, *, dots_per_inch: int = _DOTS_PER_INCH
) -> list[Path]:
    """Write each figure as `<name>.png` into an existing folder and return the files."""
    paths = [folder / f"{name}.png" for name in figures]
    for path, figure in zip(paths, figures.values(), strict=True):
        figure.savefig(path, dpi=dots_per_inch)
    return paths


def write_json(content: Any, path: Path, *, sort_keys: bool = False) -> Path:
    """Write plain data for people to read as well, and return the file written."""
    text = json.dumps(content, indent=2, allow_nan=False, sort_keys=sort_keys)
    path.write_text(text + "\n", encoding="utf-8")
    return path
