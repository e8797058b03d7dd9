"""A whole training: from a split data set to a checkpoint that can be served.

The best epoch is chosen by macro-F1 on the validation split; the test split is looked at once,
after the training, by the weights that were chosen.
"""

from __future__ import annotations

import copy
import logging
from dataclasses import replace
from pathlib import Path

import torch

from resformer.checkpoint import Checkpoint
from resformer.data.dataset import EpochSampler
from resformer.data.manifest import Manifest
from resformer.data.roots import DataRoot
from resformer.devices import choose_device
from resformer.gate.outliers import find_outliers
from resformer.gate.samples import GateConfig
from resformer.model import ResFormerConfig
from resformer.training.conclusion import conclude
from resformer.training.config import TrainingConfig
from resformer.training.distributed import ProcessGroup, join_processes
from resformer.training.engine import FilmLoader, Learner, train_epoch
from resformer.training.gating import add_abstention, add_gate
from resformer.training.lungs import LungStage, learn_lungs
from resformer.training.state import Progress, load_state, save_state
from resformer.training.validation import validate
from resformer.training.workspace import (
    Workspace,
    build_learner,
    build_loader,
    build_loss,
    build_training_films,
)
from resformer.transforms import InputSpec

logger = logging.getLogger(__name__)

STATE_NAME = "last.pt"


def train(
    root: DataRoot,
    manifest: Manifest,
    config: TrainingConfig,
    folder: Path,
    *,
    model_config: ResFormerConfig | None = None,
    outliers: Path | None = None,
    resume: bool = False,
    trial: bool = False,
    progress: bool = True,
) -> Checkpoint:
    """Train a network and evaluate it.

    Args:
        root: what the manifest's paths are relative to.
        manifest: films, classes and split.
        config: how to train.
        folder: of this run; a training that is stopped is resumed from here.
        model_config: the network; its ``num_classes`` is set by the manifest.
        outliers: folder of pictures that the gate shall refuse, besides those that it draws.
        resume: whether to go on where the folder's training was stopped.
        trial: whether this only compares ways of training: the test split is left alone, and
            neither gate nor abstention is fitted.
        progress: whether to draw progress bars.

    Returns:
        the checkpoint with the reports of the validation and, but for a trial, the test split.

    Raises:
        FileExistsError: if the folder holds a training and ``resume`` is not given.
        FileNotFoundError: if ``resume`` is given and the folder holds none.
        CheckpointError: if the folder's training had other options or another split.
        ValueError: if the configuration does not fit the data, or the outliers hold no image.
    """
    _check_folder(folder, resume=resume)
    unwanted = find_outliers(outliers) if outliers else {}
    network = replace(
        model_config or ResFormerConfig(),
        num_classes=len(manifest.class_names),
        lung_head=config.lung_head,
        infection_head=config.infection_head,
    )
    workspace = Workspace(
        root, manifest, folder, InputSpec(size=config.input_size), config.lung_head
    )
    with join_processes(choose_device(config.device)) as group:
        if group.is_main:
            _decode_films(workspace, progress=progress)
        group.from_main(None)
        lungs = _learn_lungs(network, workspace, config, group, progress=progress)
        loader, learner = _prepare(network, workspace, config, group, lungs)
        reached = Progress()
        if resume:
            reached = load_state(folder / STATE_NAME, learner, config, workspace.data_digest)
        _run_epochs(learner, loader, reached, workspace, config, group, progress=progress)
        checkpoint = None
        if group.is_main:
            checkpoint = conclude(network, reached, workspace, config, group, trial=trial)
            if lungs:
                checkpoint.training["lungs"] = {"validation_dice": lungs.validation_dice}
            if not trial:
                gate = GateConfig(seed=config.seed)
                checkpoint = add_gate(checkpoint, workspace, unwanted, group.device, gate, progress)
                checkpoint = add_abstention(checkpoint, workspace, group.device, progress=progress)
        checkpoint = group.from_main(checkpoint)
    if checkpoint is None:
        raise RuntimeError("the main process sent no checkpoint")
    return checkpoint


def _check_folder(folder: Path, *, resume: bool) -> None:
    exists = (folder / STATE_NAME).is_file()
    if exists and not resume:
        raise FileExistsError(f"{folder} holds a training: pass --resume, or name another folder")
    if resume and not exists:
        raise FileNotFoundError(f"{folder} holds no training to resume: start without --resume")


def _decode_films(workspace: Workspace, *, progress: bool) -> None:
    workspace.training_films(0, progress=progress)
    workspace.evaluation_films("validation", progress=progress)


def _learn_lungs(
    network: ResFormerConfig,
    workspace: Workspace,
    config: TrainingConfig,
    group: ProcessGroup,
    *,
    progress: bool,
) -> LungStage | None:
    """Run the first stage in the main process, where the network has a lung head."""
    if not (network.lung_head and config.lung_epochs):
        return None
    if group.is_main:
        learn_lungs(network, workspace, config, group.device, progress=progress)
    group.from_main(None)
    return learn_lungs(network, workspace, config, group.device, progress=False)


def _prepare(
    network: ResFormerConfig,
    workspace: Workspace,
    config: TrainingConfig,
    group: ProcessGroup,
    lungs: LungStage | None,
) -> tuple[FilmLoader, Learner]:
    """Build the batches and what learns from them."""
    masks = workspace.masks("train", config) if network.lung_head else ()
    films = build_training_films(workspace, config, masks, lungs.outlines if lungs else None)
    loader = build_loader(films, config, group)
    loss = build_loss(films, network, config)
    weights = lungs.weights if lungs else None
    return loader, build_learner(loss, len(loader), network, config, group, weights)


def _run_epochs(
    learner: Learner,
    loader: FilmLoader,
    reached: Progress,
    workspace: Workspace,
    config: TrainingConfig,
    group: ProcessGroup,
    *,
    progress: bool,
) -> None:
    """Train until all epochs are done or validation stops improving, updating ``reached``."""
    validation = workspace.evaluation_films("validation")
    state = workspace.folder / STATE_NAME
    if group.is_main and not reached.history:
        save_state(state, learner, reached, config, workspace.data_digest)
    while not group.from_main(reached.is_over(config)):
        epoch = len(reached.history)
        # Dropout must not depend on what ran before, or a resumed training would differ.
        torch.manual_seed(config.seed + 1_000_003 * (epoch + 1) + group.rank)
        if isinstance(loader.sampler, EpochSampler):
            loader.sampler.set_epoch(epoch)
        label = f"epoch {epoch + 1}/{config.epochs}"
        figures = train_epoch(learner, loader, group, label=label, progress=progress)
        if group.is_main:
            figures |= validate(learner.average.module, validation, group.device)
            _record(reached, figures, learner.average.module)
            save_state(state, learner, reached, config, workspace.data_digest)
        else:
            reached.history.append(figures)


def _record(reached: Progress, figures: dict[str, float], averaged: torch.nn.Module) -> None:
    """Note an epoch's figures and keep its weights if they are the best so far."""
    epoch = len(reached.history) + 1
    reached.history.append({"epoch": epoch, **figures})
    if figures["validation_macro_f1"] > reached.best_macro_f1:
        reached.best_epoch = epoch
        reached.best_macro_f1 = figures["validation_macro_f1"]
        reached.best_weights = copy.deepcopy(averaged.state_dict())
    logger.info(
        "epoch %d: loss %.4f, validation loss %.4f, accuracy %.4f, macro-F1 %.4f (best %.4f)",
        epoch,
        figures["train_loss"],
        figures["validation_loss"],
        figures["validation_accuracy"],
        figures["validation_macro_f1"],
        reached.best_macro_f1,
    )
