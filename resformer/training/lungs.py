"""The first stage of a training with a lung head: learn the lungs, then outline those of all films.

Masks exist for a part of the films, and for some classes not at all, so replacing the background
by them would itself tell the classes apart. This stage learns the lungs from the films that have a
mask and predicts them for every training film, with a mask or without; the background is replaced
by these outlines alone. The weights are where the training of the classes starts from.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from resformer.checkpoint import Checkpoint, read_content, save_atomically
from resformer.data.dataset import EpochSampler
from resformer.data.masks import RegionMasks, cache_arrays
from resformer.devices import place_model
from resformer.evaluation.answers import dice_of_lungs, predict_lungs
from resformer.model import IdentityMappingResFormer, ResFormerConfig
from resformer.training.config import TrainingConfig
from resformer.training.distributed import ProcessGroup
from resformer.training.films import Workspace
from resformer.training.learner import (
    build_learner,
    build_loader,
    build_training_films,
    train_epoch,
)
from resformer.training.losses import TrainingLoss
from resformer.transforms import resize_pixels

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LungStage:
    """What the stage leaves to the training of the classes.

    Attributes:
        weights: averaged weights of the whole network.
        outlines: predicted lungs of the training films, ``(N, size, size)`` uint8 from 0, outside,
            to 255, inside; none where the network has no lung head.
    """

    weights: dict[str, Tensor]
    outlines: NDArray[np.uint8] | None


def learn_lungs(
    network: ResFormerConfig,
    workspace: Workspace,
    config: TrainingConfig,
    device: torch.device,
    *,
    progress: bool,
) -> LungStage:
    """Run the stage, or find in the run's folder what it left there.

    A stage that was interrupted starts again; it takes a few minutes and gives the same result.

    Args:
        network: with a lung head.
        workspace: films and folder of the training.
        config: of the training; ``lung_epochs`` takes the place of ``epochs``.
        device: where the network runs.
        progress: whether to draw progress bars.

    Raises:
        ValueError: if no training film has a mask.
    """
    masks = workspace.masks("train", config)
    if not masks[0].known.any():
        raise ValueError(
            "no training film has a lung mask: put <Class>/masks/<name>.png beside "
            "<Class>/images/, or train without --lung-head"
        )
    stage = _stage_config(config)
    digest = _digest(network, workspace, stage)
    path = workspace.cache / f"lungs-{digest}.pt"
    if not path.is_file():
        model = _train(network, workspace, stage, masks, device, progress=progress)
        dice = validation_dice(model, workspace)
        if dice is not None:
            logger.info("lungs: Dice %.4f on the validation films that have a mask", dice)
        weights = {name: weight.cpu() for name, weight in model.state_dict().items()}
        save_atomically({"weights": weights}, path)
    content = read_content(path)
    model = IdentityMappingResFormer(network)
    model.load_state_dict(content["weights"])
    outlines = _outline(place_model(model, device).eval(), workspace, digest)
    return LungStage(content["weights"], outlines)


def take_lungs(initial: Checkpoint, workspace: Workspace, device: torch.device) -> LungStage:
    """Let a network that was trained before outline the lungs, in place of the stage.

    Args:
        initial: the network, with or without a lung head.
        workspace: films and folder of the training.
        device: where the network runs.
    """
    if not initial.model_config.lung_head:
        return LungStage(initial.state_dict, None)
    model = place_model(initial.build_model(), device)
    digest = hashlib.sha256((initial.source + workspace.data_digest).encode()).hexdigest()[:16]
    outlines = _outline(model, workspace, digest)
    return LungStage(initial.state_dict, outlines)


def _stage_config(config: TrainingConfig) -> TrainingConfig:
    """Take over what shapes the stage; all else is left at its default, so changes nothing."""
    return TrainingConfig(
        input_size=config.input_size,
        epochs=config.lung_epochs,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        optimizer=config.optimizer,
        muon_learning_rate=config.muon_learning_rate,
        muon_weight_decay=config.muon_weight_decay,
        warmup_epochs=config.warmup_epochs,
        ema_decay=config.ema_decay,
        gradient_clip=config.gradient_clip,
        augmentation=config.augmentation,
        lung_head=True,
        infection_head=config.infection_head,
        healthy_class=config.healthy_class,
        seed=config.seed,
        precision=config.precision,
        workers=config.workers,
    )


def _digest(network: ResFormerConfig, workspace: Workspace, stage: TrainingConfig) -> str:
    options = {name: value for name, value in asdict(stage).items() if name != "workers"}
    parts = (network.to_dict(), options, workspace.data_digest)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _train(
    network: ResFormerConfig,
    workspace: Workspace,
    stage: TrainingConfig,
    masks: Sequence[RegionMasks],
    device: torch.device,
    *,
    progress: bool,
) -> IdentityMappingResFormer:
    """Train on the films that have a mask; the averaged network."""
    alone = ProcessGroup(0, 1, device)
    everything = build_training_films(workspace, stage, masks)
    films = everything.subset(np.flatnonzero(masks[0].known))
    loader = build_loader(films, stage, alone)
    loss = TrainingLoss(torch.ones(network.num_classes), class_loss=0.0, lung_loss=1.0).to(device)
    learner = build_learner(loss, len(loader), network, stage, alone)
    for epoch in range(stage.epochs):
        torch.manual_seed(stage.seed + 1_000_003 * (epoch + 1))
        if isinstance(loader.sampler, EpochSampler):
            loader.sampler.set_epoch(epoch)
        label = f"lungs {epoch + 1}/{stage.epochs}"
        figures = train_epoch(learner, loader, alone, label=label, progress=progress)
        logger.info("%s: loss %.4f", label, figures["train_loss"])
    return learner.network.eval()


def validation_dice(model: IdentityMappingResFormer, workspace: Workspace) -> float | None:
    """Return the mean Dice of the validation films that have a mask; None without any.

    Args:
        model: in evaluation mode, with a lung head or without one, which gives None.
        workspace: the films and masks.
    """
    if model.lung_head is None:
        return None
    masks = workspace.lungs("validation")
    known = np.flatnonzero(masks.known)
    if not known.size:
        return None
    films = workspace.evaluation_films("validation").films[known]
    return dice_of_lungs(predict_lungs(model, films, workspace.spec), masks.masks[known])


def _outline(
    model: IdentityMappingResFormer, workspace: Workspace, digest: str
) -> NDArray[np.uint8]:
    """Predict the lungs of all training films at the size that they are cached at.

    Args:
        model: in evaluation mode, with a lung head.
        workspace: the films, and the folder where the outlines are kept.
        digest: of the network and of the films.
    """
    films = workspace.training_films(0).films
    size = films.shape[-1]
    path = workspace.cache / f"lungs-{len(films)}x{size}-{digest}.npy"
    predicted: list[NDArray[np.uint8]] = []
    if not path.is_file():
        lungs = predict_lungs(model, films, workspace.spec)
        predicted.extend(np.rint(255 * lungs).astype(np.uint8))

    def load(index: int) -> NDArray[np.uint8]:
        return resize_pixels(predicted[index], size)

    return cache_arrays(path, load, films.shape)
