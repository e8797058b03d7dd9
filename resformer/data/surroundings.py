"""Training films without what gives their hospital away: other surroundings, or another style.

Each class of the public data comes from other hospitals, and a network can learn these instead.

- Surroundings: borders, markers, arms. A film's own lungs in foreign surroundings keep the class
  and lose that cue (``BackgroundReplacement``); a film whose lungs are covered has no class at all
  (``LungConcealment``). Outlines are widened and softened by random amounts, so that the cut itself
  teaches nothing, and cuts must be made in the same way for all classes.
- Style: exposure, and how sharp the first resize left a film (``StyleExchange``). A film gets the
  grey levels of one of any class (histogram matching; Gonzalez and Woods, "Digital Image
  Processing", chapter 3) and the power of its fine structures (the radially averaged spectrum).
  Yang and Soatto, "FDA: Fourier Domain Adaptation for Semantic Segmentation" (CVPR 2020), exchange
  the low frequencies of the spectrum in the same way; departure: the high ones, averaged over
  directions, because they are what sources differ in.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft2, rfft2

Pixels = NDArray[np.uint8]

# Share of the film that lungs cover; an outline beyond that is a mistake, and nothing is replaced.
PLAUSIBLE_AREA = (0.06, 0.6)
# How far the outline is widened, as a share of the side.
_WIDENING = (0.02, 0.09)
_KINDS = ("film", "blur", "constant", "noise")
_SHARES = (0.6, 0.15, 0.1, 0.15)
# How far lungs are covered beyond their outline, as a share of the side.
_COVER = (0.0, 0.06)

# Cycles a film below which its structures are anatomy and are left as they are.
_COARSE = 8
# Rings of the spectrum, and how much stronger or weaker each may become.
_RINGS = 24
_GAINS = (0.2, 3.0)
# Share of the side at each border that says nothing of the grey levels: frames and markers.
_BORDER = 0.15
# How far a film's grey levels go towards another's: all the way posterises some.
_TONE_SHARE = (0.3, 1.0)


class BackgroundReplacement:
    """Put the lungs of one film into other surroundings.

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
    """Cover the lungs of a film, so that nothing it shows tells the class any more.

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
    """Return whether an outline ``(H, W)`` covers as much of the film as lungs do."""
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


class StyleExchange:
    """Give films the style of others, of each class as often.

    Args:
        films: ``(N, H, W)`` that lend their style.
        labels: their class indices, ``(N,)``.
        probability: of exchanging the tone, and of exchanging the sharpness.

    Raises:
        ValueError: if the probability is none.
    """

    def __init__(self, films: Pixels, labels: NDArray[np.int64], probability: float) -> None:
        _require_probability(probability)
        self.probability = probability
        self._rings = spectrum_rings(films.shape[1:])
        self._tones = np.stack([cumulated_levels(film) for film in films])
        self._strengths = np.stack([measure_sharpness(film, self._rings)[0] for film in films])
        self._members = [np.flatnonzero(labels == label) for label in np.unique(labels)]

    def __call__(self, film: Pixels, rng: np.random.Generator) -> Pixels:
        """Return the film ``(H, W)`` in the style of others, or as it is."""
        if rng.random() < self.probability:
            film = match_sharpness(film, self._strengths[self._lender(rng)], self._rings)
        if rng.random() < self.probability:
            film = match_tone(film, self._tones[self._lender(rng)], rng.uniform(*_TONE_SHARE))
        return film

    def _lender(self, rng: np.random.Generator) -> int:
        members = self._members[int(rng.integers(len(self._members)))]
        return int(members[int(rng.integers(len(members)))])


def match_tone(film: Pixels, tone: NDArray[np.float64], share: float = 1.0) -> Pixels:
    """Map the grey levels of a film so that they are as frequent as in another one.

    Args:
        film: ``(H, W)``.
        tone: of the other film, from :func:`cumulated_levels`.
        share: how far to go, from 0, not at all, to 1.
    """
    levels = np.arange(256)
    target = np.interp(cumulated_levels(film), tone, levels)
    matched: Pixels = np.rint(levels + share * (target - levels)).astype(np.uint8)[film]
    return matched


def match_sharpness(
    film: Pixels, strengths: NDArray[np.float64], rings: NDArray[np.intp]
) -> Pixels:
    """Amplify or dampen the fine structures of a film to the strength of another one's.

    Args:
        film: ``(H, W)``.
        strengths: of the other film, from :func:`ring_strengths`.
        rings: of the film's spectrum, from :func:`spectrum_rings`.
    """
    spectrum = _spectrum(film)
    own = ring_strengths(np.abs(spectrum), rings)
    gains = np.clip(strengths / np.maximum(own, 1e-6), *_GAINS)
    gains[0] = 1.0
    filtered = irfft2(spectrum * gains.astype(np.float32)[rings], s=film.shape)
    matched: Pixels = np.clip(np.rint(filtered), 0, 255).astype(np.uint8)
    return matched


def measure_sharpness(
    film: Pixels, rings: NDArray[np.intp] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Measure what :func:`match_sharpness` gives to other films of the same shape.

    Args:
        film: ``(H, W)``.
        rings: of its spectrum, from :func:`spectrum_rings`, if they are known already.

    Returns:
        the strengths of its rings, and the rings.
    """
    numbered = spectrum_rings(film.shape) if rings is None else rings
    return ring_strengths(np.abs(_spectrum(np.asarray(film))), numbered), numbered


def cumulated_levels(film: Pixels) -> NDArray[np.float64]:
    """Return the share of a film's pixels up to each grey level, ``(256,)``, borders left out.

    Half of a level's own pixels count: the middle of its range, so that matching a film with
    itself changes nothing.
    """
    height, width = (round(side * _BORDER) for side in film.shape)
    inner = film[height : film.shape[0] - height, width : film.shape[1] - width]
    counts = np.bincount(inner.ravel(), minlength=256)
    cumulated: NDArray[np.float64] = (np.cumsum(counts) - counts / 2) / counts.sum()
    return cumulated + 1e-9 * np.arange(256)  # strictly rising, as interpolation needs


def spectrum_rings(shape: tuple[int, ...]) -> NDArray[np.intp]:
    """Number the rings of the half spectrum of a film ``(H, W)``: 0 is coarse, then ever finer."""
    y = np.fft.fftfreq(shape[0], 1 / shape[0])[:, None]
    x = np.fft.rfftfreq(shape[1], 1 / shape[1])[None, :]
    fineness = np.log(np.maximum(np.hypot(y, x), 1e-6) / _COARSE)
    rings = np.ceil(fineness / np.log(max(shape) / 2 / _COARSE) * (_RINGS - 1))
    numbered: NDArray[np.intp] = np.clip(rings, 0, _RINGS - 1).astype(np.intp)
    return numbered


def ring_strengths(amplitude: NDArray[np.float32], rings: NDArray[np.intp]) -> NDArray[np.float64]:
    """Average the amplitude of a half spectrum over each ring, relative to the coarse one."""
    sums = np.bincount(rings.ravel(), amplitude.ravel(), minlength=_RINGS)
    counts = np.bincount(rings.ravel(), minlength=_RINGS)
    # The mean of a film is no structure of it.
    sums[0], counts[0] = sums[0] - amplitude[0, 0], counts[0] - 1
    means = sums / np.maximum(counts, 1)
    relative: NDArray[np.float64] = means / max(means[0], 1e-6)
    return relative


def _spectrum(film: Pixels) -> NDArray[np.complex64]:
    spectrum: NDArray[np.complex64] = rfft2(film.astype(np.float32))
    return spectrum
