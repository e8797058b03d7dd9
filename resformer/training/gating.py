"""Gives a checkpoint gate and abstention: at the end of a training, or later by a command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from resformer.abstention.fit import AbstentionConfig, FilmFeatures, fit_abstention
from resformer.checkpoint import Checkpoint
from resformer.data.dataset import FilmDataset
from resformer.devices import place_model
from resformer.gate.fit import fit_gate
from resformer.gate.outliers import read_outliers
from resformer.gate.samples import Describer, GateConfig, collect_samples
from resformer.model import IdentityMappingResFormer
from resformer.runtime.outputs import LOGITS, POOLED, run_network
from resformer.training.workspace import Workspace
from resformer.transforms import to_input

_BATCH_SIZE = 64


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


def add_abstention(
    checkpoint: Checkpoint,
    workspace: Workspace,
    device: torch.device,
    config: AbstentionConfig | None = None,
    *,
    progress: bool = False,
) -> Checkpoint:
    """Fit an abstention for a checkpoint's network.

    Args:
        checkpoint: calibrated, with or without an abstention, which is replaced.
        workspace: films of the training split are fitted on, those of validation set the
            thresholds.
        device: where the network runs.
        config: how to fit.
        progress: whether to draw progress bars.

    Returns:
        the checkpoint with its new abstention. A graph that was exported before graphs gave the
        pooled features has to be exported again.

    Raises:
        ValueError: if there are no validation films, or a class has no training film.
    """
    model = place_model(checkpoint.build_model(), device)
    training, validation = (
        _find_features(model, checkpoint, films, label, progress=progress)
        for label, films in (
            ("training films", workspace.training_films(0, progress=progress)),
            ("validation films", workspace.evaluation_films("validation", progress=progress)),
        )
    )
    num_classes = len(checkpoint.class_names)
    fitted = fit_abstention(training, validation, num_classes, config or AbstentionConfig())
    return replace(checkpoint, abstention=fitted)


@torch.inference_mode()
def _find_features(
    model: IdentityMappingResFormer,
    checkpoint: Checkpoint,
    dataset: FilmDataset,
    label: str,
    *,
    progress: bool,
) -> FilmFeatures:
    """Run a network over the films of a data set, without its augmentation."""
    device = next(model.parameters()).device
    pooled = torch.zeros(len(dataset), checkpoint.model_config.pooled_width)
    confidence = torch.zeros(len(dataset), dtype=torch.float64)
    starts = range(0, len(dataset), _BATCH_SIZE)
    for start in tqdm(starts, desc=label, unit="batch", disable=not progress):
        batch = slice(start, start + _BATCH_SIZE)
        films = [to_input(np.asarray(film), checkpoint.input_spec) for film in dataset.films[batch]]
        images = torch.stack(films).to(device, memory_format=torch.channels_last)
        outputs = run_network(model, images)
        logits = outputs[LOGITS].double() / checkpoint.temperature
        pooled[batch] = outputs[POOLED].float().cpu()
        confidence[batch] = torch.softmax(logits, dim=1).max(dim=1).values.cpu()
    return FilmFeatures(pooled, confidence, torch.from_numpy(dataset.labels))
