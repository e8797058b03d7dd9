"""Measure how faithful the evidence maps are, on films of the test split.

    python -m benchmarks.evidence --data FOLDER

Deletion and insertion follow Petsiuk et al. (BMVC 2018): the probability of the predicted class
while the film's pixels give way to an even grey, and while they come back to a blurred film, those
with the most evidence first. The share of the evidence for a film's own class inside the lungs and
the infection stands beside their share of the area, which chance would give. The maps of networks
with random weights must differ (Adebayo et al., NeurIPS 2018).

The maps that an evidence map is compared with are all in its grid, so that none wins by its grain.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, sobel
from scipy.stats import spearmanr
from torch import Tensor

from benchmarks.common import build_data_parser, list_data_sets, publish
from resformer.checkpoint import load_checkpoint
from resformer.data.manifest import read_manifest
from resformer.data.masks import INFECTION_FOLDER, mask_of
from resformer.data.unpack import open_data_roots
from resformer.evaluation.metrics import estimate_mean
from resformer.evaluation.tables import format_estimate, render_table
from resformer.explanation import class_evidence, scale_evidence
from resformer.images import decode_image
from resformer.model import IdentityMappingResFormer
from resformer.predict import Predictor
from resformer.transforms import resize_pixels, to_input

logger = logging.getLogger(__name__)

_CELL = 4
_STEPS = 16
_BLUR_SHARE = 0.08

FloatMap = NDArray[np.floating]
EvidenceMap = NDArray[np.float32]
MakeMap = Callable[[Predictor, Tensor, int], EvidenceMap]
# Figures of single films, by column.
Row = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Film:
    """A film of the test split, ``(H, W)``, with the masks ``(H, W)`` that there are."""

    pixels: NDArray[np.uint8]
    class_name: str
    lungs: NDArray[np.uint8] | None = None
    infection: NDArray[np.uint8] | None = None


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write the tables."""
    parser = build_data_parser(__doc__, "evidence")
    parser.add_argument("--films", type=int, default=40, help="of each class, for the curves")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    predictor = Predictor(load_checkpoint(options.model), "cpu")
    with open_data_roots(list_data_sets(options.data)) as root:
        rows = read_manifest(options.manifest, root).subset("test")
        films = [read_film(root / row.path, row.class_name) for row in rows]
    order = np.random.default_rng(0).permutation(len(films)).tolist()
    tables = measure(predictor, [films[i] for i in order], options.films)
    source = predictor.checkpoint.source[:12]
    made = f"Made by `python -m benchmarks.evidence` of the network {source}."
    publish(f"# How faithful the evidence maps are\n\n{made}\n\n{render(tables)}", options.out)


def read_film(path: Path, class_name: str) -> Film:
    """Read a film and the masks that lie beside it."""
    masks = [mask_of(path), mask_of(path, INFECTION_FOLDER)]
    lungs, infection = (decode_image(mask.read_bytes()) if mask else None for mask in masks)
    return Film(decode_image(path.read_bytes()), class_name, lungs, infection)


def measure(
    predictor: Predictor, films: Sequence[Film], per_class: int
) -> dict[str, dict[str, Row]]:
    """Return figures of single films, by table and row."""
    by_class = {
        name: [film for film in films if film.class_name == name] for name in predictor.class_names
    }
    some = [film for of_class in by_class.values() for film in of_class[:per_class]]
    logger.info("%d films for the curves", len(some))
    curves = measure_curves(predictor, some)
    ours, *others = curves
    lead = {
        f"{ours} against {name}": {
            "deletion less by": curves[name]["deletion"] - curves[ours]["deletion"],
            "insertion more by": curves[ours]["insertion"] - curves[name]["insertion"],
        }
        for name in others
    }
    logger.info("shares inside the masks")
    shares = {
        f"lungs, {name}": measure_shares(predictor, [(film, film.lungs) for film in of_class])
        for name, of_class in by_class.items()
    }
    shares["infection"] = measure_shares(predictor, [(film, film.infection) for film in films])
    logger.info("random weights")
    return {
        "area under the curve": curves,
        "difference": lead,
        "share inside the mask": {name: row for name, row in shares.items() if row["edges"].size},
        "likeness to a network with random weights": measure_randomisation(predictor, some),
    }


def render(tables: Mapping[str, Mapping[str, Row]]) -> str:
    """Lay the means out as tables, with bootstrap intervals over films."""
    parts = []
    for title, rows in tables.items():
        cells = []
        for name, figures in rows.items():
            counted = max(int(np.isfinite(values).sum()) for values in figures.values())
            means = (format_estimate(estimate_mean(values)) for values in figures.values())
            cells.append((name.replace("_", " "), str(counted), *means))
        parts.append(render_table((title, "films", *next(iter(rows.values()), {})), cells))
    return "\n\n".join(parts)


def attribute(
    predictor: Predictor,
    image: Tensor,
    class_index: int,
    model: IdentityMappingResFormer | None = None,
) -> EvidenceMap:
    """Return what the product shows of an input ``(1, H, W)``, before it cuts off what is below 0.

    The map is ``(H / 4, W / 4)``, as all of this module.
    """
    evidence: EvidenceMap = class_evidence(
        model or predictor.model,
        image,
        class_index,
        temperature=predictor.checkpoint.temperature,
    ).numpy()
    return evidence


def class_activation(predictor: Predictor, image: Tensor, class_index: int) -> EvidenceMap:
    """Return the parts of the class's logit by where the fused features are.

    Zhou et al., CVPR 2016, over all four scales; exact, because pooling and classifier are linear,
    and for the same reason equal to Grad-CAM (Selvaraju et al., ICCV 2017) without its cut at 0.
    """
    model = predictor.model
    with torch.no_grad():
        features = model.forward_features(image[None])
        lungs = None if model.lung_head is None else model.lungs(features)
    features = [feature.requires_grad_() for feature in features]
    slopes = torch.autograd.grad(model.classify(features, lungs)[0, class_index], features)
    size = features[0].shape[-2:]
    parts = [
        F.interpolate((slope * feature.detach()).sum(1, keepdim=True), size=size, mode="bilinear")
        * (feature.shape[-2] * feature.shape[-1] / (size[0] * size[1]))
        for slope, feature in zip(slopes, features, strict=True)
    ]
    activation: EvidenceMap = torch.stack(parts).sum(0)[0, 0].numpy()
    return activation


def edges(_: Predictor, image: Tensor, __: int) -> EvidenceMap:
    """Return how strong the film's edges are: the mean magnitude of its Sobel gradient."""
    pixels = image[0].numpy()
    return to_grid(np.hypot(sobel(pixels, axis=0), sobel(pixels, axis=1)))


def chance(_: Predictor, image: Tensor, __: int) -> EvidenceMap:
    """Return random numbers, the same for the same film."""
    generator = np.random.default_rng(abs(int(image.double().sum() * 1e3)))
    shape = [side // _CELL for side in image.shape[-2:]]
    return generator.random(shape, dtype=np.float32)


MAPS: Mapping[str, MakeMap] = {
    "evidence map": attribute,
    "class activation": class_activation,
    "edges": edges,
    "random": chance,
}


def to_grid(values: NDArray[np.floating]) -> EvidenceMap:
    """Average ``(H, W)`` down to ``(H / 4, W / 4)``."""
    height, width = values.shape
    cells = values.reshape(height // _CELL, _CELL, width // _CELL, _CELL)
    averaged: EvidenceMap = cells.mean(axis=(1, 3)).astype(np.float32)
    return averaged


def measure_curves(predictor: Predictor, films: Sequence[Film]) -> dict[str, Row]:
    """Return the areas under the deletion and insertion curves of each map, by film."""
    areas: dict[str, list[tuple[float, ...]]] = {name: [] for name in MAPS}
    for film in films:
        image, index = look_at(predictor, film)
        pixels = image[0].numpy()
        grey = np.full_like(pixels, pixels.mean())
        blurred = gaussian_filter(pixels, _BLUR_SHARE * len(pixels))
        for name, make in MAPS.items():
            order = enlarge(make(predictor, image, index), len(pixels))
            deleted = replace_by_evidence(pixels, grey, order, _STEPS)
            inserted = replace_by_evidence(blurred, pixels, order, _STEPS)
            curves = (follow(predictor, images, index) for images in (deleted, inserted))
            areas[name].append(tuple(float(np.trapezoid(curve, dx=1 / _STEPS)) for curve in curves))
    return {
        name: dict(zip(("deletion", "insertion"), np.array(pairs).T, strict=True))
        for name, pairs in areas.items()
    }


@torch.no_grad()
def look_at(predictor: Predictor, film: Film) -> tuple[Tensor, int]:
    """Return a film as the network's input, ``(1, size, size)``, and the predicted class."""
    image = to_input(film.pixels, predictor.checkpoint.input_spec)
    return image, int(predictor.model(image[None]).argmax())


@torch.no_grad()
def follow(predictor: Predictor, images: NDArray[np.float32], index: int) -> NDArray[np.float64]:
    """Return the probability of a class for network inputs ``(S, H, W)``: ``(S,)``."""
    logits = predictor.model(torch.from_numpy(images)[:, None]).double()
    probabilities = torch.softmax(logits / predictor.checkpoint.temperature, dim=1)
    followed: NDArray[np.float64] = probabilities[:, index].numpy()
    return followed


def enlarge(evidence: EvidenceMap, side: int) -> EvidenceMap:
    """Enlarge a map ``(h, w)`` smoothly to ``(side, side)``."""
    values = torch.from_numpy(evidence)[None, None]
    larger: EvidenceMap = F.interpolate(values, size=(side, side), mode="bicubic")[0, 0].numpy()
    return larger


def measure_shares(
    predictor: Predictor, films: Sequence[tuple[Film, NDArray[np.uint8] | None]]
) -> Row:
    """Return, for films with a mask that is not empty, shares of map and area inside it."""
    spec = predictor.checkpoint.input_spec
    shares: list[tuple[float, float, float]] = []
    for film, mask in films:
        if mask is None or not mask.any():
            continue
        image = to_input(film.pixels, spec)
        index = predictor.class_names.index(film.class_name)
        inside = to_grid(resize_pixels(mask, spec.size) / 255)
        evidence = scale_evidence(attribute(predictor, image, index))
        outlines = edges(predictor, image, index)
        shares.append(
            (share_inside(evidence, inside), share_inside(outlines, inside), float(inside.mean()))
        )
    evidence_share, edge_share, area = np.array(shares).reshape(-1, 3).T
    return {
        "evidence map": evidence_share,
        "edges": edge_share,
        "area (chance)": area,
        "evidence map less area": evidence_share - area,
    }


def measure_randomisation(predictor: Predictor, films: Sequence[Film]) -> dict[str, Row]:
    """Return how alike the maps of the network and of networks with random weights are."""
    torch.manual_seed(0)
    last = predictor.checkpoint.build_model().eval()
    last.fc.reset_parameters()
    everything = IdentityMappingResFormer(predictor.checkpoint.model_config).eval()
    rows: dict[str, Row] = {}
    for name, model in {"last layer": last, "all layers": everything}.items():
        likeness = []
        for film in films:
            image, index = look_at(predictor, film)
            maps = (attribute(predictor, image, index, other) for other in (None, model))
            likeness.append(spearmanr(*maps, axis=None).statistic)
        rows[name] = {"rank correlation": np.array(likeness)}
    return rows


# Measures


def replace_by_evidence(
    film: FloatMap, substitute: FloatMap, evidence: FloatMap, steps: int
) -> NDArray[np.float32]:
    """Replace ever more of a film's pixels, those with the most evidence first.

    With the film and a featureless substitute this is deletion; with the two exchanged it is
    insertion.

    Args:
        film: ``(H, W)``, where it starts.
        substitute: ``(H, W)``, where it ends.
        evidence: ``(H, W)``, of any scale; among equals the first in reading order goes first.
        steps: how many replacements, each of the same number of pixels within one.

    Returns:
        ``(steps + 1, H, W)``, the film first and the substitute last.
    """
    rank = np.empty(film.size, dtype=np.int64)
    rank[np.argsort(-evidence, axis=None, kind="stable")] = np.arange(film.size)
    counts = np.round(np.linspace(0, film.size, steps + 1)).astype(np.int64)
    replaced = rank.reshape(film.shape) < counts[:, None, None]
    return np.where(replaced, substitute, film).astype(np.float32)


def share_inside(evidence: FloatMap, mask: FloatMap) -> float:
    """Return the share of the evidence that lies inside a mask.

    Args:
        evidence: ``(H, W)``, 0 or more.
        mask: ``(H, W)``, from 0, outside, to 1, inside.

    Returns:
        from 0 to 1; NaN where there is no evidence.
    """
    total = float(evidence.sum())
    return float((evidence * mask).sum()) / total if total > 0 else float("nan")


if __name__ == "__main__":
    main()
