"""Optimiser, learning-rate schedule, class weights, averaged weights and precision."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

from resformer.training.config import TrainingConfig
from resformer.training.muon import MuonWithAdamW, is_matrix

Tensors = tuple[Tensor, ...] | list[Tensor]


def build_optimizer(model: nn.Module, config: TrainingConfig) -> AdamW:
    """Build the optimiser that a configuration names.

    AdamW decays matrices and kernels, not biases, norms and embeddings of a scale; Muon takes those
    from it that are large enough.
    """
    matrices: list[nn.Parameter] = []
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2 or name.endswith("scale_embedding"):
            free.append(parameter)
        elif config.optimizer == "muon" and is_matrix(parameter):
            matrices.append(parameter)
        else:
            decayed.append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    if not matrices:
        return AdamW(groups, lr=config.learning_rate)
    return MuonWithAdamW(
        matrices,
        groups,
        lr=config.learning_rate,
        muon_lr=config.muon_learning_rate,
        weight_decay=config.muon_weight_decay,
    )


def build_scheduler(optimizer: AdamW, config: TrainingConfig, steps_per_epoch: int) -> LambdaLR:
    """Build linear warm-up followed by a cosine decay to a hundredth, stepped every batch."""
    warmup = max(1, round(config.warmup_epochs * steps_per_epoch))
    total = max(warmup + 1, config.epochs * steps_per_epoch)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        progress = min(1.0, (step - warmup) / (total - warmup))
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))

    return LambdaLR(optimizer, factor)


def class_weights(labels: NDArray[np.int64], num_classes: int, balance: float) -> Tensor:
    """Return loss weights ``(num_classes,)``: ``frequency ** -balance``, 1 on average over films.

    Raises:
        ValueError: if a class has no film.
    """
    counts = np.bincount(labels, minlength=num_classes)
    if (counts == 0).any():
        raise ValueError(f"no training film of class {int(counts.argmin())}: split the data anew")
    weights = (counts / counts.sum()) ** -balance
    weights /= (weights * counts).sum() / counts.sum()
    return torch.tensor(weights, dtype=torch.float32)


class WeightAverage(AveragedModel):
    """Exponential moving average of weights and of normalisation statistics.

    The decay starts low and grows to ``decay``, ``min(decay, (1 + n) / (10 + n))`` after ``n``
    steps, so that the random first weights are forgotten soon.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        def average(averaged: Tensors, current: Tensors, count: Tensor | int) -> None:
            steps = int(count)
            rate = 1 - min(decay, (1 + steps) / (10 + steps))
            for mean, value in zip(averaged, current, strict=True):
                if mean.is_floating_point():
                    mean.lerp_(value, rate)
                else:
                    mean.copy_(value)

        super().__init__(model, multi_avg_fn=average, use_buffers=True)


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the type that matrix products run in: bfloat16 where the processor has it.

    Args:
        name: ``auto``, ``float32`` or ``bfloat16``.
        device: where the network runs.
    """
    if name != "auto":
        return torch.float32 if name == "float32" else torch.bfloat16
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    capabilities = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    fast = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return torch.bfloat16 if fast else torch.float32
