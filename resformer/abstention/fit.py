"""Fits an abstention: the classes on training films, the thresholds on validation films."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from resformer.abstention.abstention import Abstention
from resformer.gate.subspace import LEAST_SCALE, principal_directions


@dataclass(frozen=True)
class AbstentionConfig:
    """How an abstention is fitted.

    Attributes:
        share: most of the validation films that may be abstained on.
        distance_share: of these, how many for their distance. Few, because confidence tells more
            mistakes, at home and on films in other surroundings and styles
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
    """Fit an abstention.

    Args:
        training: films as they are, whose classes are the ones known.
        validation: films that set the thresholds.
        num_classes: length of the network's logits.
        config: how to fit.

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
    return replace(unfitted, least_confidence=least, greatest_distance=greatest)


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
