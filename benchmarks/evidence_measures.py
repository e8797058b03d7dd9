"""What is measured of evidence maps on films: curves, shares inside masks, random weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from benchmarks.evidence_maps import EvidenceMap, build_maps, edges, integrated_gradients, to_grid
from resformer.evaluation.faithfulness import (
    area_under_curve,
    rank_correlation,
    replace_by_evidence,
    share_inside,
    structural_similarity,
)
from resformer.explanation import scale_evidence
from resformer.model import IdentityMappingResFormer
from resformer.predict import Predictor, compute_logits
from resformer.transforms import resize_pixels, to_input

Figures = NDArray[np.float64]
Row = dict[str, Figures]

_STEPS = 16
_BLUR_SHARE = 0.08


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


def measure_curves(predictor: Predictor, films: Sequence[Film]) -> dict[str, Row]:
    """Return the areas under the deletion and insertion curves of each map, by film."""
    maps = build_maps(predictor.checkpoint.temperature)
    areas: dict[str, list[tuple[float, float]]] = {name: [] for name in maps}
    for film in films:
        image = to_input(film.pixels, predictor.checkpoint.input_spec)
        index = int(compute_logits(predictor.model, image[None]).argmax())
        pixels = image[0].numpy()
        grey = np.full_like(pixels, pixels.mean())
        blurred = gaussian_filter(pixels, _BLUR_SHARE * len(pixels))
        for name, make in maps.items():
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
        temperature = predictor.checkpoint.temperature
        evidence = scale_evidence(
            integrated_gradients(predictor.model, image, index, temperature=temperature)
        )
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
                integrated_gradients(
                    model, image, index, temperature=predictor.checkpoint.temperature
                )
                for model in (predictor.model, other)
            )
            shown = scale_evidence(trained), scale_evidence(random)
            likeness.append((rank_correlation(trained, random), structural_similarity(*shown)))
        correlation, similarity = np.array(likeness).T
        rows[name] = {"rank correlation": correlation, "structural similarity": similarity}
    return rows
