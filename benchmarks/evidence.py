"""Measures how faithful the evidence maps are, on films of the test split.

    python -m benchmarks.evidence --data FOLDER

Deletion and insertion follow Petsiuk et al. (BMVC 2018): the probability of the predicted class
while the film's pixels give way to an even grey, and while they come back to a blurred film, those
with the most evidence first. The share of the evidence for a film's own class inside the lungs and
the infection stands beside their share of the area, which chance would give. The maps of networks
with random weights must differ (Adebayo et al., NeurIPS 2018).
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
from scipy.ndimage import gaussian_filter

from benchmarks.evidence_maps import MAPS, EvidenceMap, edges, integrated_gradients, to_grid
from benchmarks.options import build_parser
from resformer.checkpoint import load_checkpoint
from resformer.data.archive import open_dataset
from resformer.data.manifest_csv import read_manifest
from resformer.data.masks import mask_of
from resformer.evaluation.bootstrap import estimate_mean
from resformer.evaluation.faithfulness import (
    area_under_curve,
    rank_correlation,
    replace_by_evidence,
    share_inside,
    structural_similarity,
)
from resformer.explanation import scale_evidence
from resformer.images import decode_image
from resformer.inference import Predictor, compute_logits
from resformer.model import IdentityMappingResFormer
from resformer.transforms import resize_pixels, to_input

logger = logging.getLogger(__name__)

Figures = NDArray[np.float64]
Row = dict[str, Figures]
Tables = dict[str, dict[str, Row]]

_STEPS = 16
_BLUR_SHARE = 0.08
_INFECTION_FOLDER = "infection masks"


@dataclass(frozen=True)
class Film:
    """A film of the test split.

    Attributes:
        pixels: decoded, ``(H, W)``.
        class_name: what it shows.
        lungs: mask ``(H, W)``, if there is one.
        infection: mask ``(H, W)``, if there is one.
    """

    pixels: NDArray[np.uint8]
    class_name: str
    lungs: NDArray[np.uint8] | None = None
    infection: NDArray[np.uint8] | None = None


def read_film(path: Path, class_name: str) -> Film:
    """Read a film and the masks that lie beside it."""
    infection = path.parent.parent / _INFECTION_FOLDER / f"{path.stem}.png"
    lungs = mask_of(path)
    return Film(
        decode_image(path.read_bytes()),
        class_name,
        decode_image(lungs.read_bytes()) if lungs else None,
        decode_image(infection.read_bytes()) if infection.is_file() else None,
    )


def measure_curves(predictor: Predictor, films: Sequence[Film]) -> dict[str, Row]:
    """Return the areas under the deletion and insertion curves of each map, by film."""
    areas: dict[str, list[tuple[float, float]]] = {name: [] for name in MAPS}
    for film in films:
        image = to_input(film.pixels, predictor.checkpoint.input_spec)
        index = int(compute_logits(predictor.model, image[None]).argmax())
        pixels = image[0].numpy()
        grey = np.full_like(pixels, pixels.mean())
        blurred = gaussian_filter(pixels, _BLUR_SHARE * len(pixels))
        for name, make in MAPS.items():
            order = enlarge(make(predictor.model, image, index), len(pixels))
            curves = (
                replace_by_evidence(pixels, grey, order, _STEPS),
                replace_by_evidence(blurred, pixels, order, _STEPS),
            )
            deletion, insertion = (follow(predictor, curve, index) for curve in curves)
            areas[name].append((area_under_curve(deletion), area_under_curve(insertion)))
    return {
        name: dict(zip(("deletion", "insertion"), np.array(pairs).T, strict=True))
        for name, pairs in areas.items()
    }


def follow(predictor: Predictor, images: NDArray[np.float32], index: int) -> Figures:
    """Return the probability of a class for network inputs ``(S, H, W)``: ``(S,)``."""
    logits = compute_logits(predictor.model, torch.from_numpy(images)[:, None])
    probabilities = torch.softmax(logits / predictor.checkpoint.temperature, dim=1)
    followed: Figures = probabilities[:, index].numpy()
    return followed


def enlarge(evidence: EvidenceMap, side: int) -> EvidenceMap:
    """Enlarge a map smoothly to a square."""
    values = torch.from_numpy(evidence)[None, None]
    larger: EvidenceMap = F.interpolate(values, size=(side, side), mode="bicubic")[0, 0].numpy()
    return larger


def measure_shares(
    predictor: Predictor,
    films: Sequence[Film],
    mask_of_film: Callable[[Film], NDArray[np.uint8] | None],
) -> Row:
    """Return, for films with a mask that is not empty, shares of map and area inside it."""
    spec = predictor.checkpoint.input_spec
    shares: list[tuple[float, float, float]] = []
    for film in films:
        mask = mask_of_film(film)
        if mask is None or not mask.any():
            continue
        image = to_input(film.pixels, spec)
        index = predictor.class_names.index(film.class_name)
        inside = to_grid(resize_pixels(mask, spec.size) / 255)
        evidence = scale_evidence(integrated_gradients(predictor.model, image, index))
        outlines = edges(predictor.model, image, index)
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
    for name, other in {"last layer": last, "all layers": everything}.items():
        likeness = []
        for film in films:
            image = to_input(film.pixels, predictor.checkpoint.input_spec)
            index = int(compute_logits(predictor.model, image[None]).argmax())
            trained, random = (
                integrated_gradients(model, image, index) for model in (predictor.model, other)
            )
            shown = scale_evidence(trained), scale_evidence(random)
            likeness.append((rank_correlation(trained, random), structural_similarity(*shown)))
        correlation, similarity = np.array(likeness).T
        rows[name] = {"rank correlation": correlation, "structural similarity": similarity}
    return rows


def measure(predictor: Predictor, films: Sequence[Film], per_class: int) -> Tables:
    """Return figures of single films, by table, row and column."""
    some = [
        film
        for name in predictor.class_names
        for film in [film for film in films if film.class_name == name][:per_class]
    ]
    logger.info("%d films for the curves", len(some))
    curves = measure_curves(predictor, some)
    ours = curves["evidence map"]
    lead = {
        f"evidence map against {name}": {
            "deletion less by": row["deletion"] - ours["deletion"],
            "insertion more by": ours["insertion"] - row["insertion"],
        }
        for name, row in curves.items()
        if row is not ours
    }
    logger.info("shares inside the masks")
    shares = {
        f"lungs, {name}": measure_shares(
            predictor, [film for film in films if film.class_name == name], lambda f: f.lungs
        )
        for name in predictor.class_names
    }
    shares["infection"] = measure_shares(predictor, films, lambda film: film.infection)
    logger.info("random weights")
    return {
        "area under the curve": curves,
        "difference": lead,
        "share inside the mask": {k: v for k, v in shares.items() if v["edges"].size},
        "likeness to a network with random weights": measure_randomisation(predictor, some),
    }


def to_markdown(tables: Mapping[str, Mapping[str, Row]]) -> str:
    """Lay the means out as tables, with bootstrap intervals over films."""
    lines = ["# How faithful the evidence maps are", "", "Made by `python -m benchmarks.evidence`."]
    for title, rows in tables.items():
        columns = list(next(iter(rows.values()), {}))
        lines += ["", f"| {' | '.join([title, 'films', *columns])} |"]
        lines.append("|---" * (len(columns) + 2) + "|")
        for name, figures in rows.items():
            counted = max(int(np.isfinite(values).sum()) for values in figures.values())
            cells = [name.replace("_", " "), str(counted), *map(_to_cell, figures.values())]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _to_cell(values: Figures) -> str:
    mean = estimate_mean(values)
    if mean["value"] is None:
        return "none"
    return f"{mean['value']:.3f} ({mean['low']:.3f} to {mean['high']:.3f})"


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the options, measure, print, write."""
    parser = build_parser(__doc__, Path("benchmarks/evidence.md"))
    parser.add_argument("--films", type=int, default=40, help="of each class, for the curves")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    predictor = Predictor(load_checkpoint(options.model), "cpu")
    with open_dataset(options.data / "chest-xray") as root:
        rows = read_manifest(options.manifest, root).subset("test")
        films = [read_film(root / row.path, row.class_name) for row in rows]
    order = np.random.default_rng(0).permutation(len(films)).tolist()
    tables = measure(predictor, [films[i] for i in order], options.films)
    options.out.write_text(to_markdown(tables))
    print(to_markdown(tables))


if __name__ == "__main__":
    main()
