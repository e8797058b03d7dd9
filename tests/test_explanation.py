"""Evidence maps and outlines of the lungs: exact values, what they add up to and leave alone."""

from __future__ import annotations

import io
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import correlate1d
from torch import Tensor, nn

from resformer.explanation import (
    class_evidence,
    encode_overlay,
    evidence_map,
    inferno,
    scale_evidence,
    trace_lungs,
)
from resformer.images import encode_preview, preview_size
from resformer.model import IdentityMappingResFormer, ResFormerConfig
from resformer.phantom import draw_chest_phantom
from resformer.predict import Predictor
from resformer.transforms import InputSpec, to_input

BINOMIAL = np.array([1, 4, 6, 4, 1]) / 16


@pytest.fixture(scope="module")
def predictor(tiny_checkpoint: Path) -> Predictor:
    return Predictor.from_file(tiny_checkpoint, "cpu")


class LinearNetwork(nn.Module):
    """Two classes, whose log-odds are a weighted sum of the image's 4 x 4 averages."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.weights = weights
        self.backbone = self
        self.lung_head = None

    def begin(self, image: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(image, 4)

    def deepen(self, first: Tensor) -> list[Tensor]:
        return [first]

    def fuse(self, features: list[Tensor]) -> list[Tensor]:
        return features

    def classify(self, features: list[Tensor], lungs: None) -> Tensor:
        log_odds = (features[0] * self.weights).sum(dim=(1, 2, 3))
        return torch.stack([log_odds, torch.zeros_like(log_odds)], dim=1)


def test_the_evidence_of_a_linear_network_is_exact() -> None:
    generator = torch.Generator().manual_seed(3)
    weights = torch.randn(16, 16, generator=generator)
    image = torch.randn(1, 64, 64, generator=generator)
    evidence = class_evidence(cast(IdentityMappingResFormer, LinearNetwork(weights)), image, 0)
    film = image[0].reshape(16, 4, 16, 4).mean((1, 3))
    patches = image[None].reshape(8, 8, 8, 8).mean((1, 3))[None, None]
    coarse = nn.functional.interpolate(patches, size=(64, 64), mode="bilinear")
    coarse = coarse.reshape(16, 4, 16, 4).mean((1, 3))
    featureless = (image.mean() + image.min() + coarse) / 3
    expected = (weights * (film - featureless)).numpy()
    for axis in (0, 1):
        expected = correlate1d(expected, BINOMIAL, axis=axis, mode="reflect")
    np.testing.assert_allclose(evidence.numpy(), expected, atol=1e-5)


def test_the_evidence_against_one_of_two_classes_is_for_the_other() -> None:
    network = cast(IdentityMappingResFormer, LinearNetwork(torch.ones(16, 16)))
    image = torch.randn(1, 64, 64, generator=torch.Generator().manual_seed(1))
    one, other = (class_evidence(network, image, index) for index in (0, 1))
    torch.testing.assert_close(one, -other)


@pytest.mark.parametrize("lung_head", [False, True])
def test_the_evidence_adds_up_to_what_the_film_adds_to_the_log_odds(
    tiny_config: ResFormerConfig, lung_head: bool
) -> None:
    torch.manual_seed(0)
    model = IdentityMappingResFormer(replace(tiny_config, lung_head=lung_head)).eval()
    image = to_input(draw_chest_phantom(90, seed=4), InputSpec(size=64))
    evidence = class_evidence(model, image, 2, temperature=0.5, steps=64)
    patches = nn.functional.avg_pool2d(image[None], 8)
    coarse = nn.functional.interpolate(patches, size=(64, 64), mode="bilinear")
    even, black = image.mean().expand(1, 1, 64, 64), image.min().expand(1, 1, 64, 64)
    with torch.inference_mode():
        features = model.forward_features(torch.cat([image[None], even, black, coarse]))
        lungs = model.lungs([scale[:1] for scale in features]) if lung_head else None
        logits = model.classify(features, lungs) / 0.5
    log_odds = logits[:, 2] - torch.logsumexp(logits[:, [0, 1, 3]], dim=1)
    assert float(evidence.sum()) == pytest.approx(
        float(log_odds[0] - log_odds[1:].mean()), rel=0.01, abs=1e-3
    )


def test_a_map_has_a_quarter_of_the_inputs_side_and_lies_in_0_to_1(predictor: Predictor) -> None:
    for name in predictor.class_names:
        evidence = evidence_map(predictor, draw_chest_phantom(130, seed=2), name)
        assert evidence.shape == (16, 16)
        assert evidence.dtype == np.float32
        assert evidence.min() >= 0
        assert 0 < evidence.max() <= 1


def test_a_map_takes_the_checkpoints_temperature(predictor: Predictor) -> None:
    film = draw_chest_phantom(90)
    warm = Predictor(replace(predictor.checkpoint, temperature=9.0), "cpu")
    expected = class_evidence(
        warm.model, to_input(film, warm.checkpoint.input_spec), 1, temperature=9.0
    )
    np.testing.assert_allclose(
        evidence_map(warm, film, warm.class_names[1]), scale_evidence(expected.numpy()), atol=1e-5
    )


def test_a_map_leaves_the_network_and_its_answers_alone(predictor: Predictor) -> None:
    film = draw_chest_phantom(90)
    before = predictor.predict([film])
    weights = {name: value.clone() for name, value in predictor.model.state_dict().items()}
    required = [parameter.requires_grad for parameter in predictor.model.parameters()]
    evidence_map(predictor, film, "COVID")
    assert predictor.predict([film]) == before
    assert all(parameter.grad is None for parameter in predictor.model.parameters())
    assert [parameter.requires_grad for parameter in predictor.model.parameters()] == required
    for name, value in predictor.model.state_dict().items():
        torch.testing.assert_close(value, weights[name], rtol=0, atol=0)


def test_a_map_is_the_same_within_inference_mode_and_in_threads(predictor: Predictor) -> None:
    film = draw_chest_phantom(90)
    expected = evidence_map(predictor, film, "Normal")
    fresh = Predictor(predictor.checkpoint, "cpu")
    with torch.inference_mode():
        found = evidence_map(fresh, film, "Normal")
    np.testing.assert_allclose(found, expected, atol=1e-5)
    with ThreadPoolExecutor(3) as pool:
        for found in pool.map(lambda _: evidence_map(predictor, film, "Normal"), range(6)):
            np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_evidence_is_scaled_by_its_strongest_magnitude() -> None:
    evidence = np.array([[1.0, -4.0], [2.0, 0.0]], np.float32)
    assert scale_evidence(evidence).tolist() == [[0.25, 0.0], [0.5, 0.0]]
    assert scale_evidence(np.zeros((2, 2), np.float32)).tolist() == [[0, 0], [0, 0]]


def _picture(evidence: np.ndarray, size: tuple[int, int]) -> Image.Image:
    picture = Image.open(io.BytesIO(encode_overlay(evidence.astype(np.float32), size)))
    assert picture.format == "PNG"
    assert picture.mode == "RGBA"
    return picture


def test_the_overlay_is_clear_without_evidence_and_opaque_at_its_strongest() -> None:
    evidence = np.zeros((4, 4))
    evidence[:, 2:] = 1
    picture = np.asarray(_picture(evidence, (40, 20)))
    assert picture.shape == (20, 40, 4)
    assert (picture[:, :10, 3] == 0).all()
    assert (picture[:, 30:] == [252, 255, 164, 255]).all()  # the end of the colour map inferno
    assert (np.diff(picture[0, 15:25, 3].astype(int)) >= 0).all()
    half = np.asarray(_picture(np.full((4, 4), 0.5), (8, 8)))
    middle = inferno(np.array([[128]], np.uint8))[0, 0].tolist()
    assert np.unique(half.reshape(-1, 4), axis=0).tolist() == [[*middle, 128]]


@pytest.mark.parametrize("shape", [(1200, 700), (300, 517), (64, 64), (2000, 3), (513, 512)])
def test_the_overlay_fits_the_preview(shape: tuple[int, int]) -> None:
    size = preview_size(shape, max_side=512)
    film = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    assert Image.open(io.BytesIO(encode_preview(film, max_side=512))).size == size
    assert _picture(np.eye(8), size).size == size


@pytest.mark.parametrize(
    "evidence",
    [
        np.zeros(4),
        np.zeros((0, 4)),
        np.full((4, 4), 1.01),
        np.full((4, 4), -0.01),
        np.full((4, 4), np.nan),
    ],
)
def test_what_is_no_map_is_not_drawn(evidence: np.ndarray) -> None:
    with pytest.raises(ValueError, match="values from 0 to 1"):
        encode_overlay(evidence, (8, 8))


def _map(*blocks: tuple[slice, slice]) -> np.ndarray:
    lungs = np.zeros((8, 16), dtype=np.float32)
    for block in blocks:
        lungs[block] = 1
    return lungs


def test_the_outline_runs_along_the_edges_of_the_cells() -> None:
    (polygon,) = trace_lungs(_map((slice(2, 6), slice(4, 8))))
    points = np.array(polygon)
    np.testing.assert_allclose(points.min(0), [4 / 16, 2 / 8])
    np.testing.assert_allclose(points.max(0), [8 / 16, 6 / 8])


def test_lungs_that_the_film_cuts_off_are_closed_at_its_edge() -> None:
    (polygon,) = trace_lungs(_map((slice(0, 4), slice(0, 4))))
    points = np.array(polygon)
    np.testing.assert_allclose(points.min(0), [0, 0], atol=0.01)
    np.testing.assert_allclose(points.max(0), [4 / 16, 4 / 8])


def test_the_largest_comes_first_and_a_speck_not_at_all() -> None:
    small, large = (slice(2, 5), slice(1, 4)), (slice(1, 7), slice(8, 14))
    speck = np.zeros((8, 16), dtype=np.float32)
    speck[7, 0] = 0.6
    polygons = trace_lungs(_map(small, large) + speck)
    assert [min(x for x, _ in polygon) for polygon in polygons] == [8 / 16, 1 / 16]


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_film_without_lungs_has_no_outline_and_one_all_of_lung_its_own(value: float) -> None:
    polygons = trace_lungs(np.full((8, 8), value, dtype=np.float32))
    assert len(polygons) == int(value)


@pytest.mark.parametrize(
    "lungs",
    [np.zeros(4), np.zeros((0, 4)), np.full((2, 2), 1.5), np.full((2, 2), math.nan)],
)
def test_what_is_no_map_of_probabilities_is_refused(lungs: np.ndarray) -> None:
    with pytest.raises(ValueError, match="lungs must be a map"):
        trace_lungs(lungs)
