"""What a training ends with: calibrated weights, their figures, a gate and an abstention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax

from resformer.checkpoint import Checkpoint
from resformer.data.split import SPLITS
from resformer.devices import place_model
from resformer.evaluation.calibration import fit_temperature
from resformer.evaluation.metrics import evaluate_predictions
from resformer.gate.samples import GateConfig
from resformer.model import IdentityMappingResFormer, ResFormerConfig
from resformer.training.config import TrainingConfig
from resformer.training.engine import split_logits
from resformer.training.gating import add_abstention, add_gate
from resformer.training.lungs import validation_dice
from resformer.training.normalisation import measure_normalisation
from resformer.training.state import Progress
from resformer.training.workspace import Workspace


def conclude(
    network: ResFormerConfig,
    reached: Progress,
    workspace: Workspace,
    config: TrainingConfig,
    device: torch.device,
    *,
    trial: bool,
) -> Checkpoint:
    """Calibrate the best weights on the validation split; report on it, and on the test split.

    Before that the normalisation is measured on films as they are served, if so configured.
    """
    model = IdentityMappingResFormer(network)
    if reached.best_weights:
        model.load_state_dict(reached.best_weights)
    place_model(model.eval(), device)
    if config.normalisation_films:
        unvaried = workspace.unvaried_films("train")
        measure_normalisation(model, unvaried, config.normalisation_films, config.seed)
    names = workspace.manifest.class_names
    splits = ("validation",) if trial else ("validation", "test")
    films = {split: workspace.evaluation_films(split) for split in splits}
    logits = {split: split_logits(model, films[split], device) for split in films}
    temperature = fit_temperature(logits["validation"], films["validation"].labels)

    def report(split: str) -> dict[str, object]:
        probabilities: NDArray[np.float64] = softmax(logits[split] / temperature, axis=1)
        return evaluate_predictions(films[split].labels, probabilities, names, seed=config.seed)

    return Checkpoint(
        model_config=network,
        class_names=names,
        input_spec=workspace.spec,
        state_dict={name: weight.cpu() for name, weight in model.state_dict().items()},
        temperature=temperature,
        metrics={split: report(split) for split in films},
        training={
            "config": asdict(config),
            "best_epoch": reached.best_epoch,
            "history": reached.history,
            "films": {split: len(workspace.manifest.subset(split)) for split in SPLITS},
            "data_digest": workspace.data_digest,
            **({"initial": reached.initial} if reached.initial else {}),
        },
    )


def complete(
    checkpoint: Checkpoint,
    workspace: Workspace,
    config: TrainingConfig,
    outliers: Mapping[str, Sequence[Path]],
    device: torch.device,
    *,
    trial: bool,
    progress: bool,
) -> Checkpoint:
    """Measure the lungs of a concluded training; fit gate and abstention, unless it is a trial."""
    dice = validation_dice(checkpoint.build_model(), workspace)
    if dice is not None:
        checkpoint.training["lungs"] = {"validation_dice": dice}
    if trial:
        return checkpoint
    gate = GateConfig(seed=config.seed)
    checkpoint = add_gate(checkpoint, workspace, outliers, device, gate, progress)
    return add_abstention(checkpoint, workspace, device, progress=progress)
