"""What the gate is fitted on: films as they are, films varied, and what it shall refuse."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from resformer.gate.alterations import ALTERATIONS
from resformer.gate.canvas import Pixels
from resformer.gate.drawings import DRAWINGS
from resformer.gate.films import FilmVariation
from resformer.gate.gate import describe
from resformer.model import IdentityMappingResFormer
from resformer.transforms import InputSpec, resize_pixels, to_input

Blocks = list[Tensor]
_BATCH_SIZE = 64
_VARIATIONS_PER_FILM = 4
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
    """Descriptions of pictures, as :func:`resformer.gate.gate.describe` gives them.

    Attributes:
        films: training films.
        varied: training films, varied.
        validation: films that set the threshold.
        outliers: by kind, what shall be refused.
    """

    films: Blocks
    varied: Blocks
    validation: Blocks
    outliers: dict[str, Blocks]


class Describer:
    """Runs a network over many pictures.

    Args:
        model: in evaluation mode.
        spec: what it expects.
        progress: whether to draw progress bars.
    """

    def __init__(
        self, model: IdentityMappingResFormer, spec: InputSpec, *, progress: bool = False
    ) -> None:
        self.model = model
        self.spec = spec
        self.progress = progress

    @torch.inference_mode()
    def __call__(self, pictures: Iterable[Pixels], label: str) -> Blocks:
        """Describe pictures ``(H, W)`` of any sizes, on the CPU."""
        device = next(self.model.parameters()).device
        described: list[Blocks] = []
        bar = tqdm(pictures, desc=label, unit="img", disable=not self.progress)
        remaining = iter(bar)
        while films := list(islice(remaining, _BATCH_SIZE)):
            images = torch.stack([to_input(film, self.spec) for film in films]).to(device)
            features = self.model.forward_features(
                images.contiguous(memory_format=torch.channels_last)
            )
            described.append([block.float().cpu() for block in describe(images, features)])
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
) -> GateSamples:
    """Describe all that a gate is fitted on.

    Args:
        describer: of the network that the gate is for.
        films: training films, ``(H, W)`` each.
        validation: validation films.
        outliers: by kind, given pictures that shall be refused; those that are made are added.
        config: how many of each.

    Raises:
        ValueError: if there are no films or no validation films.
    """
    if len(films) == 0 or len(validation) == 0:
        raise ValueError("the gate needs training films and validation films: split the data anew")
    size = describer.spec.size
    order = np.random.default_rng(config.seed).permutation(len(films)).tolist()
    chosen = [resize_pixels(films[i], size) for i in order[: config.films]]
    variation = FilmVariation(size)
    repeats = min(config.variations, _VARIATIONS_PER_FILM * len(films))
    varied = (
        variation(resize_pixels(films[order[-1 - i % len(films)]], size), config.seed + i)
        for i in range(repeats)
    )
    made = min(config.made, max(_LEAST_MADE, len(films) // 4))
    return GateSamples(
        films=describer(chosen, "films"),
        varied=describer(varied, "varied films"),
        validation=describer(validation, "validation films"),
        outliers={
            kind: describer(_with_copies(pictures, variation, config), kind)
            for kind, pictures in outliers.items()
        }
        | {
            f"made: {kind}": describer(islice(pictures, made), kind)
            for kind, pictures in _made_outliers(chosen, size, config.seed).items()
        },
    )


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
