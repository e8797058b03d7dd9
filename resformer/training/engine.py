"""One epoch of training, and the logits of a whole split."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from tqdm import tqdm

from resformer.data.dataset import Film, FilmDataset
from resformer.inference import compute_logits
from resformer.model import IdentityMappingResFormer
from resformer.training.distributed import ProcessGroup
from resformer.training.losses import FilmBatch, TrainingLoss
from resformer.training.optimisation import WeightAverage

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
