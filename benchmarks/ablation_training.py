"""Training and measurement of one variant of the ablations, and what all variants share."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax

from benchmarks.ablation_networks import Variant
from resformer.backends import PyTorchBackend
from resformer.data.dataset import EpochSampler, FilmDataset
from resformer.devices import choose_device, place_model
from resformer.evaluation.controls import CONTROLS, LUNGS_BLACK, change_films
from resformer.evaluation.metrics import evaluate_predictions
from resformer.evaluation.predictions import predict_lungs
from resformer.model import IdentityMappingResFormer, ResFormerConfig
from resformer.training.config import TrainingConfig
from resformer.training.distributed import ProcessGroup
from resformer.training.films import Workspace
from resformer.training.learner import (
    build_learner,
    build_loader,
    build_loss,
    build_training_films,
    split_logits,
    train_epoch,
)
from resformer.training.lungs import learn_lungs

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Bench:
    """What all variants share.

    Attributes:
        workspace: the films, and the folder of what is computed once.
        recipe: how every variant is trained, but for what it changes.
        network: sizes of our network.
        outlines: predicted lungs of the training films, ``(N, size, size)`` uint8.
        black: the validation films with their lungs blacked out.
    """

    workspace: Workspace
    recipe: TrainingConfig
    network: ResFormerConfig
    outlines: NDArray[np.uint8]
    black: FilmDataset


def prepare(workspace: Workspace, recipe: TrainingConfig, network: ResFormerConfig) -> Bench:
    """Decode the films and learn the lungs, or find both in the workspace's folder."""
    network = replace(network, num_classes=len(workspace.manifest.class_names))
    with_heads = replace(network, lung_head=True, infection_head=True)
    device = choose_device(recipe.device)
    workspace.training_films(recipe.seed)
    films = workspace.evaluation_films("validation")
    stage = learn_lungs(with_heads, workspace, recipe, device, progress=False)
    if stage.outlines is None:
        raise ValueError("the recipe needs a lung head, whose outlines all variants share")
    outliner = IdentityMappingResFormer(with_heads)
    outliner.load_state_dict(stage.weights)
    backend = PyTorchBackend.from_model(place_model(outliner, device), workspace.spec)
    lungs = predict_lungs(backend, films.films, workspace.spec.size)
    nobody = np.zeros(len(films), dtype=np.int64)  # blacking out needs no donor
    black = np.stack(list(change_films(CONTROLS[LUNGS_BLACK], films.films, lungs, nobody)))
    blacked = FilmDataset(black, films.labels, films.spec)
    return Bench(workspace, recipe, network, stage.outlines, blacked)


def measure(bench: Bench, variant: Variant) -> dict[str, Any]:
    """Train a variant and measure it on the validation split; plain data.

    Returns:
        ``name``, ``parameters``, ``seconds`` in training steps, ``epochs``, ``data`` (hash of the
        films and masks), ``config`` (the common recipe), ``changes``, ``history``, ``validation``,
        a report of ``evaluate_predictions``, and ``lungs_blacked_out``, the recall of each class.
    """
    config = replace(bench.recipe, **variant.changes)
    names = bench.workspace.manifest.class_names
    model, history = train_variant(bench, variant, config)
    films = bench.workspace.evaluation_films("validation")
    device = choose_device(config.device)
    logits = [split_logits(model, dataset, device) for dataset in (films, bench.black)]
    whole, black = (softmax(values, axis=1) for values in logits)
    report = evaluate_predictions(films.labels, black, names, bootstrap=0)
    return {
        "name": variant.name,
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "seconds": sum(epoch["seconds"] for epoch in history),
        "epochs": config.epochs,
        "data": bench.workspace.data_digest,
        "config": asdict(bench.recipe),
        "changes": dict(variant.changes),
        "history": history,
        "validation": evaluate_predictions(films.labels, whole, names, seed=config.seed),
        "lungs_blacked_out": {name: report["per_class"][name]["recall"]["value"] for name in names},
    }


def train_variant(
    bench: Bench, variant: Variant, config: TrainingConfig
) -> tuple[torch.nn.Module, list[dict[str, float]]]:
    """Train a variant from random weights.

    Args:
        bench: what all variants share.
        variant: the network.
        config: how it is trained.

    Returns:
        the averaged network, and the figures of each epoch.
    """
    alone = ProcessGroup(0, 1, choose_device(config.device))
    network = replace(
        bench.network, lung_head=variant.lung_head, infection_head=variant.infection_head
    )
    learnt = replace(config, infection_head=variant.infection_head)
    masks = bench.workspace.masks("train", learnt) if variant.lung_head else ()
    films = build_training_films(bench.workspace, config, masks, bench.outlines)
    loader = build_loader(films, config, alone)
    loss = build_loss(films, network, config)
    learner = build_learner(loss, len(loader), network, config, alone, build=variant.build)
    history = []
    for epoch in range(config.epochs):
        torch.manual_seed(config.seed + 1_000_003 * (epoch + 1))
        if isinstance(loader.sampler, EpochSampler):
            loader.sampler.set_epoch(epoch)
        history.append(train_epoch(learner, loader, alone, label=variant.name, progress=False))
        logger.info("%s, epoch %d: loss %.4f", variant.name, epoch + 1, history[-1]["train_loss"])
    return learner.average.module, history
