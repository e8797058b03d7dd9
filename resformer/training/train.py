"""How a training goes, from a split data set to a checkpoint that can be served.

1. **Prepare**: decode the films, and leave out of the recipe what the data cannot teach.
2. **Lungs**: learn them from the films that have a mask, and outline them on all training films
   (:mod:`resformer.training.lung_stage`).
3. **Epochs**: train on every film once (:mod:`resformer.training.epoch`), look at the validation
   films, keep the weights if they are the best so far, and write the state to resume from.
4. **Finish**: calibrate the best weights, report on them, fit gate and abstention
   (:mod:`resformer.training.finish`).

The best epoch is chosen on the validation films, within one source at a time
(:func:`score_epoch`); the test films are looked at after all that.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import log_softmax
from sklearn.metrics import f1_score
from torch import nn

from resformer.checkpoint import Checkpoint
from resformer.data.find import DataRoot
from resformer.data.manifest import Manifest
from resformer.data.masks import RegionMasks
from resformer.data.split import SPLITS
from resformer.devices import choose_device, place_model
from resformer.evaluation.lineage import MACRO_F1, WITHIN_SOURCES
from resformer.evaluation.sources import compare_within_sources
from resformer.inference import fold_batch_norm
from resformer.model import IdentityMappingResFormer, ResFormerConfig
from resformer.training import finish, lung_stage
from resformer.training.config import OURS, TrainingConfig
from resformer.training.data import (
    FilmLoader,
    TrainingData,
    build_augmentation,
    build_loader,
    build_training_films,
    fit_to_data,
    take_heads,
)
from resformer.training.distributed import ProcessGroup, join_processes
from resformer.training.epoch import (
    Learner,
    begin_epoch,
    build_learner,
    build_loss,
    train_one_epoch,
)
from resformer.training.gate_fit import GateConfig, find_outliers
from resformer.training.state import (
    STATE_NAME,
    Progress,
    check_run_folder,
    check_state,
    check_tensorboard,
    describe_epoch,
    load_state,
    lock_run_folder,
    open_tensorboard,
    save_state,
    show_history,
)
from resformer.transforms import InputSpec

logger = logging.getLogger(__name__)

OnEpoch = Callable[[Sequence[Mapping[str, Any]]], None]


@dataclass(frozen=True)
class Run:
    """What stays the same from the first epoch to the end.

    Attributes:
        data: films and folder of the training.
        config: how to train, without what the data cannot teach.
        network: what is trained; of a baseline the number of classes alone counts.
        group: this process's place among the others.
        digest: what the state to resume from is bound to: films, masks and initial weights.
        progress: whether to draw progress bars.
        build: makes the network.
    """

    data: TrainingData
    config: TrainingConfig
    network: ResFormerConfig
    group: ProcessGroup
    digest: str
    progress: bool
    build: Callable[[ResFormerConfig], nn.Module] = IdentityMappingResFormer

    def averaged_model(self, learner: Learner) -> nn.Module:
        """Return a copy of the averaged network of a learner, ready to run on films."""
        model = copy.deepcopy(learner.average.module).eval()
        return place_model(fold_batch_norm(model), self.group.device)


def train(
    root: DataRoot,
    manifest: Manifest,
    config: TrainingConfig,
    folder: Path,
    *,
    model_config: ResFormerConfig | None = None,
    initial: Checkpoint | None = None,
    lung_model: Path | None = None,
    outliers: Path | None = None,
    resume: bool = False,
    trial: bool = False,
    tensorboard: bool = False,
    progress: bool = True,
    on_epoch: OnEpoch | None = None,
) -> Checkpoint:
    """Train a network and evaluate it.

    As :func:`resformer.train`, but for ``root`` and ``manifest`` (its data), ``folder`` (its
    ``run_dir``) and ``model_config``, the network, by default that of ``initial`` or the shipped
    one. The split must be the one that ``initial`` was trained with; it knows the lungs already, so
    these are not learned anew.

    Returns:
        the checkpoint with the reports of the validation and, but for a trial, the test split.

    Raises:
        FileExistsError: if the folder holds a training and ``resume`` is not given, or another
            training writes to it.
        FileNotFoundError: if ``resume`` is given and the folder holds none.
        CheckpointError: if the folder's training had other options, another split or another start.
        ValueError: if the initial weights are those of another network or of other classes, the
            configuration does not fit the data, or the outliers hold no image.
    """
    if config.network != OURS:
        raise ValueError(f"{config.network} cannot be served: train it with train_baseline")
    unwanted = find_outliers(outliers) if outliers else {}
    check_tensorboard(tensorboard)
    if initial:
        _check_initial(initial, model_config, manifest)
        model_config = initial.model_config
        config = take_heads(config, model_config)
    group = join_processes(choose_device(config.device))
    with lock_run_folder(folder, is_main=group.is_main):
        check_run_folder(folder, resume=resume)
        data = prepare(root, manifest, config, folder, group, progress=progress)
        drawn_by = initial or _find_lung_model(lung_model, config, data)
        config = fit_to_data(config, data, drawn_by, initial, quiet=not group.is_main)
        digest = data.data_digest + (drawn_by.source if drawn_by else "")
        if resume:
            check_state(folder / STATE_NAME, config, digest)  # before the lungs are learnt
        network = replace(
            model_config or ResFormerConfig(),
            num_classes=len(manifest.class_names),
            lung_head=config.lung_head,
            infection_head=config.infection_head,
        )
        run = Run(data, config, network, group, digest, progress)

        masks = _find_masks(run, drawn_by)
        stage = _learn_lungs(run, masks, initial)
        loaders, learner = build_learning(run, masks, stage)
        reached = load_state(folder / STATE_NAME, learner, config, digest) if resume else Progress()
        reached.initial = initial.training if initial else {}

        run_epochs(run, learner, loaders, reached, on_epoch, tensorboard=tensorboard)

        finished = None
        if group.is_main:
            finished = _finish(run, reached, unwanted, trial=trial)
            finish.warn_of_guessing(finished.metrics["validation"])
        return group.from_main(finished)


# Prepare


def _check_initial(
    initial: Checkpoint, network: ResFormerConfig | None, manifest: Manifest
) -> None:
    if network and initial.model_config != network:
        raise ValueError(
            f"the initial weights are of the network {initial.model_config}, not of {network}: "
            "give the options that it was trained with"
        )
    if initial.class_names != manifest.class_names:
        raise ValueError(
            f"the initial weights know {', '.join(initial.class_names)}, the films are of "
            f"{', '.join(manifest.class_names)}: train these without initial weights"
        )


def prepare(
    root: DataRoot,
    manifest: Manifest,
    config: TrainingConfig,
    folder: Path,
    group: ProcessGroup,
    *,
    progress: bool,
) -> TrainingData:
    """Decode the films once, in the main process; the others find them decoded."""
    spec = InputSpec(size=config.input_size)
    data = TrainingData(root, manifest, folder, spec, with_masks=config.lung_head)
    if group.is_main:
        data.training_films(progress=progress)
        data.evaluation_films("validation", progress=progress)
        # Whether the data has the healthy class is looked at later, in fit_to_data.
        data.masks("train", replace(config, healthy_class=""))
    group.wait()
    return data


def _find_lung_model(
    path: Path | None, config: TrainingConfig, data: TrainingData
) -> Checkpoint | None:
    """Load what draws the lungs, where they are wanted and no training film has a mask."""
    if not config.lung_head or data.lungs("train").known.any():
        return None
    return lung_stage.load_lung_model(path)


# Lungs


def _find_masks(run: Run, drawn_by: Checkpoint | None) -> list[RegionMasks]:
    """Return the regions to learn, the lungs first; lungs that no mask shows are drawn."""
    masks = run.data.masks("train", run.config)
    if not masks or masks[0].known.any() or drawn_by is None:
        return masks
    if run.group.is_main:
        lung_stage.outline_masks(drawn_by, run.data, run.group.device)
    run.group.wait()
    return [lung_stage.outline_masks(drawn_by, run.data, run.group.device), *masks[1:]]


def _learn_lungs(
    run: Run, masks: Sequence[RegionMasks], initial: Checkpoint | None
) -> lung_stage.LungStage | None:
    """Run the first stage in the main process, where the network has a lung head."""
    group = run.group
    if initial:
        stage = lung_stage.take_lungs(initial, run.data, group.device) if group.is_main else None
        return group.from_main(stage)
    if not (run.config.lung_head and run.config.lung_epochs):
        return None
    if group.is_main:
        lung_stage.learn_lungs(
            run.network, run.data, run.config, masks, group.device, progress=run.progress
        )
    group.wait()
    return lung_stage.learn_lungs(
        run.network, run.data, run.config, masks, group.device, progress=False
    )


# Epochs


def build_learning(
    run: Run, masks: Sequence[RegionMasks] = (), stage: lung_stage.LungStage | None = None
) -> tuple[dict[int, FilmLoader], Learner]:
    """Build the batches, by side of the input, and what learns from them."""
    config = run.config
    films = build_training_films(run.data, config, masks, stage.outlines if stage else None)
    loaders = {
        size: build_loader(films.resized(size, build_augmentation(size, config)), config, run.group)
        for size in config.sizes
    }

    learner = build_learner(
        build_loss(run.network, config),
        len(loaders[config.input_size]),
        run.network,
        config,
        run.group,
        stage.weights if stage else None,
        build=run.build,
    )
    return loaders, learner


def run_epochs(
    run: Run,
    learner: Learner,
    loaders: dict[int, FilmLoader],
    reached: Progress,
    on_epoch: OnEpoch | None,
    *,
    tensorboard: bool,
) -> None:
    """Train until all epochs are done; ``reached`` is updated."""
    data, config, group = run.data, run.config, run.group
    state, names = data.folder / STATE_NAME, data.manifest.class_names
    writer = open_tensorboard(data.folder, reached) if tensorboard and group.is_main else None
    if group.is_main and not reached.history:
        save_state(state, learner, reached, config, names, run.digest)
    for epoch in range(len(reached.history), config.epochs):
        size = config.size_at(epoch)
        loader, label = loaders[size], f"epoch {epoch + 1}/{config.epochs}"
        begin_epoch(epoch, loader, config, group)
        start = time.perf_counter()
        figures: dict[str, Any] = train_one_epoch(
            learner, loader, group, label=label, progress=run.progress
        )
        if group.is_main:
            figures |= validate(run.averaged_model(learner), data)
            figures |= {"input_size": size, "total_seconds": time.perf_counter() - start}
            reached.record(figures, learner.averaged_weights(), config)
            logger.info("%s: %s", label, describe_epoch(reached, config))
            save_state(state, learner, reached, config, names, run.digest)
            show_history(reached, data.folder, writer)
            if on_epoch:
                on_epoch(reached.history)
        else:
            reached.history.append(figures)
    if writer:
        writer.close()


def validate(model: nn.Module, data: TrainingData) -> dict[str, Any]:
    """Return the figures of a network on the validation films.

    Returns:
        ``validation_loss``, the mean cross-entropy; ``validation_accuracy``,
        ``validation_macro_f1``; ``validation_score`` and its name ``score``, which the best epoch
        is chosen by; ``sources``, as :func:`compare_within_sources` gives them.
    """
    films = data.evaluation_films("validation")
    labels, names = films.labels, data.manifest.class_names
    logits = finish.compute_logits(model, films.films, data.spec)
    by_source = compare_within_sources(labels, logits, data.sources("validation"), names)
    predicted = logits.argmax(axis=1)
    macro_f1 = float(
        f1_score(labels, predicted, average="macro", labels=range(len(names)), zero_division=0)
    )
    score, value = score_epoch(macro_f1, by_source)
    log_likelihood = log_softmax(logits, axis=1)[np.arange(len(labels)), labels]
    return {
        "validation_loss": float(-log_likelihood.mean()),
        "validation_accuracy": float((predicted == labels).mean()),
        "validation_macro_f1": macro_f1,
        "validation_score": value,
        "score": score,
        "sources": by_source,
    }


def score_epoch(macro_f1: float, by_source: dict[str, dict[str, Any]]) -> tuple[str, float]:
    """Return the name and the value of the figure that the best epoch is chosen by.

    That is the mean over the known sources of their mean AUC. Where all films are of one source, or
    no source has two classes to compare, it is macro-F1: more films decide it.
    """
    areas = [found["mean_auc"] for source, found in by_source.items() if source]
    within = [area for area in areas if area is not None]
    if len(areas) < 2 or not within:
        return MACRO_F1, macro_f1
    return WITHIN_SOURCES, float(np.mean(within))


# Finish


def _finish(
    run: Run, reached: Progress, outliers: Mapping[str, Sequence[Path]], *, trial: bool
) -> Checkpoint:
    """Calibrate the best weights, report on them, and fit gate and abstention but for a trial."""
    data, config, device = run.data, run.config, run.group.device
    checkpoint = Checkpoint(
        model_config=run.network,
        class_names=data.manifest.class_names,
        input_spec=data.spec,
        state_dict=reached.best_weights,
        training={
            "config": asdict(config),
            "best_epoch": reached.best_epoch,
            "history": reached.history,
            "films": {split: len(data.manifest.subset(split)) for split in SPLITS},
            "data_digest": data.data_digest,
            **({"initial": reached.initial} if reached.initial else {}),
        },
    )
    checkpoint = finish.calibrate(checkpoint, data, device)
    dice = lung_stage.validation_dice(checkpoint, data, device)
    if dice is not None:
        checkpoint.training["lungs"] = {"validation_dice": dice}
    for split in ("validation",) if trial else ("validation", "test"):
        report = finish.evaluate(
            checkpoint, data, split, device, seed=config.seed, progress=run.progress
        )
        checkpoint.metrics[split] = report
    if trial:
        return checkpoint
    gate = GateConfig(seed=config.seed)
    checkpoint = finish.add_gate(checkpoint, data, outliers, device, gate, run.progress)
    checkpoint = finish.add_abstention(checkpoint, data, device, progress=run.progress)
    return finish.add_track_record(checkpoint, data, device, progress=run.progress)
