"""Checkpoints with a gate and an abstention that a test can choose, and a training to tell of."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch
from flask.testing import FlaskClient
from numpy.typing import NDArray

from resformer.abstention import Abstention, Reason
from resformer.backends import PyTorchBackend
from resformer.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from resformer.evaluation.metrics import evaluate_predictions
from resformer.gate import FEATURE_GRID, INPUT_GRID, Gate, Subspace
from resformer.model import IdentityMappingResFormer
from resformer.orientation import CORRECTIONS, Correction
from resformer.transforms import resize_pixels
from tests.data_sets import CLASS_NAMES
from web import WebConfig, create_app

# The scores that such gates give.
ACCEPTED, REFUSED = 0.98201379, 0.01798621
# What no film reaches, and what none exceeds.
LEAST_CONFIDENCE, GREATEST_DISTANCE = 1.0, 1234.5


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


def write_upright_checkpoint(source: Path, target: Path, film: NDArray[np.uint8]) -> Path:
    """Copy a checkpoint and add a gate that takes this film, and refuses it turned or inverted."""
    path = write_gated_checkpoint(source, target, accepts=True)
    checkpoint = load_checkpoint(path)
    assert checkpoint.gate
    size = checkpoint.input_spec.size
    shown = [resize_pixels(c.apply(film), size) for c in (Correction(), *CORRECTIONS)]
    grids = PyTorchBackend(checkpoint, torch.device("cpu")).describe(np.stack(shown))[0]
    template = grids[0] - grids.mean(0)
    likeness = grids @ template
    # Positions are pulled in beyond three deviations: the films stay within these.
    middle, deviation = float(likeness.topk(2).values.mean()), float(likeness.abs().max())
    upright = Subspace(
        mean=torch.zeros(len(template)),
        scale=torch.ones(len(template)),
        basis=(template / template.norm()).unsqueeze(1),
        deviation=torch.tensor([deviation / float(template.norm())]),
    )
    weights = torch.zeros_like(checkpoint.gate.weights)
    weights[0] = 200.0
    position = middle / deviation
    pulled = position / (1 + position**2 / 9) ** 0.5
    gate = Gate((upright, *checkpoint.gate.subspaces[1:]), weights, bias=-200.0 * pulled)
    save_checkpoint(dataclasses.replace(checkpoint, gate=gate), path)
    return path


OTHER_CLASSES = ("Sick", "Well")


def write_other_checkpoint(source: Path, target: Path) -> Path:
    """Write a checkpoint of a network of its own, with other classes; whole or not at all."""
    checkpoint = load_checkpoint(source)
    config = dataclasses.replace(checkpoint.model_config, num_classes=len(OTHER_CLASSES))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        weights = IdentityMappingResFormer(config).state_dict()
    save_checkpoint(Checkpoint(config, OTHER_CLASSES, checkpoint.input_spec, weights), target)
    return target


def write_recorded_checkpoint(source: Path, target: Path) -> Path:
    """Copy a checkpoint and add a track record: right for 7 of the 9 films of each class."""
    record = {name: {"called": 9, "right": 7} for name in CLASS_NAMES}
    checkpoint = dataclasses.replace(load_checkpoint(source), metrics={"track_record": record})
    save_checkpoint(checkpoint, target)
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
        "validation_score": 0.7 + 0.05 * epoch,
        "score": "AUC within sources",
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


def write_abstaining_checkpoint(
    source: Path, target: Path, reason: Reason | None = "undecided"
) -> Path:
    """Copy a checkpoint and add an abstention, from every film for this reason, or from none."""
    checkpoint = load_checkpoint(source)
    width = checkpoint.model_config.pooled_width
    abstention = Abstention(
        torch.zeros(width),
        torch.eye(width, 1),
        torch.zeros(4, 1),
        least_confidence=LEAST_CONFIDENCE if reason == "undecided" else 0.0,
        greatest_distance=0.0 if reason == "unfamiliar" else GREATEST_DISTANCE,
    )
    save_checkpoint(dataclasses.replace(checkpoint, abstention=abstention), target)
    return target
