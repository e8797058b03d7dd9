"""Replaces what surrounds the lungs of a training film, or covers the lungs themselves.

Each class of the public data comes from other hospitals, whose films show it outside the lungs:
in borders, markers, arms, exposure. A film's own lungs in foreign surroundings keep the class and
lose that cue. The outline is widened and softened by random amounts, so that the cut itself
teaches nothing, and it must be made in the same way for all classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

# Share of the film that lungs cover; an outline beyond that is a mistake, and nothing is replaced.
PLAUSIBLE_AREA = (0.06, 0.6)
# How far the outline is widened, as a share of the side.
_WIDENING = (0.02, 0.09)
_KINDS = ("film", "blur", "constant", "noise")
_SHARES = (0.6, 0.15, 0.1, 0.15)
# How far lungs are covered beyond their outline, as a share of the side.
_COVER = (0.0, 0.06)


class BackgroundReplacement:
    """Puts the lungs of one film into other surroundings.

    Args:
        films: ``(N, H, W)``, whose surroundings are used.
        outlines: lungs of the same films, ``(N, H, W)`` from 0, outside, to 255, inside.
        probability: of replacing.

    Raises:
        ValueError: if the shapes differ or the probability is none.
    """

    def __init__(self, films: Pixels, outlines: Pixels, probability: float) -> None:
        if films.shape != outlines.shape:
            raise ValueError(
                f"films {films.shape} and outlines {outlines.shape} need one shape: "
                "cache both at the same size"
            )
        _require_probability(probability)
        self.films = films
        self.outlines = outlines
        self.probability = probability

    def __call__(self, index: int, rng: np.random.Generator) -> Pixels:
        """Return the film ``index``, ``(H, W)``, in other surroundings or as it is."""
        film = np.asarray(self.films[index])
        outline = np.asarray(self.outlines[index])
        if rng.random() >= self.probability or not _can_be_lungs(outline):
            return film
        surroundings = self._surroundings(film, rng)
        return blend(film, surroundings, soften(outline, rng.uniform(*_WIDENING)))

    def _surroundings(self, film: Pixels, rng: np.random.Generator) -> Pixels:
        kind = rng.choice(_KINDS, p=_SHARES)
        if kind == "film":
            other = np.asarray(self.films[int(rng.integers(len(self.films)))])
            return other[:, ::-1] if rng.random() < 0.5 else other
        if kind == "blur":
            return _blur(film, rng.uniform(0.05, 0.15) * len(film))
        return _empty(film, rng, noise=bool(kind == "noise"))


class LungConcealment:
    """Covers the lungs of a film, so that nothing it shows tells the class any more.

    A network that still names a class would have to read it off the surroundings; trained to name
    none, it cannot.

    Args:
        outlines: lungs of the training films, ``(N, H, W)`` from 0, outside, to 255, inside.
        probability: of covering.

    Raises:
        ValueError: if the probability is none.
    """

    def __init__(self, outlines: Pixels, probability: float) -> None:
        _require_probability(probability)
        self.outlines = outlines
        self.probability = probability

    def __call__(self, index: int, film: Pixels, rng: np.random.Generator) -> Pixels | None:
        """Return the film ``index``, ``(H, W)``, without its lungs; None where it is left alone."""
        outline = np.asarray(self.outlines[index])
        if rng.random() >= self.probability or not _can_be_lungs(outline):
            return None
        cover = _empty(film, rng, noise=bool(rng.random() < 0.5))
        return blend(cover, film, soften(outline, rng.uniform(*_COVER)))


def soften(outline: Pixels, widening: float) -> NDArray[np.float32]:
    """Widen an outline and fade it out.

    Args:
        outline: ``(H, W)`` from 0, outside, to 255, inside.
        widening: as a share of the side.

    Returns:
        ``(H, W)``, 1 inside the outline, falling to 0 around it.
    """
    import cv2

    inside = np.where(outline > 127, 255, 0).astype(np.uint8)
    reach = max(1, round(widening * len(outline)))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    widened = cv2.dilate(inside, disc)
    faded = _blur(np.asarray(widened, dtype=np.uint8), reach / 2)
    return np.divide(np.maximum(inside, faded), 255, dtype=np.float32)


def blend(film: Pixels, surroundings: Pixels, weight: NDArray[np.float32]) -> Pixels:
    """Mix two films ``(H, W)``: the first where ``weight`` is 1, the second where it is 0."""
    mixed = surroundings + weight * (film.astype(np.float32) - surroundings)
    return np.rint(mixed).astype(np.uint8)


def _require_probability(probability: float) -> None:
    if not 0 <= probability <= 1:
        raise ValueError(f"probability must be in [0, 1], got {probability}")


def _can_be_lungs(outline: Pixels) -> bool:
    """Whether an outline ``(H, W)`` covers as much of the film as lungs do."""
    area = float((outline > 127).mean())
    return PLAUSIBLE_AREA[0] <= area <= PLAUSIBLE_AREA[1]


def _empty(film: Pixels, rng: np.random.Generator, *, noise: bool) -> Pixels:
    """Return a picture without structure of the shape of a film: clouds, or one grey level."""
    level = rng.integers(256)
    if not noise:
        return np.full_like(film, level)
    grid = rng.integers(2, 16)
    return _enlarge(rng.integers(256, size=(grid, grid), dtype=np.uint8), film.shape)


def _blur(film: Pixels, sigma: float) -> Pixels:
    """Blur ``(H, W)`` by a pyramid kernel of this standard deviation in pixels, at a constant cost.

    Within a few grey levels of a Gaussian blur, which takes up to ninety times as long.
    """
    import cv2

    radius = max(1, round(sigma * 6**0.5 - 1))
    side = 2 * radius + 1
    return np.asarray(cv2.stackBlur(film, (side, side)), dtype=np.uint8)


def _enlarge(grid: Pixels, shape: tuple[int, ...]) -> Pixels:
    import cv2

    enlarged = cv2.resize(grid, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
    return np.asarray(enlarged, dtype=np.uint8)
