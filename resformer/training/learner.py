"""One epoch of training, and the logits of a whole split.

Figures of a network after an epoch: on the validation films, and on these in foreign style.

A network that learns longer does better on films of the hospitals that it was trained on, and often
worse elsewhere. The validation films in the surroundings, the tone and the sharpness of films of
other classes say some of that without any film from elsewhere.

What a training is built from: films, batches, loss, network and optimiser.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax
from sklearn.metrics import f1_score
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from tqdm import tqdm

from resformer.data.augment import STRENGTHS, FilmAugmentation
from resformer.data.dataset import EpochSampler, Film, FilmDataset
from resformer.data.manifest import source_weights
from resformer.data.masks import RegionMasks
from resformer.data.surroundings import BackgroundReplacement, LungConcealment, StyleExchange
from resformer.devices import place_model
from resformer.evaluation.answers import predict_lungs
from resformer.evaluation.controls import CONTROLS, FOREIGN, change_films, choose_donors
from resformer.model import IdentityMappingResFormer, ResFormerConfig
from resformer.predict import compute_logits
from resformer.training.config import TrainingConfig
from resformer.training.distributed import ProcessGroup
from resformer.training.films import Workspace
from resformer.training.losses import FilmBatch, TrainingLoss
from resformer.training.optim import (
    WeightAverage,
    build_optimizer,
    build_scheduler,
    choose_precision,
    class_weights,
)

FilmLoader = DataLoader[Film]


@dataclass(frozen=True)
class Learner:
    """What changes in every step of a training.

    Attributes:
        model: the network, wrapped for several processes where there are.
        average: moving average of its weights.
        optimizer: AdamW.
        scheduler: learning rate, stepped every batch.
        criterion: loss of the logits of the classes and of the lungs.
        gradient_clip: largest norm of the gradient.
        precision: type that matrix products run in.
    """

    model: nn.Module
    average: WeightAverage
    optimizer: AdamW
    scheduler: LambdaLR
    criterion: TrainingLoss
    gradient_clip: float
    precision: torch.dtype

    @property
    def network(self) -> IdentityMappingResFormer:
        """The network whose weights are averaged."""
        network = unwrap(self.average)
        if not isinstance(network, IdentityMappingResFormer):
            raise TypeError(f"expected the network, got {type(network)}")
        return network

    def step(self, batch: FilmBatch) -> Tensor:
        """Take one step on a batch; the loss, a detached scalar."""
        reduced = self.precision is not torch.float32
        with torch.autocast(batch.image.device.type, dtype=self.precision, enabled=reduced):
            outputs = self.model(batch.image, return_lungs=self.criterion.needs_lungs)
        loss: Tensor = self.criterion(outputs, batch)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.model.parameters(), self.gradient_clip)
        self.optimizer.step()
        self.scheduler.step()
        self.average.update_parameters(unwrap(self.model))
        return loss.detach()


def unwrap(model: nn.Module) -> nn.Module:
    """Return the network inside a DistributedDataParallel, or the network itself."""
    inner = getattr(model, "module", model)
    if not isinstance(inner, nn.Module):
        raise TypeError(f"expected a network, got {type(inner)}")
    return inner


def train_epoch(
    learner: Learner, loader: FilmLoader, group: ProcessGroup, *, label: str, progress: bool
) -> dict[str, float]:
    """Train on every film once.

    Args:
        learner: what to train.
        loader: batches of this process.
        group: this process's place among the others.
        label: what the progress bar is called.
        progress: whether to draw it.

    Returns:
        ``train_loss``, ``learning_rate``, ``images_per_second`` (over all processes), ``seconds``,
        and the number of ``processes``.

    Raises:
        FloatingPointError: if the loss stops being a finite number.
    """
    learner.model.train()
    total = torch.zeros((), device=group.device)
    seen, start = 0, time.perf_counter()
    bar = tqdm(loader, desc=label, unit="batch", disable=not (progress and group.is_main))
    for films in bar:
        batch = FilmBatch(*films).to(group.device)
        total += learner.step(batch) * len(batch.image)
        seen += len(batch.image)
        rate = seen * group.world_size / (time.perf_counter() - start)
        bar.set_postfix_str(f"loss {total.item() / seen:.4f}, {rate:.0f} img/s")
    mean_loss = group.mean(total / seen).item()
    if not np.isfinite(mean_loss):
        raise FloatingPointError("the training loss is no finite number: lower the learning rate")
    seconds = time.perf_counter() - start
    return {
        "train_loss": mean_loss,
        "learning_rate": learner.optimizer.param_groups[0]["lr"],
        "images_per_second": seen * group.world_size / seconds,
        "seconds": seconds,
        "processes": group.world_size,
    }


def split_logits(
    model: nn.Module, dataset: FilmDataset, device: torch.device, batch_size: int = 64
) -> NDArray[np.float64]:
    """Return the logits of every film of a data set, ``(N, num_classes)``, in its order."""
    was_training = model.training
    model.eval()
    logits = []
    for first in range(0, len(dataset), batch_size):
        keys = range(first, min(first + batch_size, len(dataset)))
        images = torch.stack([dataset[0, index].image for index in keys])
        logits.append(compute_logits(model, images.to(device)).cpu())
    model.train(was_training)
    return torch.cat(logits).numpy()


def validate(model: torch.nn.Module, films: FilmDataset, device: torch.device) -> dict[str, float]:
    """Return mean cross-entropy, accuracy and macro-F1 of a network on the validation films."""
    logits = split_logits(model, films, device)
    predicted, classes = logits.argmax(axis=1), range(logits.shape[1])
    log_likelihood = log_softmax(logits, axis=1)[np.arange(len(films)), films.labels]
    return {
        "validation_loss": float(-log_likelihood.mean()),
        "validation_accuracy": float((predicted == films.labels).mean()),
        "validation_macro_f1": float(
            f1_score(films.labels, predicted, average="macro", labels=classes, zero_division=0)
        ),
    }


def make_foreign(films: FilmDataset, outliner: IdentityMappingResFormer, seed: int) -> FilmDataset:
    """Give films the surroundings, the tone and the sharpness of films of other classes.

    Args:
        films: as they are served.
        outliner: says where their lungs are; in evaluation mode, with a lung head.
        seed: of which film lends to which.

    Raises:
        ValueError: if all films are of one class.
    """
    pixels = np.asarray(films.films)
    outlines = predict_lungs(outliner, pixels, films.spec)
    donors = choose_donors(films.labels, seed)
    changed = np.stack([*change_films(CONTROLS[FOREIGN], pixels, outlines, donors)])
    return FilmDataset(changed, films.labels, films.spec)


def build_augmentation(size: int, config: TrainingConfig) -> FilmAugmentation:
    """Build the augmentation that a configuration wants, for an input of some size."""
    return FilmAugmentation(size, STRENGTHS[config.augmentation])


def build_training_films(
    workspace: Workspace,
    config: TrainingConfig,
    masks: Sequence[RegionMasks] = (),
    outlines: NDArray[np.uint8] | None = None,
) -> FilmDataset:
    """Build the training split as a configuration wants it augmented and weighed.

    Args:
        workspace: the films.
        config: how to train.
        masks: of the training films, as :meth:`Workspace.masks` gives them.
        outlines: lungs of the training films, to replace their surroundings and to cover them.
    """
    films = workspace.training_films(config.seed)
    share = config.background_replacement
    return FilmDataset(
        films.films,
        films.labels,
        films.spec,
        augmentation=build_augmentation(config.input_size, config),
        masks=masks,
        background=None
        if outlines is None or not share
        else BackgroundReplacement(films.films, outlines, share),
        concealment=None
        if outlines is None or not config.lung_concealment
        else LungConcealment(outlines, config.lung_concealment),
        style=StyleExchange(films.films, films.labels, config.style_exchange)
        if config.style_exchange
        else None,
        weights=source_weights(workspace.manifest.subset("train"), config.source_balance),
        seed=config.seed,
    )


def build_loader(films: FilmDataset, config: TrainingConfig, group: ProcessGroup) -> FilmLoader:
    """Build the batches of one process; all processes together see every film once an epoch."""
    sampler = EpochSampler(
        len(films), seed=config.seed, rank=group.rank, world_size=group.world_size
    )
    return DataLoader(
        films,
        batch_size=max(1, config.batch_size // group.world_size),
        sampler=sampler,
        num_workers=config.workers,
        persistent_workers=config.workers > 0,
        pin_memory=group.device.type == "cuda",
        # Without its own generator the loader would draw from the one that dropout draws from.
        generator=torch.Generator().manual_seed(config.seed),
    )


def build_loss(
    films: FilmDataset, network: ResFormerConfig, config: TrainingConfig
) -> TrainingLoss:
    """Build the loss of the classes, weighed by how many films each has, and of the lungs."""
    return TrainingLoss(
        class_weights(films.labels, network.num_classes, config.class_balance),
        label_smoothing=config.label_smoothing,
        lung_loss=config.lung_loss if network.lung_head else 0.0,
    )


def build_learner(
    loss: TrainingLoss,
    steps_per_epoch: int,
    network: ResFormerConfig,
    config: TrainingConfig,
    group: ProcessGroup,
    weights: dict[str, Tensor] | None = None,
    *,
    build: Callable[[ResFormerConfig], nn.Module] = IdentityMappingResFormer,
) -> Learner:
    """Build the network and all that trains it.

    Args:
        loss: what to minimise.
        steps_per_epoch: of this process.
        network: what to build.
        config: how to train.
        group: this process's place among the others.
        weights: what the network starts from; random by default.
        build: makes the network, for benchmarks that train another one in the same way.
    """
    torch.manual_seed(config.seed)
    model = build(network)
    if weights is not None:
        model.load_state_dict(weights)
    place_model(model, group.device)
    optimizer = build_optimizer(model, config)
    return Learner(
        model=group.wrap(model),
        average=WeightAverage(model, config.ema_decay),
        optimizer=optimizer,
        scheduler=build_scheduler(optimizer, config, steps_per_epoch),
        criterion=loss.to(group.device),
        gradient_clip=config.gradient_clip,
        precision=choose_precision(config.precision, group.device),
    )
