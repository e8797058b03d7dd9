"""Near-duplicates: the same film twice, cropped or rescaled, or a film of the same stay.

Chest films look alike: their coarse brightness correlates at 0.9 between strangers, and a 64-bit
perceptual hash (imagehash.phash) at a radius that finds three of four repeated films accepts half
a million pairs of 11,000 images. What tells films apart is fine detail (ribs, vessels) after the
local contrast is evened out. So each image is reduced once to a fingerprint: that detail, a
spectrum of it that a shift does not change, and a coarse picture.

Comparing each detail with every other is too slow (10,000 films make 50 million pairs). Candidates
are the nearest neighbours by correlation of the two cheap vectors, spectrum and coarse picture; of
each candidate pair the details are laid on each other at several scales and at every shift
(normalised cross-correlation; Lewis, "Fast Normalized Cross-Correlation", 1995). Films whose detail
correlates are near-duplicates, and so are near-duplicates of near-duplicates.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from tqdm import tqdm

from resformer.data.find import DatasetError, ImageIndex, summarise
from resformer.images import ImageError, decode_image

logger = logging.getLogger(__name__)

# Among 10,784 chest films strangers stay below 0.75, all but a few; prints of one film come above
# 0.85, and films of one patient lie on either side.
DUPLICATE_CORRELATION = 0.75
DETAIL_SIZE = 96
_COARSE_SIZE = 16
# Widths in pixels of DETAIL_SIZE: of the noise left out, of the finest shading left out, and of
# the neighbourhood whose contrast is evened out.
_NOISE, _SHADING, _NEIGHBOURHOOD = 0.7, 2.6, 6.9
_FREQUENCIES = 12
_DETAIL_SCALE = 32.0
_NEIGHBOURS = 5
# Less alike than this a neighbour is not compared; 1 in 100 near-duplicates is.
_MIN_SPECTRUM, _MIN_COARSE = 0.55, 0.75
# At half the resolution; 1 in 100 near-duplicates stays below, and 6 of 7 strangers.
_MIN_ROUGH = 0.6
_TEMPLATE_SHARE = 0.65
_SCALES = tuple(float(scale) for scale in np.geomspace(0.82, 1.22, 9))
_STRETCHES = (0.95, 1.05)
# Rows of the correlation matrix that are held in memory at a time.
_BLOCK = 1024


@dataclass(frozen=True)
class Fingerprint:
    """An image reduced for comparison.

    Attributes:
        detail: ``(96, 96)`` uint8, fine detail of even contrast around 128.
        spectrum: ``(325,)`` float32, mean 0 and norm 1 (all 0 for an even image): low frequencies
            of the detail without their phase.
        coarse: ``(256,)`` float32, mean 0 and norm 1 (all 0 for an even image).
    """

    detail: NDArray[np.uint8]
    spectrum: NDArray[np.float32]
    coarse: NDArray[np.float32]


@dataclass(frozen=True)
class ScannedFilm:
    """A readable image: where it is, its class, its file's SHA-256 and its fingerprint."""

    path: str
    class_name: str
    sha256: str
    fingerprint: Fingerprint


@dataclass(frozen=True)
class UnreadableFilm:
    """An image that was left out, and why."""

    path: str
    class_name: str
    reason: str


def scan_films(
    index: ImageIndex, *, workers: int | None = None, progress: bool = False
) -> tuple[list[ScannedFilm], list[UnreadableFilm]]:
    """Read all images of ``index``, in its order; one warning names those that are unreadable.

    Raises:
        DatasetError: if a class has no readable image.
    """

    def scan(item: tuple[str, str]) -> ScannedFilm | UnreadableFilm:
        path, class_name = item
        try:
            data = (index.root / path).read_bytes()
            pixels = decode_image(data)
        except (ImageError, OSError) as error:
            return UnreadableFilm(path, class_name, str(error))
        digest = hashlib.sha256(data).hexdigest()
        return ScannedFilm(path, class_name, digest, fingerprint(pixels))

    # Reading, hashing, decoding and filtering all let other threads run.
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        scans = pool.map(scan, index.items)
        total = len(index.items)
        results = list(tqdm(scans, "read", total, unit="img", disable=not progress))
    films = [result for result in results if isinstance(result, ScannedFilm)]
    unreadable = [result for result in results if isinstance(result, UnreadableFilm)]
    if unreadable:
        named = summarise(f"{film.path}: {film.reason}" for film in unreadable)
        logger.warning("left out %d unreadable images: %s", len(unreadable), named)
    _check_classes(index.class_names, films, unreadable)
    return films, unreadable


def _check_classes(
    class_names: Iterable[str], films: Iterable[ScannedFilm], unreadable: Iterable[UnreadableFilm]
) -> None:
    readable = {film.class_name for film in films}
    for name in class_names:
        if name not in readable:
            first = next(film for film in unreadable if film.class_name == name)
            raise DatasetError(
                f"no image of the class {name!r} can be read; the first, {first.path}, failed "
                f"with: {first.reason} Replace its files or remove the class folder"
            )


def fingerprint(pixels: NDArray[np.uint8]) -> Fingerprint:
    """Return the fingerprint of grey ``pixels`` ``(H, W)`` uint8."""
    small = _resize(pixels, DETAIL_SIZE)
    # A band of fine structures, divided by its own strength nearby: exposure and contrast, which
    # differ between two prints of a film, cancel out.
    fine = _blur(small, _NOISE) - _blur(small, _SHADING)
    even = fine / (np.sqrt(_blur(fine * fine, _NEIGHBOURHOOD)) + 1)
    detail = np.clip(np.rint(even * _DETAIL_SCALE + 128), 0, 255).astype(np.uint8)
    return Fingerprint(detail, _spectrum(even), _standardise(_resize(pixels, _COARSE_SIZE)))


def _spectrum(even: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the magnitude of the low frequencies: a shift changes their phase alone."""
    window = np.hanning(DETAIL_SIZE).astype(np.float32)
    magnitude = np.abs(np.fft.rfft2(even * np.outer(window, window)))
    rows = np.r_[-_FREQUENCIES : _FREQUENCIES + 1]
    return _standardise(np.sqrt(magnitude[rows, : _FREQUENCIES + 1]))


def _resize(pixels: NDArray[np.uint8], size: int) -> NDArray[np.float32]:
    return np.asarray(
        cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA), dtype=np.float32
    )


def _blur(image: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), dtype=np.float32)


def _standardise(values: NDArray[np.floating]) -> NDArray[np.float32]:
    centred = values.astype(np.float32).ravel()
    centred -= centred.mean()
    norm = float(np.linalg.norm(centred))
    return centred / norm if norm > 1e-3 else np.zeros_like(centred)


def group_duplicates(
    fingerprints: Sequence[Fingerprint],
    digests: Sequence[str],
    *,
    threshold: float = DUPLICATE_CORRELATION,
    workers: int | None = None,
    progress: bool = False,
) -> NDArray[np.int64]:
    """Number the groups of near-duplicates, in the order of their first images.

    Args:
        fingerprints: of N images.
        digests: hash of each file; equal files are one group whatever they show.
        threshold: correlation of detail from which on two images are near-duplicates.
        workers: threads; by default one a processor.
        progress: whether to draw a progress bar.

    Returns:
        ``(N,)`` group of each image, from 0 on.
    """
    pairs = candidate_pairs(fingerprints)

    def correlate(pair: tuple[int, int]) -> float:
        first, second = pair
        return aligned_correlation(fingerprints[first].detail, fingerprints[second].detail)

    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        compared = pool.map(correlate, pairs)
        bar = tqdm(compared, "compare", len(pairs), unit="pair", disable=not progress)
        correlations = list(bar)
    edges = [pair for pair, value in zip(pairs, correlations, strict=True) if value >= threshold]
    first_with: dict[str, int] = {}
    edges += [(first_with.setdefault(digest, i), i) for i, digest in enumerate(digests)]
    return _connect(edges, len(fingerprints))


def join_groups(groups: Sequence[int], patients: Sequence[str]) -> NDArray[np.int64]:
    """Join the groups that hold films of one patient.

    Args:
        groups: of N images.
        patients: of the same images; empty where unknown.

    Returns:
        ``(N,)`` group of each image, numbered from 0 in the order of their first images.
    """
    first_of_group: dict[int, int] = {}
    first_of_patient: dict[str, int] = {}
    edges = []
    for index, (group, patient) in enumerate(zip(groups, patients, strict=True)):
        edges.append((first_of_group.setdefault(group, index), index))
        if patient:
            edges.append((first_of_patient.setdefault(patient, index), index))
    return _connect(edges, len(groups))


def candidate_pairs(fingerprints: Sequence[Fingerprint]) -> list[tuple[int, int]]:
    """Return the pairs ``(smaller index, larger index)`` worth a closer look, sorted."""
    if len(fingerprints) < 2:
        return []
    spectra = np.stack([item.spectrum for item in fingerprints])
    coarse = np.stack([item.coarse for item in fingerprints])
    pairs = _neighbours(spectra, _MIN_SPECTRUM) | _neighbours(coarse, _MIN_COARSE)
    return sorted(pairs)


def aligned_correlation(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """Return the highest correlation of two details ``(96, 96)`` over scales and shifts.

    The middle of ``first`` is sought in ``second``. From coarse to fine, since most candidates are
    strangers: nine scales at half the resolution, where all but one stranger in seven are given up;
    then the best of these scales and its neighbours at full resolution; then, at the best, a
    little wider than high and the other way round, as films are squeezed into squares.

    Returns:
        from -1 to 1; 0 where one has no detail.
    """
    if first.std() < 1 or second.std() < 1:
        return 0.0
    small_first, small_second = _halve(first), _halve(second)
    rough = [_correlate_scaled(small_first, small_second, scale, scale) for scale in _SCALES]
    best = int(np.argmax(rough))
    if rough[best] < _MIN_ROUGH:
        return rough[best]
    near = _SCALES[max(best - 1, 0) : best + 2]
    values = [_correlate_scaled(first, second, scale, scale) for scale in near]
    scale = near[int(np.argmax(values))]
    values += [_correlate_scaled(first, second, scale * s, scale / s) for s in _STRETCHES]
    return max(values)


def _halve(detail: NDArray[np.uint8]) -> NDArray[np.uint8]:
    side = len(detail) // 2
    halved = cv2.resize(detail, (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(halved, dtype=np.uint8)


def _correlate_scaled(
    first: NDArray[np.uint8], second: NDArray[np.uint8], scale_x: float, scale_y: float
) -> float:
    """Return the best correlation over all shifts with ``first`` scaled about its middle."""
    size = len(first)
    side = round(size * _TEMPLATE_SHARE)
    width, height = round(size * scale_x), round(size * scale_y)
    scaled = cv2.resize(first, (width, height))
    # The middle alone: borders are cropped, and a template must fit where it is shifted to.
    left, top = (width - side) // 2, (height - side) // 2
    template = scaled[top : top + side, left : left + side]
    return float(cv2.matchTemplate(second, template, cv2.TM_CCOEFF_NORMED).max())


def _neighbours(vectors: NDArray[np.float32], minimum: float) -> set[tuple[int, int]]:
    """Pair each of the ``(N, D)`` vectors with those it correlates with most.

    One neighbour more is the nearest of the vectors before it. Without it a group of more films
    than there are neighbours could fall apart: each film's nearest may all lie in one half. With
    it each film is tied to one before it, and so in the end all to the first.
    """
    count = min(_NEIGHBOURS, len(vectors) - 1)
    pairs: set[tuple[int, int]] = set()
    for start in range(0, len(vectors), _BLOCK):
        # Vectors have norm 1, so products are correlations; -1 keeps a vector off itself.
        correlation = vectors[start : start + _BLOCK] @ vectors.T
        own = np.arange(start, start + len(correlation))[:, None]
        np.put_along_axis(correlation, own, -1, axis=1)
        nearest = np.argpartition(-correlation, count - 1, axis=1)[:, :count]
        before = np.where(np.arange(len(vectors)) < own, correlation, -1).argmax(axis=1)
        nearest = np.column_stack([nearest, before])
        row, column = np.nonzero(np.take_along_axis(correlation, nearest, axis=1) >= minimum)
        left, right = row + start, nearest[row, column]
        pairs.update(
            zip(np.minimum(left, right).tolist(), np.maximum(left, right).tolist(), strict=True)
        )
    return pairs


def _connect(edges: Sequence[tuple[int, int]], count: int) -> NDArray[np.int64]:
    """Number the connected components of a graph in the order of their first nodes, ``(N,)``."""
    rows, columns = np.array(edges, dtype=np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(edges), dtype=np.int8), (rows, columns)), shape=(count, count))
    _, labels = connected_components(graph, directed=False)
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int64)
