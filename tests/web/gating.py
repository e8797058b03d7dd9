"""Checkpoints with a gate that judges every picture alike, so that a test can choose."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from resformer.checkpoint import load_checkpoint, save_checkpoint
from resformer.gate.gate import FEATURE_GRID, INPUT_GRID, Gate, Subspace

ACCEPTED, REFUSED = 0.98201379, 0.01798621
"""The scores that such gates give."""


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
