"""A checkpoint that abstains from every film, or from none, so that a test can choose."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from resformer.abstention import Abstention, Reason
from resformer.checkpoint import load_checkpoint, save_checkpoint

LEAST_CONFIDENCE, GREATEST_DISTANCE = 1.0, 1234.5
"""What no film reaches, and what none exceeds."""


def write_abstaining_checkpoint(
    source: Path, target: Path, reason: Reason | None = "undecided"
) -> Path:
    """Copy a checkpoint and add an abstention, from every film for this reason, or from none."""
    checkpoint = load_checkpoint(source)
    width = checkpoint.model_config.pooled_width
    abstention = Abstention(
        *(torch.zeros(width), torch.eye(width, 1), torch.zeros(4, 1)),
        least_confidence=LEAST_CONFIDENCE if reason == "undecided" else 0.0,
        greatest_distance=0.0 if reason == "unfamiliar" else GREATEST_DISTANCE,
    )
    save_checkpoint(replace(checkpoint, abstention=abstention), target)
    return target
