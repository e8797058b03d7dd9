"""The step of a training and one epoch of steps; :mod:`resformer.training.train` has the epochs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from tqdm import tqdm

from resformer.data.dataset import EpochSampler
from resformer.devices import can_compile, place_model
from resformer.model import IdentityMappingResFormer, ResFormerConfig
from resformer.training import optim
from resformer.training.config import TrainingConfig
from resformer.training.data import FilmLoader
from resformer.training.distributed import ProcessGroup
from resformer.training.losses import FilmBatch, TrainingLoss


@dataclass(frozen=True)
class Learner:
    """What changes in every step of a training.

    Attributes:
        model: the network, wrapped for several processes where there are.
        average: moving average of its weights.
        optimizer: AdamW, or Muon with AdamW.
        scheduler: learning rate, stepped every batch.
        criterion: loss of the logits of the classes and of the lungs.
        gradient_clip: largest norm of the gradient.
        precision: type that matrix products run in.
    """

    model: nn.Module
    average: optim.WeightAverage
    optimizer: AdamW
    scheduler: LambdaLR
    criterion: TrainingLoss
    gradient_clip: float
    precision: torch.dtype

    def step(self, batch: FilmBatch) -> Tensor:
        """Take one step on a batch, and return the loss, a detached scalar."""
        reduced = self.precision is not torch.float32
        with torch.autocast(batch.image.device.type, dtype=self.precision, enabled=reduced):
            if self.criterion.needs_lungs:
                outputs = self.model(batch.image, return_lungs=True)
            else:
                outputs = self.model(batch.image)
        loss: Tensor = self.criterion(outputs, batch)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.model.parameters(), self.gradient_clip)
        self.optimizer.step()
        self.scheduler.step()
        self.average.update_parameters(unwrap(self.model))
        return loss.detach()

    def averaged_weights(self) -> dict[str, Tensor]:
        """Copy the moving average of the weights to the CPU, by name."""
        weights = self.average.module.state_dict()
        return {name: weight.detach().cpu().clone() for name, weight in weights.items()}


def unwrap(model: nn.Module) -> nn.Module:
    """Return the network inside a DistributedDataParallel, or the network itself."""
    inner = getattr(model, "module", model)
    if not isinstance(inner, nn.Module):
        raise TypeError(f"expected a network, got {type(inner)}")
    return inner


def build_loss(network: ResFormerConfig, config: TrainingConfig) -> TrainingLoss:
    """Build the loss of the classes, and of the lungs where the network predicts them."""
    return TrainingLoss(
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
    """Build the network, with random weights unless some are given, and all that trains it.

    ``build`` makes baselines and ablations, which are trained in the same way.
    """
    torch.manual_seed(config.seed)
    model = build(network)
    if weights is not None:
        model.load_state_dict(weights)
    place_model(model, group.device)
    optimizer = optim.build_optimizer(model, config)
    average = optim.WeightAverage(model, config.ema_decay)  # a copy that is never compiled
    wrapped = group.wrap(model)
    if can_compile(group.device):
        wrapped.compile(dynamic=False)
    return Learner(
        model=wrapped,
        average=average,
        optimizer=optimizer,
        scheduler=optim.build_scheduler(optimizer, config, steps_per_epoch),
        criterion=loss.to(group.device),
        gradient_clip=config.gradient_clip,
        precision=optim.choose_precision(config.precision, group.device),
    )


def begin_epoch(
    epoch: int, loader: FilmLoader, config: TrainingConfig, group: ProcessGroup
) -> None:
    """Let the films' order and the dropout of an epoch, counted from 0, depend on it alone.

    Else a training that was resumed would differ from one that was not.
    """
    torch.manual_seed(config.seed + 1_000_003 * (epoch + 1) + group.rank)
    if isinstance(loader.sampler, EpochSampler):
        loader.sampler.set_epoch(epoch)


def train_one_epoch(
    learner: Learner, loader: FilmLoader, group: ProcessGroup, *, label: str, progress: bool
) -> dict[str, float]:
    """Train on every film once.

    Returns:
        ``train_loss``, ``learning_rate``, ``images_per_second`` (over all processes), ``seconds``,
        and the number of ``processes``.

    Raises:
        FloatingPointError: if the loss stops being a finite number.
    """
    learner.model.train()
    total = torch.zeros((), device=group.device)
    seen, start = 0, time.perf_counter()
    hidden = None if progress and group.is_main else True
    bar = tqdm(loader, desc=label, unit="batch", disable=hidden, leave=False)
    for films in bar:
        batch = FilmBatch(*films).to(group.device)
        total += learner.step(batch) * len(batch.image)
        seen += len(batch.image)
        if not bar.disable:
            rate = seen * group.world_size / (time.perf_counter() - start)
            bar.set_postfix_str(f"loss {total.item() / seen:.4f}, {rate:.0f} img/s")
    mean_loss = group.mean(total / seen).item()
    if not np.isfinite(mean_loss):
        raise FloatingPointError("the training loss is not finite: lower the learning rate")
    seconds = time.perf_counter() - start
    return {
        "train_loss": mean_loss,
        "learning_rate": learner.optimizer.param_groups[0]["lr"],
        "images_per_second": seen * group.world_size / seconds,
        "seconds": seconds,
        "processes": group.world_size,
    }
