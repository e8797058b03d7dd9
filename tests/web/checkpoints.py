"""Checkpoints with a gate that a test can choose, and with a training to tell of."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch
from flask.testing import FlaskClient

from resformer.checkpoint import load_checkpoint, save_checkpoint
from resformer.evaluation.metrics import evaluate_predictions
from resformer.gate.gate import FEATURE_GRID, INPUT_GRID, Gate, Subspace
from tests.conftest import CLASS_NAMES
from web import WebConfig, create_app

# The scores that such gates give.
ACCEPTED, REFUSED = 0.98201379, 0.01798621


def client_of(path: Path) -> FlaskClient:
    """A client of an application that serves a checkpoint."""
    return create_app(WebConfig(path, "cpu")).test_client()


def write_gated_checkpoint(source: Path, target: Path, *, accepts: bool) -> Path:
    """Copy a checkpoint and add a gate that takes every picture with contrast, or none."""
    checkpoint = load_checkpoint(source)
    config = checkpoint.model_config
    lengths = [INPUT_GRID**2 * config.in_chans, *(FEATURE_GRID**2 * c for c in config.channels)]
    gate = Gate(
        subspaces=tuple(_subspace(length) for length in lengths),
        weights=torch.zeros(3 * len(lengths)),
        bias=4.0 if accepts else -4.0,
    )
    save_checkpoint(dataclasses.replace(checkpoint, gate=gate), target)
    return target


def _subspace(length: int) -> Subspace:
    return Subspace(
        mean=torch.zeros(length),
        scale=torch.ones(length),
        basis=torch.eye(length, 1),
        deviation=torch.ones(1),
    )


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
