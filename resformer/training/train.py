"""The epochs of a training: train, validate, keep the best, write the state to resume from.

A whole training: from a split data set to a checkpoint that can be served.

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
from resformer.data.dataset import EpochSampler, FilmDataset
from resformer.data.find import DataRoot
from resformer.data.manifest import Manifest
from resformer.devices import choose_device, place_model
from resformer.gate.fit import find_outliers
from resformer.model import IdentityMappingResFormer, ResFormerConfig
from resformer.training.config import TrainingConfig
from resformer.training.distributed import ProcessGroup, join_processes
from resformer.training.films import Workspace
from resformer.training.finish import complete, conclude
from resformer.training.learner import (
    FilmLoader,
    Learner,
    build_augmentation,
    build_learner,
    build_loader,
    build_loss,
    build_training_films,
    make_foreign,
    train_epoch,
    validate,
)
from resformer.training.lungs import LungStage, learn_lungs, take_lungs
from resformer.training.state import Progress, load_state, save_state
from resformer.transforms import InputSpec

logger = logging.getLogger(__name__)

STATE_NAME = "last.pt"
FOREIGN_MACRO_F1 = "foreign_macro_f1"


def run_epochs(
    learner: Learner,
    loaders: dict[int, FilmLoader],
    reached: Progress,
    workspace: Workspace,
    config: TrainingConfig,
    data_digest: str,
    group: ProcessGroup,
    *,
    foreign: FilmDataset | None = None,
    progress: bool,
) -> None:
    """Train until all epochs are done or validation stops improving.

    Args:
        learner: what to train.
        loaders: batches of this process, by side of the input.
        reached: how far the training has come; it is updated.
        workspace: films and folder of the training; its state is written there.
        config: how to train.
        data_digest: what the state to resume from is bound to.
        group: this process's place among the others.
        foreign: the validation films in foreign surroundings and style, if these have a say in the
            choice of the epoch.
        progress: whether to draw progress bars.
    """
    class_names = workspace.manifest.class_names
    validation = workspace.evaluation_films("validation")
    state = workspace.folder / STATE_NAME
    if group.is_main and not reached.history:
        save_state(state, learner, reached, config, class_names, data_digest)
    while not group.from_main(reached.is_over(config)):
        epoch = len(reached.history)
        # Dropout must not depend on what ran before, or a resumed training would differ.
        torch.manual_seed(config.seed + 1_000_003 * (epoch + 1) + group.rank)
        loader = loaders[config.size_at(epoch)]
        if isinstance(loader.sampler, EpochSampler):
            loader.sampler.set_epoch(epoch)
        label = f"epoch {epoch + 1}/{config.epochs}"
        figures = train_epoch(learner, loader, group, label=label, progress=progress)
        if group.is_main:
            figures |= validate(learner.average.module, validation, group.device)
            if foreign is not None:
                elsewhere = validate(learner.average.module, foreign, group.device)
                figures[FOREIGN_MACRO_F1] = elsewhere["validation_macro_f1"]
            _record(reached, figures, learner.average.module, config)
            save_state(state, learner, reached, config, class_names, data_digest)
        else:
            reached.history.append(figures)


def _record(
    reached: Progress, figures: dict[str, float], averaged: torch.nn.Module, config: TrainingConfig
) -> None:
    """Note an epoch's figures and keep its weights if they are the best so far.

    Weights that have learnt from a smaller input than the one served are not kept: a larger input
    moves the line between the classes.
    """
    epoch = len(reached.history) + 1
    reached.history.append({"epoch": epoch, **figures})
    home = figures["validation_macro_f1"]
    abroad = figures.get(FOREIGN_MACRO_F1, home)
    macro_f1 = home + config.foreign_share * (abroad - home)
    better = macro_f1 > reached.best_macro_f1
    if better and epoch > config.start_epochs:
        reached.best_epoch = epoch
        reached.best_macro_f1 = macro_f1
        reached.best_weights = copy.deepcopy(averaged.state_dict())
    logger.info(
        "epoch %d: loss %.4f, validation loss %.4f, accuracy %.4f, macro-F1 %.4f%s (best %.4f)",
        epoch,
        figures["train_loss"],
        figures["validation_loss"],
        figures["validation_accuracy"],
        home,
        f", in foreign style {abroad:.4f}" if FOREIGN_MACRO_F1 in figures else "",
        reached.best_macro_f1,
    )


def train(
    root: DataRoot,
    manifest: Manifest,
    config: TrainingConfig,
    folder: Path,
    *,
    model_config: ResFormerConfig | None = None,
    initial: Checkpoint | None = None,
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
        initial: whose weights are trained further; they know the lungs already, so these are not
            learned anew. The split must be the one that it was trained with.
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
        CheckpointError: if the folder's training had other options, another split or another start.
        ValueError: if the initial weights are those of another network or of other classes, the
            configuration does not fit the data, or the outliers hold no image.
    """
    _check_folder(folder, resume=resume)
    unwanted = find_outliers(outliers) if outliers else {}
    network = replace(
        model_config or ResFormerConfig(),
        num_classes=len(manifest.class_names),
        lung_head=config.lung_head,
        infection_head=config.infection_head,
    )
    if initial:
        _check_initial(initial, network, manifest)
    workspace = Workspace(
        root, manifest, folder, InputSpec(size=config.input_size), config.lung_head
    )
    with join_processes(choose_device(config.device)) as group:
        if group.is_main:
            _decode_films(workspace, progress=progress)
        group.from_main(None)
        digest = workspace.data_digest + (initial.source if initial else "")
        lungs = _learn_lungs(network, workspace, config, group, initial, progress=progress)
        loaders, learner = _prepare(network, workspace, config, group, lungs)
        reached = Progress()
        if resume:
            reached = load_state(folder / STATE_NAME, learner, config, digest)
        reached.initial = initial.training if initial else {}
        run_epochs(
            *(learner, loaders, reached, workspace, config, digest, group),
            foreign=_make_foreign(network, lungs, workspace, config, group),
            progress=progress,
        )
        checkpoint = None
        if group.is_main:
            checkpoint = conclude(network, reached, workspace, config, group.device, trial=trial)
            checkpoint = complete(
                *(checkpoint, workspace, config, unwanted, group.device),
                trial=trial,
                progress=progress,
            )
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


def _check_initial(initial: Checkpoint, network: ResFormerConfig, manifest: Manifest) -> None:
    if initial.model_config != network:
        raise ValueError(
            f"the initial weights are of the network {initial.model_config}, not of {network}: "
            "give the options that it was trained with"
        )
    if initial.class_names != manifest.class_names:
        raise ValueError(
            f"the initial weights know {', '.join(initial.class_names)}, the films are of "
            f"{', '.join(manifest.class_names)}: train these without initial weights"
        )


def _decode_films(workspace: Workspace, *, progress: bool) -> None:
    workspace.training_films(0, progress=progress)
    workspace.evaluation_films("validation", progress=progress)


def _learn_lungs(
    network: ResFormerConfig,
    workspace: Workspace,
    config: TrainingConfig,
    group: ProcessGroup,
    initial: Checkpoint | None,
    *,
    progress: bool,
) -> LungStage | None:
    """Run the first stage in the main process, where the network has a lung head."""
    if initial:
        stage = take_lungs(initial, workspace, group.device) if group.is_main else None
        return group.from_main(stage)
    if not (network.lung_head and config.lung_epochs):
        return None
    if group.is_main:
        learn_lungs(network, workspace, config, group.device, progress=progress)
    group.from_main(None)
    return learn_lungs(network, workspace, config, group.device, progress=False)


def _make_foreign(
    network: ResFormerConfig,
    lungs: LungStage | None,
    workspace: Workspace,
    config: TrainingConfig,
    group: ProcessGroup,
) -> FilmDataset | None:
    """Make the films that have a say in the choice of the epoch besides the validation films."""
    if not (config.foreign_share and lungs and group.is_main):
        return None
    outliner = IdentityMappingResFormer(network)
    outliner.load_state_dict(lungs.weights)
    validation = workspace.evaluation_films("validation")
    return make_foreign(validation, place_model(outliner, group.device).eval(), config.seed)


def _prepare(
    network: ResFormerConfig,
    workspace: Workspace,
    config: TrainingConfig,
    group: ProcessGroup,
    lungs: LungStage | None,
) -> tuple[dict[int, FilmLoader], Learner]:
    """Build the batches, by side of the input, and what learns from them."""
    masks = workspace.masks("train", config) if network.lung_head else ()
    films = build_training_films(workspace, config, masks, lungs.outlines if lungs else None)
    loaders = {
        size: build_loader(films.resized(size, build_augmentation(size, config)), config, group)
        for size in config.sizes
    }
    loss = build_loss(films, network, config)
    weights = lungs.weights if lungs else None
    steps = len(loaders[config.input_size])
    return loaders, build_learner(loss, steps, network, config, group, weights)
