"""Muon for matrices and kernels, AdamW for the rest.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024): the momentum of a
matrix is orthogonalised before it is stepped along, so that every direction of it is learnt at the
same speed. docs/experiments.md has what it brought this network. PyTorch's own Muon takes matrices
alone; as in the paper, a kernel ``(out, in, h, w)`` is stepped as the matrix ``(out, in * h * w)``.
AdamW steps what has too few rows or columns to have directions: norms, biases, depthwise kernels
and, as in the paper, the classifier.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Muon

# Rows and columns from which on a parameter is stepped as a matrix.
MIN_RANK = 16


def is_matrix(parameter: Tensor) -> bool:
    """Whether Muon steps a parameter ``(out, ...)``: at least 16 rows and 16 columns."""
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
