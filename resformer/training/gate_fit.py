"""Fit a gate: collect films and what is no film, then subspaces, weights and threshold.

Three steps: :func:`find_outliers` and :func:`read_outliers` take a folder of pictures that shall be
refused, :func:`collect_samples` runs the network over these, over films, varied films and made
outliers, and :func:`fit_gate` fits the gate on what it made of them.

This belongs to the training: nothing that serves imports it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from resformer.backends import PyTorchBackend
from resformer.data.find import walk_films
from resformer.gate import LEAST_SCALE, Gate, Subspace, principal_directions
from resformer.images import ImageError, decode_image
from resformer.training.gate_alterations import ALTERATIONS, FilmVariation
from resformer.training.gate_drawings import DRAWINGS, Pixels
from resformer.transforms import resize_pixels

logger = logging.getLogger(__name__)

# Averages over coarse grids, one tensor for the input and for each stage, ``(N, D_b)``.
Blocks = list[Tensor]

_UNSORTED = "unsorted"
_BATCH_SIZE = 64
_VARIATIONS_PER_FILM = 4
# Made pictures of a kind are at least this many, however few the films are.
_LEAST_MADE = 8


@dataclass(frozen=True)
class GateConfig:
    """How many pictures of each sort a gate is fitted on, and how.

    Attributes:
        films: most training films that are looked at as they are.
        variations: most varied films.
        copies: varied copies of each given outlier.
        made: pictures of each kind of drawing and of each alteration; few films get fewer.
        directions: most principal directions of each block.
        inverse_penalty: inverse strength of the penalty on the weights of the evidence.
        refused_share: share of the validation films that lies below the threshold.
        seed: of all that is random.
    """

    films: int = 3000
    variations: int = 4000
    copies: int = 4
    made: int = 250
    directions: int = 64
    inverse_penalty: float = 0.01
    refused_share: float = 0.005
    seed: int = 0


@dataclass(frozen=True)
class GateSamples:
    """Descriptions of pictures, as :func:`resformer.gate.describe` gives them.

    Of training films as they are and varied, of validation films, which set the threshold, and by
    kind of what shall be refused.
    """

    films: Blocks
    varied: Blocks
    validation: Blocks
    outliers: dict[str, Blocks]


def find_outliers(folder: Path) -> dict[str, list[Path]]:
    """Find the images below a folder, at any depth.

    Returns:
        by kind, sorted paths; the kind is the name of the folder directly below ``folder``.

    Raises:
        ValueError: if there is no such folder or no image in it.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}: check the path of the outliers")
    kinds: dict[str, list[Path]] = {}
    for path in sorted(walk_films(folder, lambda *_: None)):
        parts = path.relative_to(folder).parts
        kinds.setdefault(parts[0] if len(parts) > 1 else _UNSORTED, []).append(path)
    if not kinds:
        raise ValueError(f"{folder} holds no image: name a folder of outliers")
    return kinds


def read_outliers(kinds: Mapping[str, Sequence[Path]]) -> dict[str, list[Pixels]]:
    """Decode what :func:`find_outliers` found; unreadable files are named and left out.

    Raises:
        ValueError: if no file of a kind can be read.
    """
    pictures = {kind: list(_decode(paths)) for kind, paths in kinds.items()}
    empty = sorted(kind for kind, decoded in pictures.items() if not decoded)
    if empty:
        raise ValueError(f"no image of the outliers {empty[0]!r} can be read: replace its files")
    return pictures


def _decode(paths: Sequence[Path]) -> Iterator[Pixels]:
    for path in paths:
        try:
            yield decode_image(path.read_bytes())
        except (ImageError, OSError) as error:
            logger.warning("left out %s: %s", path, error)


class Describer:
    """Describes many pictures by running a network over them."""

    def __init__(self, backend: PyTorchBackend, size: int) -> None:
        self.size = size
        self._backend = backend

    def __call__(self, pictures: Iterable[Pixels]) -> Blocks:
        """Describe pictures ``(H, W)`` of any sizes, on the CPU."""
        described: list[Blocks] = []
        remaining = iter(pictures)
        while films := list(islice(remaining, _BATCH_SIZE)):
            pixels = np.stack([resize_pixels(np.asarray(film), self.size) for film in films])
            described.append(self._backend.describe(pixels))
        return join_blocks(described)


def join_blocks(parts: Sequence[Blocks]) -> Blocks:
    """Put descriptions of several sets of pictures after one another."""
    return [torch.cat(blocks) for blocks in zip(*parts, strict=True)]


def collect_samples(
    describer: Describer,
    films: Sequence[Pixels] | NDArray[np.uint8],
    validation: Sequence[Pixels] | NDArray[np.uint8],
    outliers: Mapping[str, Sequence[Pixels]],
    config: GateConfig,
    *,
    progress: bool = False,
) -> GateSamples:
    """Describe all that a gate is fitted on: films ``(H, W)``, outliers by kind, and made ones.

    Raises:
        ValueError: if there are no films or no validation films.
    """
    if len(films) == 0 or len(validation) == 0:
        raise ValueError("the gate needs training films and validation films: split the data anew")
    size = describer.size
    order = np.random.default_rng(config.seed).permutation(len(films)).tolist()
    chosen = [resize_pixels(films[i], size) for i in order[: config.films]]
    variation = FilmVariation(size)
    repeats = min(config.variations, _VARIATIONS_PER_FILM * len(films))
    varied = (
        variation(resize_pixels(films[order[-1 - i % len(films)]], size), config.seed + i)
        for i in range(repeats)
    )
    made = min(config.made, max(_LEAST_MADE, len(films) // 4))
    makers = _made_outliers(chosen, size, config.seed)
    given = sum(map(len, outliers.values())) * (1 + config.copies)
    total = len(chosen) + repeats + len(validation) + given + made * len(makers)
    with tqdm(desc="gate", total=total, unit="img", disable=None if progress else True) as bar:

        def describe(pictures: Iterable[Pixels]) -> Blocks:
            return describer(_counted(pictures, bar))

        return GateSamples(
            films=describe(chosen),
            varied=describe(varied),
            validation=describe(validation),
            outliers={
                kind: describe(_with_copies(pictures, variation, config))
                for kind, pictures in outliers.items()
            }
            | {
                f"made: {kind}": describe(islice(pictures, made))
                for kind, pictures in makers.items()
            },
        )


def _counted(pictures: Iterable[Pixels], bar: tqdm[Any]) -> Iterator[Pixels]:
    for picture in pictures:
        yield picture
        bar.update()


def _with_copies(
    pictures: Sequence[Pixels], variation: FilmVariation, config: GateConfig
) -> Iterator[Pixels]:
    for index, picture in enumerate(pictures):
        yield picture
        for copy in range(config.copies):
            yield variation(picture, config.seed + index * config.copies + copy)


def _made_outliers(films: Sequence[Pixels], size: int, seed: int) -> dict[str, Iterator[Pixels]]:
    """Return an endless supply of each kind of drawing and of each alteration of films."""

    def drawn(kind: str, rng: np.random.Generator) -> Iterator[Pixels]:
        while True:
            yield DRAWINGS[kind](size, rng)

    def altered(kind: str, rng: np.random.Generator) -> Iterator[Pixels]:
        while True:
            film = films[int(rng.integers(len(films)))]
            yield np.ascontiguousarray(ALTERATIONS[kind](film, rng))

    makers = {kind: drawn for kind in DRAWINGS} | {kind: altered for kind in ALTERATIONS}
    return {
        kind: make(kind, np.random.default_rng((seed, number)))
        for number, (kind, make) in enumerate(makers.items())
    }


def fit_gate(samples: GateSamples, config: GateConfig) -> Gate:
    """Fit a gate.

    Films as they are weigh as much as varied films, films as much as outliers, and a kind of
    outliers by the square root of its size.

    Raises:
        ValueError: if there is no outlier to fit on.
    """
    if not samples.outliers:
        raise ValueError("the gate needs outliers to fit on: give a folder of them or let it draw")
    films = join_blocks([samples.films, samples.varied])
    subspaces = tuple(_fit_subspace(block, config.directions) for block in films)
    length = sum(len(subspace.deviation) + 2 for subspace in subspaces)
    unfitted = Gate(subspaces, torch.zeros(length), 0.0)
    weights, bias = _fit_weights(unfitted, samples, config.inverse_penalty)
    fitted = replace(unfitted, weights=weights, bias=bias)
    return replace(fitted, bias=bias - _threshold(fitted, samples.validation, config))


def _fit_subspace(block: Tensor, most: int) -> Subspace:
    """Return the principal directions of films ``(N, D)``."""
    mean, scale = block.mean(0), block.std(0).clamp(min=LEAST_SCALE)
    scaled = ((block - mean) / scale).double()
    directions, variances = principal_directions(scaled.T @ scaled / len(scaled), most)
    return Subspace(
        mean=mean,
        scale=scale,
        basis=directions.float().contiguous(),
        deviation=variances.sqrt().float(),
    )


def _fit_weights(gate: Gate, samples: GateSamples, inverse_penalty: float) -> tuple[Tensor, float]:
    """Return weights ``(E,)`` and bias of a logistic regression of films against outliers.

    The evidence is standardised by the films for the fit, since the penalty takes all values to be
    of one scale; weights and bias are then those of the evidence as it comes.
    """
    from sklearn.linear_model import LogisticRegression

    films = [gate.evidence(samples.films), gate.evidence(samples.varied)]
    outliers = [gate.evidence(blocks) for blocks in samples.outliers.values()]
    evidence = torch.cat(films + outliers).double()
    mean = evidence[: len(films[0])].mean(0)
    scale = evidence[: sum(map(len, films))].std(0).clamp(min=LEAST_SCALE)
    film_shares = [np.full(len(part), 0.25 / len(part)) for part in films]
    outlier_shares = [np.full(len(part), len(part) ** -0.5) for part in outliers]
    total = 2 * sum(float(part.sum()) for part in outlier_shares)
    shares = np.concatenate(film_shares + [part / total for part in outlier_shares])
    labels = np.repeat([1, 0], [sum(map(len, films)), sum(map(len, outliers))])
    regression = LogisticRegression(C=inverse_penalty, max_iter=500)
    regression.fit(((evidence - mean) / scale).numpy(), labels, sample_weight=shares * len(shares))
    weights = torch.from_numpy(regression.coef_[0]) / scale
    return weights.float(), float(regression.intercept_[0] - weights @ mean)


def _threshold(gate: Gate, validation: Blocks, config: GateConfig) -> float:
    """Return the logit below which the chosen share of the validation films lies."""
    logits = gate.evidence(validation).double() @ gate.weights.double() + gate.bias
    return float(torch.quantile(logits, config.refused_share))
