"""Optimiser, learning-rate schedule, averaged weights and precision.

Muon (Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024)
orthogonalises the momentum of a matrix before it is stepped along, so that every direction of it is
learnt at the same speed; docs/experiments.md has what it brought this network. PyTorch's own takes
matrices alone; as in the paper, a kernel ``(out, in, h, w)`` is stepped as the matrix
``(out, in * h * w)``. AdamW steps what has too few rows or columns to have directions: norms,
biases, depthwise kernels and, as in the paper, the classifier.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Muon
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

from resformer.training.config import TrainingConfig

# Rows and columns from which on a parameter is stepped as a matrix.
MIN_RANK = 16


def is_matrix(parameter: Tensor) -> bool:
    """Return whether Muon steps a parameter ``(out, ...)``: at least 16 rows and 16 columns."""
    if parameter.ndim < 2:
        return False
    rows, columns = parameter.shape[0], parameter[0].numel()
    return min(rows, columns) >= MIN_RANK


class MuonWithAdamW(AdamW):
    """AdamW of some parameters, which a schedule acts on, and Muon of others in step with it.

    Args:
        matrices: what Muon steps, each ``(out, ...)``.
        groups: what AdamW steps, as its groups of parameters.
        lr: learning rate of AdamW.
        muon_lr: of Muon; whatever a schedule does to AdamW's is done to this one as well.
        weight_decay: of Muon, a share of its learning rate.
    """

    def __init__(
        self,
        matrices: Sequence[nn.Parameter],
        groups: list[dict[str, Any]],
        *,
        lr: float,
        muon_lr: float,
        weight_decay: float,
    ) -> None:
        super().__init__(groups, lr=lr)
        self.matrices = list(matrices)
        self._ratio = muon_lr / lr
        self._flat = [nn.Parameter(matrix.detach().flatten(1).clone()) for matrix in self.matrices]
        self.muon = Muon(self._flat, lr=muon_lr, weight_decay=weight_decay)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Step all parameters that have a gradient."""
        loss: float | None = super().step(closure)
        self.muon.param_groups[0]["lr"] = self.param_groups[0]["lr"] * self._ratio
        for matrix, flat in zip(self.matrices, self._flat, strict=True):
            flat.copy_(matrix.flatten(1))
            flat.grad = None if matrix.grad is None else matrix.grad.flatten(1)
        self.muon.step()
        for matrix, flat in zip(self.matrices, self._flat, strict=True):
            matrix.copy_(flat.view_as(matrix))
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters."""
        super().zero_grad(set_to_none)
        for matrix in self.matrices:
            matrix.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Return the state of both."""
        return {**super().state_dict(), "muon": self.muon.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put both back to where :meth:`state_dict` found them."""
        adam = {name: value for name, value in state_dict.items() if name != "muon"}
        super().load_state_dict(adam)
        self.muon.load_state_dict(state_dict["muon"])


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
    """Return the type that matrix products run in; ``auto`` is bfloat16 where it is fast."""
    if name != "auto":
        return torch.float32 if name == "float32" else torch.bfloat16
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    capabilities = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    fast = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return torch.bfloat16 if fast else torch.float32
