"""Is the model sure of a class, and has it seen enough films like this one?

A film is abstained on for one of two reasons. It is *undecided* if the model is not sure of any
class (Hendrycks and Gimpel, ICLR 2017). It is *unfamiliar*, which goes first, if the features that
the class is read off are far from those of every class: the smallest
Mahalanobis distance to a class mean, with one covariance for all classes (Lee et al., NeurIPS
2018, arXiv:1807.03888). Departures: the covariance is shrunk, the distance is taken in the
directions in which films vary most, and two thresholds take the place of a regression, because
there are no films of diseases that the model does not know to fit one on.

First what is stored and asked (:class:`Abstention`), then how it is fitted: the classes on
training films, the thresholds on validation films (:func:`fit_abstention`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from resformer.checks import reading, require_finite
from resformer.gate import LEAST_SCALE, principal_directions

# Why a film is abstained on: the classes are close, or the film is unlike those of the training.
Reason = Literal["undecided", "unfamiliar"]


class AbstentionError(ValueError):
    """The parts of an abstention contradict each other; the message says which."""


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
        """Make sure that the abstention is one of a network with so many logits and features.

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

    def find_reason(self, confidence: float, distance: float) -> Reason | None:
        """Return why the answer of the network is not to be relied on; None where it may be.

        By the probability of the predicted class, and by the distance of :meth:`distance`.
        """
        # NaN is unfamiliar too.
        if not distance <= self.greatest_distance:
            return "unfamiliar"
        return None if confidence >= self.least_confidence else "undecided"

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


@dataclass(frozen=True)
class AbstentionConfig:
    """How an abstention is fitted.

    Attributes:
        share: most of the validation films that may be abstained on, but for those whose class is
            hardly likelier than a guess, see :func:`least_above_chance`.
        distance_share: of these, how many for their distance. Few, because confidence tells more
            mistakes, on films as they are and in other surroundings and styles
            (``docs/experiments.md``); the distance is there for what is like no training film.
        directions: most directions that the distance is taken in.

    Raises:
        ValueError: if a value is impossible.
    """

    share: float = 0.05
    distance_share: float = 0.2
    directions: int = 64

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        if not 0 <= self.share < 1:
            raise ValueError(f"share must be from 0 to less than 1, got {self.share}")
        if not 0 <= self.distance_share <= 1:
            raise ValueError(f"distance_share must be from 0 to 1, got {self.distance_share}")
        if self.directions < 1:
            raise ValueError(f"directions must be 1 or more, got {self.directions}")


@dataclass(frozen=True)
class FilmFeatures:
    """What the network makes of the films of one split.

    Attributes:
        pooled: features that the class is read off, ``(N, D)``.
        confidence: probability of the predicted class, ``(N,)``.
        labels: class index of each film, ``(N,)``.
    """

    pooled: Tensor
    confidence: Tensor
    labels: Tensor


def fit_abstention(
    training: FilmFeatures, validation: FilmFeatures, num_classes: int, config: AbstentionConfig
) -> Abstention:
    """Fit an abstention: the classes on training films, the thresholds on validation films.

    A model that has learnt nothing is about as sure of one film as of another, so its validation
    films alone would set a confidence that each of them reaches: hence :func:`least_above_chance`.

    Raises:
        ValueError: if a class has no training film, or there are no validation films.
    """
    if len(validation.labels) == 0:
        raise ValueError("the abstention needs validation films: split the data anew")
    counts = torch.bincount(training.labels, minlength=num_classes)
    if (counts == 0).any():
        raise ValueError("the abstention needs training films of every class: split the data anew")
    features = training.pooled.double()
    means = torch.stack([features[training.labels == k].mean(0) for k in range(num_classes)])
    projection = _whitening(features - means[training.labels], config.directions)
    mean = features.mean(0)
    unfitted = Abstention(
        mean=mean.float(),
        projection=projection.float(),
        class_means=((means - mean) @ projection).float(),
        least_confidence=0.0,
        greatest_distance=0.0,
    )
    distance = unfitted.distance(validation.pooled)
    least, greatest = choose_thresholds(validation.confidence, distance, config)
    return replace(
        unfitted,
        least_confidence=max(least, least_above_chance(num_classes)),
        greatest_distance=greatest,
    )


def least_above_chance(num_classes: int) -> float:
    """Return the lowest probability of a class that is clearly more than a guess among all.

    A guess gives a class the odds 1 to ``num_classes - 1``; these are twice as good. Odds, because
    a multiple of the probability would ask for certainty of one of two classes. Twice, because on
    Jeffreys' scale of evidence a factor below 3 is hardly worth a mention: what does not reach even
    2 says nothing, and to ask for more would overrule the validation films of sound networks.
    """
    return 2 / (num_classes + 1)


def choose_thresholds(
    confidence: Tensor, distance: Tensor, config: AbstentionConfig
) -> tuple[float, float]:
    """Choose the thresholds that abstain from as many films as they may, and no more.

    A part of them is abstained on for their distance, and for their confidence as many as are left.

    Args:
        confidence: of the predicted classes of the validation films, ``(N,)``.
        distance: of the same films, ``(N,)``.
        config: how many films may be abstained on.

    Returns:
        the least confidence and the greatest distance that are not abstained on. They lie between
        two films, so that rounding does not decide.
    """
    confidence, distance = confidence.double(), distance.double()
    rising, falling = confidence.sort().values, distance.sort(descending=True).values
    allowed = math.floor(config.share * len(confidence) + 1e-9)  # 0.29 * 100 is 28.999...
    greatest = _between(falling, round(config.distance_share * allowed))
    far = distance > greatest
    # The last one abstains from no more films than the distance does, so that there always is one.
    candidates = (_between(rising, number) for number in range(allowed, -1, -1))
    least = next(
        least for least in candidates if int(((confidence < least) | far).sum()) <= allowed
    )
    return least, greatest


def _between(ordered: Tensor, count: int) -> float:
    """Return what lies between the first ``count`` values and the others.

    Before the first value that is half as far from it as the second is, but not below 0.
    """
    if count == 0:
        first, second = ordered[0], ordered[min(1, len(ordered) - 1)]
        return max(0.0, float(first + (first - second) / 2))
    return float(ordered[count - 1 : count + 1].mean())


def _whitening(offsets: Tensor, most: int) -> Tensor:
    """Return a map ``(D, P)`` of offsets from class means ``(N, D)`` to unit covariance."""
    from sklearn.covariance import LedoitWolf

    # Stages differ in scale: without this, shrinkage would drown the fainter ones.
    scale = offsets.std(0).clamp(min=LEAST_SCALE)
    shrunk = LedoitWolf(assume_centered=True).fit((offsets / scale).numpy()).covariance_
    directions, variances = principal_directions(torch.from_numpy(shrunk), most)
    whitening: Tensor = directions / variances.sqrt() / scale.unsqueeze(1)
    return whitening
