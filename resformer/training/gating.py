"""Gives a checkpoint its gate: at the end of a training, or later by a command of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from resformer.checkpoint import Checkpoint
from resformer.devices import place_model
from resformer.gate.fit import fit_gate
from resformer.gate.outliers import read_outliers
from resformer.gate.samples import Describer, GateConfig, collect_samples
from resformer.training.workspace import Workspace


def add_gate(
    checkpoint: Checkpoint,
    workspace: Workspace,
    outliers: Mapping[str, Sequence[Path]],
    device: torch.device,
    config: GateConfig,
    progress: bool = False,
) -> Checkpoint:
    """Fit a gate for a checkpoint's network.

    Args:
        checkpoint: with or without a gate, which is replaced.
        workspace: films of the training split are fitted on, those of validation set the threshold.
        outliers: files of pictures that shall be refused, by kind; may be empty, because others
            are made in any case.
        device: where the network runs.
        config: how to fit.
        progress: whether to draw progress bars.

    Returns:
        the checkpoint with its new gate.

    Raises:
        ValueError: if a split is empty.
    """
    model = place_model(checkpoint.build_model(), device)
    samples = collect_samples(
        Describer(model, checkpoint.input_spec, progress=progress),
        workspace.training_films(config.seed, progress=progress).films,
        workspace.evaluation_films("validation", progress=progress).films,
        read_outliers(outliers),
        config,
    )
    return replace(checkpoint, gate=fit_gate(samples, config))
