"""How films vary in one block of features, and how far from that a picture is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from resformer.parts import require_finite

# Positions further out than this many standard deviations on average are pulled in, so that one
# block cannot outvote the others.
_SQUASH = 3.0
# Features that hardly vary over films must not decide by their noise.
LEAST_SCALE = 1e-3
_LEAST_VARIANCE = 1e-4


def principal_directions(covariance: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Return the directions in which films vary most, leaving out where they hardly do.

    Args:
        covariance: of features, ``(D, D)`` float64.
        most: most directions.

    Returns:
        orthonormal directions ``(D, P)``, and the variances along them ``(P,)``, greatest first.
    """
    variances, directions = torch.linalg.eigh(covariance)
    kept = int((variances > _LEAST_VARIANCE * variances[-1]).sum().clamp(max=most))
    return directions[:, -kept:].flip(1), variances[-kept:].flip(0)


class GateError(ValueError):
    """The parts of a gate contradict each other; the message says which."""


@dataclass(frozen=True)
class Subspace:
    """The directions in which the films of one block vary.

    Attributes:
        mean: of each feature over films, ``(D,)``.
        scale: standard deviation of each feature over films, ``(D,)``.
        basis: orthonormal principal directions of the scaled features, ``(D, P)``.
        deviation: standard deviation of the films along each direction, ``(P,)``.
    """

    mean: Tensor
    scale: Tensor
    basis: Tensor
    deviation: Tensor

    def __post_init__(self) -> None:
        """Refuse tensors that do not fit each other."""
        require_finite("gate", self.to_dict(), GateError)
        length, directions = self.basis.shape
        if self.mean.shape != (length,) or self.scale.shape != (length,):
            raise GateError(
                f"the gate's mean and scale do not fit its basis {(length, directions)}"
            )
        if self.deviation.shape != (directions,):
            raise GateError(f"the gate's deviations do not fit its basis {(length, directions)}")
        if (self.scale <= 0).any() or (self.deviation <= 0).any():
            raise GateError("the gate's scales and deviations must be greater than 0")

    def to_dict(self) -> dict[str, Tensor]:
        """Return the tensors by name."""
        return {
            "mean": self.mean,
            "scale": self.scale,
            "basis": self.basis,
            "deviation": self.deviation,
        }

    def evidence(self, block: Tensor) -> Tensor:
        """Map features ``(B, D)`` to ``(B, P + 2)``.

        Positions along the directions, pulled in where they are far out, and the logarithms of the
        squared Mahalanobis distance within the directions and of the squared distance from them.
        """
        scaled = (block - self.mean) / self.scale
        coordinates = scaled @ self.basis
        squares = coordinates.square().sum(1, keepdim=True)
        outside = scaled.square().sum(1, keepdim=True) - squares
        positions = coordinates / self.deviation
        distance = positions.square().sum(1, keepdim=True)
        share = distance / (positions.shape[1] * _SQUASH**2)
        logs = torch.cat([distance, outside], dim=1).clamp(min=1e-6).log()
        return torch.cat([positions * torch.rsqrt(1 + share), logs], dim=1)
