"""The epochs of a training: train, validate, keep the best, write the state to resume from."""

from __future__ import annotations

import copy
import logging

import torch

from resformer.data.dataset import EpochSampler, FilmDataset
from resformer.training.config import TrainingConfig
from resformer.training.distributed import ProcessGroup
from resformer.training.engine import FilmLoader, Learner, train_epoch
from resformer.training.state import Progress, save_state
from resformer.training.validation import validate
from resformer.training.workspace import Workspace

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
