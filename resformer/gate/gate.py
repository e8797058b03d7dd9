"""The gate: does this picture look like the films that the network was trained on?

Lee et al. (A simple unified framework for detecting out-of-distribution samples, NeurIPS 2018)
weigh Mahalanobis distances of the features of several depths by a logistic regression. So does the
gate, with two departures: features keep their place on a coarse grid, because what makes a chest
film is the arrangement, and the logistic regression also weighs the directions of the deviation,
because distances alone do not tell a knee from an unusual chest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from resformer.gate.result import GateResult
from resformer.gate.subspace import GateError, Subspace
from resformer.parts import reading

INPUT_GRID = 16
FEATURE_GRID = 4
_REFUSED = "It does not look like an upright frontal chest X-ray."


def describe(images: Tensor, features: Sequence[Tensor]) -> list[Tensor]:
    """Average the network's input and fused features over coarse grids.

    Args:
        images: the network's input ``(B, C, H, W)``.
        features: fused features ``(B, C_i, H_i, W_i)``, as ``forward_features`` gives them.

    Returns:
        one block ``(B, D_b)`` of the input and one of each stage.
    """
    grids = [adaptive_avg_pool2d(images, INPUT_GRID)]
    grids += [adaptive_avg_pool2d(stage, FEATURE_GRID) for stage in features]
    return [grid.flatten(1) for grid in grids]


@dataclass(frozen=True)
class Gate:
    """Accepts or refuses a picture by what the network makes of it.

    Attributes:
        subspaces: of the input and of each stage of the network, in the order of :func:`describe`.
        weights: of the evidence of all subspaces, ``(E,)``; more of it is more like a film.
        bias: added to the weighted evidence.
        threshold: lowest score that is accepted, between 0 and 1.

    Raises:
        GateError: if the parts contradict each other.
    """

    subspaces: tuple[Subspace, ...]
    weights: Tensor
    bias: float
    threshold: float = 0.5

    def __post_init__(self) -> None:
        """Refuse parts that contradict each other."""
        length = sum(len(subspace.deviation) + 2 for subspace in self.subspaces)
        if self.weights.shape != (length,):
            raise GateError(
                f"the gate has {tuple(self.weights.shape)} weights for {length} values of evidence"
            )
        if not (torch.isfinite(self.weights).all() and abs(self.bias) < float("inf")):
            raise GateError("the gate's weights or its bias are not finite numbers")
        if not 0 < self.threshold < 1:
            raise GateError(f"the gate's threshold must be between 0 and 1, got {self.threshold}")

    def check_fits(self, in_chans: int, channels: Sequence[int]) -> None:
        """Make sure that the gate is one of a network with these channels.

        Raises:
            GateError: if it is another network's.
        """
        expected = [INPUT_GRID**2 * in_chans, *(FEATURE_GRID**2 * width for width in channels)]
        lengths = [len(subspace.mean) for subspace in self.subspaces]
        if lengths != expected:
            raise GateError(f"the gate is for features {lengths}, the network gives {expected}")

    def scores(self, blocks: Sequence[Tensor]) -> Tensor:
        """Map the blocks of :func:`describe` to scores ``(B,)``, float64."""
        return torch.sigmoid(self.evidence(blocks).double() @ self.weights.double() + self.bias)

    def evidence(self, blocks: Sequence[Tensor]) -> Tensor:
        """Map the blocks of :func:`describe` to ``(B, E)``."""
        pairs = zip(self.subspaces, blocks, strict=True)
        return torch.cat([subspace.evidence(block) for subspace, block in pairs], dim=1)

    def judge(self, blocks: Sequence[Tensor], objections: Sequence[str]) -> list[GateResult]:
        """Accept or refuse a batch.

        Args:
            blocks: of :func:`describe`, for B pictures.
            objections: B sentences of :func:`resformer.gate.pixels.object_to_pixels`, or empty.
        """
        return [
            GateResult(
                0.0 if objection else score, self.threshold, objection or self._reason(score)
            )
            for score, objection in zip(self.scores(blocks).tolist(), objections, strict=True)
        ]

    def _reason(self, score: float) -> str:
        return "" if score >= self.threshold else _REFUSED

    def to(self, device: torch.device) -> Gate:
        """Return the gate with its tensors on a device."""
        subspaces = tuple(
            Subspace(**{name: tensor.to(device) for name, tensor in subspace.to_dict().items()})
            for subspace in self.subspaces
        )
        return Gate(subspaces, self.weights.to(device), self.bias, self.threshold)

    def to_dict(self) -> dict[str, Any]:
        """Return plain tensors, numbers and lists, fit for a checkpoint."""
        return {
            "subspaces": [subspace.to_dict() for subspace in self.subspaces],
            "weights": self.weights,
            "bias": self.bias,
            "threshold": self.threshold,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Gate:
        """Rebuild a gate from :meth:`to_dict`.

        Raises:
            GateError: if a part is missing, of a wrong kind or contradicts another.
        """
        with reading("gate", GateError):
            return cls(
                subspaces=tuple(Subspace(**parts) for parts in values["subspaces"]),
                weights=values["weights"],
                bias=float(values["bias"]),
                threshold=float(values["threshold"]),
            )
