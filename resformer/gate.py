"""The gate: does this picture look like the films that the network was trained on?

Lee et al. (A simple unified framework for detecting out-of-distribution samples, NeurIPS 2018)
weigh Mahalanobis distances of the features of several depths by a logistic regression. So does the
gate, with two departures: features keep their place on a coarse grid, because what makes a chest
film is the arrangement, and the logistic regression also weighs the directions of the deviation,
because distances alone do not tell a knee from an unusual chest.

From top to bottom: what is said of a picture, what its pixels alone say against it, what the
network makes of it (:func:`describe`), how films vary in that (:class:`Subspace`), and the
:class:`Gate` that decides. It is fitted by :mod:`resformer.training.gate_fit`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from resformer.checks import reading, require_finite
from resformer.images import MIN_SIDE

# The narrowest and the widest films of the public data are within 0.5 and 1.7.
MAX_ASPECT = 2.5
# Grey levels between the percentiles 1 and 99; a dark film of a bad scan still has 30.
MIN_CONTRAST = 10
# About as many rows and columns are enough to tell the contrast.
_SAMPLED_SIDE = 128

# Sides of the grids that the input and the features are averaged over.
INPUT_GRID = 16
FEATURE_GRID = 4

# Features that hardly vary over films must not decide by their noise.
LEAST_SCALE = 1e-3
# Share of the greatest variance below which a direction is noise.
_LEAST_VARIANCE = 1e-4
# Positions further out than this many standard deviations on average are pulled in, so that one
# block cannot outvote the others.
_SQUASH = 3.0
# The reason of a picture that the network, and not its size or contrast, rejects.
UNLIKE_FILMS = "It does not look like an upright frontal chest X-ray."


class GateError(ValueError):
    """The parts of a gate contradict each other; the message says which."""


@dataclass(frozen=True)
class GateResult:
    """The gate's answer.

    Attributes:
        score: likeness to an upright frontal chest X-ray, from 0 to 1.
        threshold: lowest score that is accepted.
        reason: why the picture is refused, a sentence for people; empty if it is accepted.
    """

    score: float
    threshold: float
    reason: str

    @property
    def accepted(self) -> bool:
        """Whether the picture looks like a film that the network was trained for."""
        return not self.reason


def find_objection(pixels: NDArray[np.uint8]) -> str:
    """Return why a decoded picture ``(H, W)`` cannot be a film, a sentence; empty if it can."""
    height, width = pixels.shape
    if min(height, width) < MIN_SIDE:
        return f"It is only {width} x {height} pixels; a film has {MIN_SIDE} or more a side."
    if max(height, width) > MAX_ASPECT * min(height, width):
        return f"It is {width} x {height} pixels: too long and narrow for a chest X-ray."
    sample = pixels[:: 1 + height // _SAMPLED_SIDE, :: 1 + width // _SAMPLED_SIDE]
    levels = np.cumsum(np.bincount(sample.ravel(), minlength=256)) / sample.size
    low, high = np.searchsorted(levels, (0.01, 0.99))
    if high - low < MIN_CONTRAST:
        return "It is blank: there is no contrast in it."
    return ""


def describe(images: Tensor, features: Sequence[Tensor]) -> list[Tensor]:
    """Average the network's input and fused features over coarse grids.

    Args:
        images: the network's input ``(B, C, H, W)``.
        features: fused features ``(B, C_i, H_i, W_i)``, as ``forward_features`` gives them.

    Returns:
        one block ``(B, D_b)`` of the input and one of each stage.
    """
    # Of one channel, two means in an exported graph take a fifth of the time of one pooling.
    rows = images.unflatten(-1, (INPUT_GRID, -1)).mean(-1)
    grids = [rows.unflatten(-2, (INPUT_GRID, -1)).mean(-2)]
    grids += [adaptive_avg_pool2d(stage, FEATURE_GRID) for stage in features]
    return [grid.flatten(1) for grid in grids]


def principal_directions(covariance: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Return the directions in which films vary most, leaving out where they hardly do.

    These are the eigenvectors of the covariance (principal component analysis); the variance along
    each is its eigenvalue.

    Returns:
        orthonormal directions ``(D, P)``, and the variances along them ``(P,)``, greatest first.
    """
    # In rising order of variance, so the last ones are wanted, turned round.
    variances, directions = torch.linalg.eigh(covariance)
    kept = int((variances > _LEAST_VARIANCE * variances[-1]).sum().clamp(max=most))
    return directions[:, -kept:].flip(1), variances[-kept:].flip(0)


@dataclass(frozen=True)
class Subspace:
    """The directions in which films vary in one block of features.

    Films lie near a flat of few dimensions through their mean. A picture is told by its place on
    that flat, by how far out it lies there, and by how far it stands off the flat.

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
        return dict(vars(self))


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
        if not (torch.isfinite(self.weights).all() and math.isfinite(self.bias)):
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
        """Map the blocks of :func:`describe` to scores ``(B,)``."""
        return torch.sigmoid(self.evidence(blocks) @ self.weights + self.bias)

    def evidence(self, blocks: Sequence[Tensor]) -> Tensor:
        """Map the blocks of :func:`describe`, ``(B, D_b)`` each, to ``(B, E)``.

        Of each block ``P + 2`` numbers: positions along the directions, pulled in where they are
        far out, and the logarithms of the squared Mahalanobis distance within the directions and
        of the squared distance from them. What can be done for all blocks at once is: a graph
        spends its time on the number of its operations here, not on their size.
        """
        lengths, widths = zip(*(subspace.basis.shape for subspace in self.subspaces), strict=True)
        means, scales, deviations = (
            torch.cat([getattr(subspace, name) for subspace in self.subspaces])
            for name in ("mean", "scale", "deviation")
        )
        scaled = (torch.cat(list(blocks), dim=1) - means) / scales
        parts = zip(scaled.split(lengths, dim=1), self.subspaces, strict=True)
        coordinates = torch.cat([part @ subspace.basis for part, subspace in parts], dim=1)
        # Sums over each block: products with a matrix that says what belongs to it.
        of_features, of_directions = (
            torch.block_diag(*(scaled.new_ones(size, 1) for size in sizes))
            for sizes in (lengths, widths)
        )
        # The basis is orthonormal, so by Pythagoras what the coordinates do not account for of the
        # squared length is the squared distance from the subspace.
        outside = scaled.square() @ of_features - coordinates.square() @ of_directions
        # In units of the films' own deviation the squared length is Mahalanobis's distance.
        positions = coordinates / deviations
        distance = positions.square() @ of_directions
        # Near the films positions count as they are; far out, where the mean square exceeds
        # _SQUASH squared, their length is bounded and the direction alone remains. How far out it
        # is, the distances tell, as logarithms because they range over magnitudes.
        excess = distance / (_SQUASH**2 * of_directions.sum(0))
        pulled = positions * (torch.rsqrt(1 + excess) @ of_directions.T)
        logs = torch.stack([distance, outside], dim=2).clamp(min=1e-6).log().flatten(1)
        pairs = zip(pulled.split(widths, dim=1), logs.split(2, dim=1), strict=True)
        return torch.cat([one for pair in pairs for one in pair], dim=1)

    def judge(self, score: float, objection: str = "") -> GateResult:
        """Accept or refuse by a score of :meth:`scores` and :func:`find_objection`'s sentence."""
        if objection:
            return GateResult(0.0, self.threshold, objection)
        reason = "" if score >= self.threshold else UNLIKE_FILMS
        return GateResult(score, self.threshold, reason)

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
