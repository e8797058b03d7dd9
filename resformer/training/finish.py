"""Gives a checkpoint gate and abstention: at the end of a training, or later by a command.

What a training ends with: calibrated weights, their figures, a gate and an abstention.

The mean of the weights of trainings that started from one network.

Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy
without increasing inference time", ICML 2022. All that are given are averaged alike; their greedy
choice among many is not made here. The statistics of batch normalisation are averaged too, as those
of the moving average of a training are.

Measures the statistics of batch normalisation on films as they are served.

While a network learns, its layers average the statistics of varied films: sharpened, blurred,
covered, in foreign surroundings. Wu and Johnson, "Rethinking 'Batch' in BatchNorm"
(arXiv:2105.07576), measure them anew once the weights are fixed ("precise" statistics) and show
that the data they come from must be the data that the network will see. Here these are training
films without any variation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from torch import Tensor, nn
from tqdm import tqdm

from resformer.abstention import AbstentionConfig, FilmFeatures, fit_abstention
from resformer.backends import LOGITS, POOLED, run_network
from resformer.checkpoint import Checkpoint, CheckpointError
from resformer.data.dataset import FilmDataset
from resformer.data.split import SPLITS
from resformer.devices import choose_device, place_model
from resformer.evaluation.metrics import evaluate_predictions, fit_temperature
from resformer.evaluation.report import list_stages
from resformer.gate.fit import Describer, GateConfig, collect_samples, fit_gate, read_outliers
from resformer.model import IdentityMappingResFormer, ResFormerConfig
from resformer.training.config import TrainingConfig
from resformer.training.films import Workspace
from resformer.training.learner import split_logits
from resformer.training.lungs import validation_dice
from resformer.training.state import Progress
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


def average_trainings(
    checkpoints: Sequence[Checkpoint],
    workspace: Workspace,
    outliers: Mapping[str, Sequence[Path]],
    *,
    trial: bool = False,
    device: str = "auto",
    progress: bool = True,
) -> Checkpoint:
    """Average trained networks; calibrate, judge and complete the mean as a training does.

    Args:
        checkpoints: two or more of one network that were trained on one split, from one start.
        workspace: the films of that split, at the size that the networks expect.
        outliers: files of pictures that the gate shall refuse, by kind.
        trial: whether to leave the test split alone and to fit neither gate nor abstention.
        device: where the network runs.
        progress: whether to draw progress bars.

    Returns:
        the checkpoint of the mean; ``training["initial"]`` is the list of what the checkpoints tell
        of their trainings.

    Raises:
        CheckpointError: if there is but one checkpoint, or they do not fit together or to the
            films, or have no training in common.
    """
    _check(checkpoints, workspace)
    first = checkpoints[0]
    config = TrainingConfig.from_dict(first.training.get("config", {}))
    config = replace(config, input_size=first.input_spec.size, start_size=0, normalisation_films=0)
    mean = Progress(
        best_weights=average_weights([checkpoint.state_dict for checkpoint in checkpoints]),
        initial=[checkpoint.training for checkpoint in checkpoints],
    )
    place = choose_device(device)
    made = conclude(first.model_config, mean, workspace, config, place, trial=trial)
    return complete(made, workspace, config, outliers, place, trial=trial, progress=progress)


def average_weights(weights: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the mean of the weights of networks of one kind, in their shapes and types.

    Args:
        weights: of each network, by name, as ``state_dict`` gives them.

    Returns:
        the mean, summed in float64; of counters, which are no floating point, the first's.
    """
    first, *_ = weights
    return {
        name: torch.stack([w[name].double() for w in weights]).mean(0).to(value.dtype)
        if value.is_floating_point()
        else value
        for name, value in first.items()
    }


def _check(checkpoints: Sequence[Checkpoint], workspace: Workspace) -> None:
    if len(checkpoints) < 2:
        raise CheckpointError(f"a mean is of two networks or more, got {len(checkpoints)}")
    first = checkpoints[0]
    for other in checkpoints[1:]:
        for name in ("model_config", "class_names", "input_spec"):
            if getattr(other, name) != getattr(first, name):
                raise CheckpointError(
                    f"the networks differ in {name}: {getattr(first, name)} and "
                    f"{getattr(other, name)}: average trainings that started from one network"
                )
    starts = [list_stages(checkpoint.training)[0] for checkpoint in checkpoints]
    if any(start != starts[0] for start in starts):
        raise CheckpointError(
            "the networks have no training in common, and the mean of networks that learned apart "
            "knows nothing: average those that train --initial made from one network"
        )
    classes = workspace.manifest.class_names
    if first.class_names != classes:
        raise CheckpointError(
            f"the networks know {', '.join(first.class_names)}, the films are of "
            f"{', '.join(classes)}: give the films that they were trained on"
        )
    digests = {checkpoint.training.get("data_digest") for checkpoint in checkpoints}
    if digests != {workspace.data_digest}:
        raise CheckpointError(
            "the networks were trained on other films or on another split than this one, so its "
            "test films may not be unseen: give the --data and the --manifest of their training"
        )


@torch.no_grad()
def measure_normalisation(model: nn.Module, films: FilmDataset, count: int, seed: int = 0) -> None:
    """Replace the means and variances of all batch normalisation of a network, in place.

    Args:
        model: in evaluation mode, in which it is left.
        films: without augmentation.
        count: how many of them to use, drawn at random; all where there are no more.
        seed: of the draw.

    Raises:
        ValueError: if the network is in training mode, or there is no film to use.
    """
    if model.training:
        raise ValueError("the weights must be fixed first: call eval()")
    if count < 1 or not len(films):
        raise ValueError(f"cannot measure statistics on {min(count, len(films))} films: give some")
    layers = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the plain average over all batches
        layer.train()
    device = next(model.parameters()).device
    drawn = np.random.default_rng(seed).permutation(len(films))[:count]
    # Batches of one size, or the last one would count for more than its films.
    for chosen in np.array_split(drawn, max(1, round(len(drawn) / _BATCH_SIZE))):
        images = torch.stack([films[0, int(index)].image for index in chosen]).to(device)
        model(images.contiguous(memory_format=torch.channels_last))
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
        layer.eval()
