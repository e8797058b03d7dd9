"""A checkpoint that tells of its training and of its test films, for the model card to show."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from resformer.checkpoint import load_checkpoint, save_checkpoint
from resformer.evaluation.metrics import evaluate_predictions
from tests.conftest import CLASS_NAMES
from tests.web.gating import write_gated_checkpoint

HISTORY = [
    {
        "epoch": epoch,
        "train_loss": 1.2 - 0.1 * epoch,
        "validation_loss": float("inf") if epoch == 2 else 1.3 - 0.1 * epoch,
        "validation_accuracy": 0.5 + 0.1 * epoch,
        "validation_macro_f1": 0.4 + 0.1 * epoch,
    }
    for epoch in (1, 2, 3)
]
TRAINING = {
    "films": {"train": 8627, "validation": 1079, "test": 4},
    "config": {"learning_rate": 0.0015},
    "best_epoch": 3,
    "history": HISTORY,
}
LABELS = np.array([0, 0, 2, 3])
PROBABILITIES = np.array(
    [[0.7, 0.1, 0.1, 0.1], [0.1, 0.1, 0.7, 0.1], [0.1, 0.1, 0.7, 0.1], [0.1, 0.1, 0.1, 0.7]]
)


def write_telling_checkpoint(source: Path, target: Path) -> Path:
    """Copy a checkpoint and add a gate, a training and 4 test films, none of Lung_Opacity."""
    path = write_gated_checkpoint(source, target, accepts=True)
    report = evaluate_predictions(LABELS, PROBABILITIES, CLASS_NAMES, bootstrap=20)
    checkpoint = load_checkpoint(path)
    save_checkpoint(
        dataclasses.replace(checkpoint, metrics={"test": report}, training=TRAINING), path
    )
    return path
