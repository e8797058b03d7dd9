"""The outline of the lungs: where it runs, what it leaves out, and who gives it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from resformer.checkpoint import Checkpoint
from resformer.explanation import trace_lungs
from resformer.model import IdentityMappingResFormer, ResFormerConfig
from resformer.predict import Predictor
from resformer.transforms import InputSpec
from tests.conftest import CLASS_NAMES
from tests.phantom import draw_chest_phantom


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


@pytest.mark.parametrize("lung_head", [False, True])
def test_a_prediction_brings_the_lungs_where_the_network_looks_for_them(
    tiny_config: ResFormerConfig, lung_head: bool
) -> None:
    config = replace(tiny_config, lung_head=lung_head)
    model = IdentityMappingResFormer(config)
    spec = InputSpec(size=64)
    predictor = Predictor(Checkpoint(config, CLASS_NAMES, spec, model.state_dict()), "cpu")
    (prediction,) = predictor.predict([draw_chest_phantom(96, seed=1).astype(np.uint8)])
    if not lung_head:
        assert prediction.lungs is None
        return
    assert prediction.lungs is not None
    assert prediction.lungs.shape == (16, 16)
    assert 0 < prediction.lungs.min() < prediction.lungs.max() < 1
