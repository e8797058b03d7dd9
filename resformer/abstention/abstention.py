"""Has the model seen enough films like this one to answer?

A film is abstained on if the model is not sure of any class (Hendrycks and Gimpel, ICLR 2017), or
if the features that the class is read off are far from those of every class: the smallest
Mahalanobis distance to a class mean, with one covariance for all classes (Lee et al., NeurIPS
2018, arXiv:1807.03888). Departures: the covariance is shrunk, the distance is taken in the
directions in which films vary most, and two thresholds take the place of a regression, because
there are no films of diseases that the model does not know to fit one on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from resformer.parts import reading, require_finite


class AbstentionError(ValueError):
    """The parts of an abstention contradict each other; the message says which."""


@dataclass(frozen=True)
class Doubt:
    """What is said of one film.

    Attributes:
        abstained: whether the answer of the network is not to be relied on.
        distance: from the features of the film to those of the nearest class.
    """

    abstained: bool
    distance: float


@dataclass(frozen=True)
class Abstention:
    """Abstains from films that the network is not sure of, or has seen too few of.

    Attributes:
        mean: of the pooled features over the training films, ``(D,)``.
        projection: maps features less the mean to a space where their covariance within the
            classes is the identity, ``(D, P)``.
        class_means: of the training films in that space, ``(K, P)``.
        least_confidence: lowest probability of the predicted class that is not abstained on.
        greatest_distance: greatest distance to the nearest class that is not abstained on.

    Raises:
        AbstentionError: if the parts contradict each other.
    """

    mean: Tensor
    projection: Tensor
    class_means: Tensor
    least_confidence: float
    greatest_distance: float

    def __post_init__(self) -> None:
        """Refuse parts that contradict each other."""
        require_finite("abstention", self._tensors(), AbstentionError)
        if self.projection.ndim != 2 or self.mean.shape != self.projection.shape[:1]:
            raise AbstentionError(
                f"the abstention's mean {tuple(self.mean.shape)} does not fit its projection "
                f"{tuple(self.projection.shape)}"
            )
        if self.class_means.ndim != 2 or self.class_means.shape[1:] != self.projection.shape[1:]:
            raise AbstentionError(
                f"the abstention's class means {tuple(self.class_means.shape)} do not fit its "
                f"projection {tuple(self.projection.shape)}"
            )
        if not 0 <= self.least_confidence <= 1:
            raise AbstentionError(
                f"the least confidence must be from 0 to 1, got {self.least_confidence}"
            )
        if not (math.isfinite(self.greatest_distance) and self.greatest_distance >= 0):
            raise AbstentionError(
                f"the greatest distance must be 0 or more, got {self.greatest_distance}"
            )

    def check_fits(self, num_classes: int, width: int) -> None:
        """Make sure that the abstention is one of a network with these logits and features.

        Args:
            num_classes: length of the network's logits.
            width: length of its pooled features.

        Raises:
            AbstentionError: if it is another network's.
        """
        expected, found = (num_classes, width), (len(self.class_means), len(self.mean))
        if found != expected:
            raise AbstentionError(
                f"the abstention is for {found[0]} classes and {found[1]} features, the network "
                f"has {expected[0]} and {expected[1]}: run python -m resformer fit-gate"
            )

    def distance(self, features: Tensor) -> Tensor:
        """Map pooled features ``(B, D)`` to distances to the nearest class ``(B,)``.

        The unit is one standard deviation of the training films within their classes.
        """
        positions = (features.float() - self.mean) @ self.projection
        offsets = positions.unsqueeze(1) - self.class_means
        distances: Tensor = offsets.square().sum(2).min(dim=1).values.sqrt()
        return distances

    def judge(self, confidence: Tensor, features: Tensor) -> list[Doubt]:
        """Abstain from some films of a batch, or from none.

        Args:
            confidence: probabilities of the predicted classes, ``(B,)``.
            features: pooled features, ``(B, D)``.
        """
        distances = self.distance(features).tolist()
        return [
            Doubt(not self._is_enough(share, distance), distance)
            for share, distance in zip(confidence.tolist(), distances, strict=True)
        ]

    def _is_enough(self, confidence: float, distance: float) -> bool:
        # What is no number is not enough.
        return confidence >= self.least_confidence and distance <= self.greatest_distance

    def to(self, device: torch.device) -> Abstention:
        """Return the abstention with its tensors on a device."""
        return replace(
            self,
            mean=self.mean.to(device),
            projection=self.projection.to(device),
            class_means=self.class_means.to(device),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain tensors and numbers, fit for a checkpoint."""
        return {**self._tensors(), **self.thresholds()}

    def thresholds(self) -> dict[str, float]:
        """Return the two numbers that decide, by name."""
        return {
            "least_confidence": self.least_confidence,
            "greatest_distance": self.greatest_distance,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Abstention:
        """Rebuild an abstention from :meth:`to_dict`.

        Raises:
            AbstentionError: if a part is missing, of a wrong kind or contradicts another.
        """
        with reading("abstention", AbstentionError):
            return cls(
                mean=values["mean"],
                projection=values["projection"],
                class_means=values["class_means"],
                least_confidence=float(values["least_confidence"]),
                greatest_distance=float(values["greatest_distance"]),
            )

    def _tensors(self) -> dict[str, Tensor]:
        return {
            "mean": self.mean,
            "projection": self.projection,
            "class_means": self.class_means,
        }
