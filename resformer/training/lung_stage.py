"""The first stage of a training with a lung head: learn the lungs, then outline those of all films.

Masks exist for a part of the films, and for some classes not at all, so replacing the background
by them would itself tell the classes apart. This stage learns the lungs from the films that have a
mask and predicts them for every training film, with a mask or without; the background is replaced
by these outlines alone. The weights are where the training of the classes starts from.

Where no film has a mask, a lung model draws them: another checkpoint with a lung head, by default
the one that is shipped.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from resformer import find_shipped_model
from resformer.backends import PyTorchBackend
from resformer.checkpoint import (
    FORMAT,
    Checkpoint,
    CheckpointError,
    load_checkpoint,
    read_content,
    save_atomically,
)
from resformer.data.masks import OUTLINED, RegionMasks, cache_arrays
from resformer.evaluation.predictions import dice_of_lungs, predict_lungs
from resformer.model import ResFormerConfig
from resformer.training.config import TrainingConfig
from resformer.training.data import TrainingData, build_loader, build_training_films
from resformer.training.distributed import ProcessGroup
from resformer.training.epoch import begin_epoch, build_learner, train_one_epoch
from resformer.training.losses import TrainingLoss
from resformer.transforms import resize_pixels

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LungStage:
    """What the stage leaves to the training of the classes.

    Attributes:
        weights: averaged weights of the whole network; none where it starts from random ones.
        outlines: predicted lungs of the training films, ``(N, size, size)`` uint8 from 0, outside,
            to 255, inside; none where the network has no lung head.
    """

    weights: dict[str, Tensor] | None
    outlines: NDArray[np.uint8] | None


def load_lung_model(path: Path | None = None) -> Checkpoint | None:
    """Load the network that outlines lungs where no film has a mask; None without one.

    By default it is the shipped one, in the package's folder or beside it.

    Raises:
        CheckpointError: if the named file cannot be used.
    """
    if path is not None:
        named = load_checkpoint(path)
        if not named.model_config.lung_head:
            raise CheckpointError(f"{path} has no lung head: name another model")
        return named
    shipped = find_shipped_model()
    try:
        checkpoint = load_checkpoint(shipped) if shipped.is_file() else None
    except CheckpointError as error:
        logger.warning("%s", error)
        return None
    return checkpoint if checkpoint and checkpoint.model_config.lung_head else None


def outline_masks(lung_model: Checkpoint, data: TrainingData, device: torch.device) -> RegionMasks:
    """Outline the lungs of all training films, to be learnt in place of masks."""
    outlines = _outline(lung_model, data, device)
    known = np.full(len(outlines), OUTLINED, dtype=np.float32)
    return RegionMasks(outlines, known, lung_model.source)


def learn_lungs(
    network: ResFormerConfig,
    data: TrainingData,
    config: TrainingConfig,
    masks: Sequence[RegionMasks],
    device: torch.device,
    *,
    progress: bool,
) -> LungStage:
    """Run the stage, or find in the run's folder what it left there.

    A stage that was interrupted starts again; it takes a few minutes and gives the same result.
    The masks are those of the training films, the lungs first.

    Raises:
        ValueError: if no training film has a mask.
    """
    if not masks or not masks[0].known.any():
        raise ValueError(
            "no training film has a lung mask: put <Class>/masks/<name>.png beside "
            "<Class>/images/, name a lung model (--lung-model), or train without a lung head "
            "(--no-lung-head)"
        )
    stage = _stage_config(config)
    digest = _digest(network, data, stage, masks)
    path = data.cache / f"lungs-{digest}.pt"
    untrained = Checkpoint(network, data.manifest.class_names, data.spec, {})
    if not path.is_file():
        weights = _train(network, data, stage, masks, device, progress=progress)
        dice = validation_dice(replace(untrained, state_dict=weights), data, device)
        if dice is not None:
            logger.info("lungs: Dice %.4f on the validation films that have a mask", dice)
        save_atomically({"weights": weights}, path)
    weights = read_content(path)["weights"]
    return LungStage(weights, _outline(replace(untrained, state_dict=weights), data, device))


def take_lungs(initial: Checkpoint, data: TrainingData, device: torch.device) -> LungStage:
    """Let a network that was trained before outline the lungs, in place of the stage."""
    has_lungs = initial.model_config.lung_head
    return LungStage(initial.state_dict, _outline(initial, data, device) if has_lungs else None)


def validation_dice(
    checkpoint: Checkpoint, data: TrainingData, device: torch.device
) -> float | None:
    """Return the mean Dice of the validation films that have a mask; None without any."""
    if not checkpoint.model_config.lung_head:
        return None
    masks = data.lungs("validation")
    known = np.flatnonzero(masks.known)
    if not known.size:
        return None
    films = data.evaluation_films("validation").films[known]
    lungs = predict_lungs(PyTorchBackend(checkpoint, device), films, data.spec.size)
    return dice_of_lungs(lungs, masks.masks[known])


def _stage_config(config: TrainingConfig) -> TrainingConfig:
    """Take over what shapes the stage; all else is left as it is everywhere, so changes nothing."""
    everywhere = TrainingConfig()
    return replace(
        config,
        epochs=config.lung_epochs,
        start_size=0,
        lung_loss=everywhere.lung_loss,
        label_smoothing=everywhere.label_smoothing,
        prior_smoothing=1.0,
        background_replacement=0.0,
        lung_concealment=0.0,
        style_exchange=0.0,
        device=everywhere.device,
    )


def _digest(
    network: ResFormerConfig,
    data: TrainingData,
    stage: TrainingConfig,
    masks: Sequence[RegionMasks],
) -> str:
    options = {name: value for name, value in asdict(stage).items() if name != "workers"}
    regions = [region.digest for region in masks]
    parts = (FORMAT, network.to_dict(), options, data.data_digest, regions)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _train(
    network: ResFormerConfig,
    data: TrainingData,
    stage: TrainingConfig,
    masks: Sequence[RegionMasks],
    device: torch.device,
    *,
    progress: bool,
) -> dict[str, Tensor]:
    """Train on the films that have a mask, and return the averaged weights."""
    alone = ProcessGroup(0, 1, device)
    everything = build_training_films(data, stage, masks)
    films = everything.subset(np.flatnonzero(masks[0].known))
    loader = build_loader(films, stage, alone)
    loss = TrainingLoss(class_loss=0.0, lung_loss=1.0)
    learner = build_learner(loss, len(loader), network, stage, alone)
    for epoch in range(stage.epochs):
        begin_epoch(epoch, loader, stage, alone)
        label = f"lungs {epoch + 1}/{stage.epochs}"
        figures = train_one_epoch(learner, loader, alone, label=label, progress=progress)
        logger.info("%s: loss %.4f", label, figures["train_loss"])
    return learner.averaged_weights()


def _outline(checkpoint: Checkpoint, data: TrainingData, device: torch.device) -> NDArray[np.uint8]:
    """Predict the lungs of all training films at the size that they are cached at."""
    films = data.training_films().films
    count, size = len(films), films.shape[-1]
    rows = "".join(row.sha256 for row in data.manifest.subset("train"))
    digest = hashlib.sha256((checkpoint.source + rows).encode()).hexdigest()[:16]
    path = data.cache / f"lungs-{count}x{size}-{digest}.npy"
    predicted: list[NDArray[np.uint8]] = []
    if not path.is_file():
        backend = PyTorchBackend(checkpoint, device)
        lungs = predict_lungs(backend, films, checkpoint.input_spec.size)
        predicted.extend(np.rint(255 * lungs).astype(np.uint8))

    def load(index: int) -> NDArray[np.uint8]:
        return resize_pixels(predicted[index], size)

    return cache_arrays(path, load, films.shape)
