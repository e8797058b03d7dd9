"""What is shown of a training while it runs: a line an epoch, its curves, and TensorBoard's."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from resformer.evaluation.plots import plot_history
from resformer.evaluation.report import save_figures, write_json
from resformer.training.config import TrainingConfig
from resformer.training.state import Progress

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


def describe_epoch(reached: Progress, config: TrainingConfig) -> str:
    """Return the figures of the last epoch, and how long the others will take, as one line."""
    figures = reached.history[-1]
    minutes = reached.seconds_left(config) / 60
    shown = {
        "loss": figures["train_loss"],
        "validation loss": figures["validation_loss"],
        "accuracy": figures["validation_accuracy"],
        "macro-F1": figures["validation_macro_f1"],
        figures["score"]: figures["validation_score"],
    }
    best = f"best {reached.best_score:.4f} in epoch {reached.best_epoch}"
    return (
        ", ".join(f"{name} {value:.4f}" for name, value in shown.items())
        + f" ({best if reached.best_epoch else 'not yet at the size that is served'})"
        + f"; {minutes:.0f} min left"
    )


def show_history(reached: Progress, folder: Path, writer: SummaryWriter | None) -> None:
    """Write the history and its curves anew, and the last epoch for TensorBoard."""
    write_json(reached.history, folder / "history.json")
    save_figures({"history": plot_history(reached.history)}, folder)
    if writer:
        figures = reached.history[-1]
        for name, value in figures.items():
            if isinstance(value, float):
                writer.add_scalar(name, value, figures["epoch"])
        for source, found in figures["sources"].items():
            for pair, auc in found["auc"].items():
                writer.add_scalar(f"AUC {source or 'all'}/{pair}", auc, figures["epoch"])
        writer.flush()


def check_tensorboard(wanted: bool) -> None:
    """Make sure that TensorBoard is installed where it is wanted.

    Raises:
        ValueError: if it is not.
    """
    if wanted and importlib.util.find_spec("tensorboard") is None:
        raise ValueError("--tensorboard needs the package tensorboard: pip install tensorboard")


def open_tensorboard(folder: Path, reached: Progress) -> SummaryWriter:
    """Open the folder ``tensorboard`` of a run, to go on after the last epoch."""
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder / "tensorboard"), purge_step=len(reached.history) + 1)
