"""Controls: exact changes, and what they say of networks that look at one thing alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from resformer.checkpoint import Checkpoint
from resformer.evaluation.controls import (
    CONTROLS,
    EXCHANGED,
    FOREIGN,
    NEED_LUNGS,
    outline_lungs,
    run_controls,
)
from resformer.model import IdentityMappingResFormer, ResFormerConfig
from resformer.phantom import draw_chest_phantom
from resformer.predict import Prediction, Predictor
from resformer.transforms import InputSpec
from tests.data_sets import CLASS_NAMES

SIDE = 64
Pixels = NDArray[np.uint8]
Films = tuple[Pixels, NDArray[np.int64]]
Lungs = NDArray[np.float32]


class Reader(Predictor):
    """Reads the class off the grey of one pixel: 50 for the first, 100 for the second, ...

    It is half sure, and abstains from what it takes for the first.
    """

    def __init__(self, config: ResFormerConfig, row: int, column: int) -> None:
        weights = IdentityMappingResFormer(config).state_dict()
        self.at = row, column  # before the check of its answers
        super().__init__(Checkpoint(config, CLASS_NAMES, InputSpec(SIDE), weights), "cpu")

    def predict(self, films: Any, *, invert: bool = False, rotate: int = 0) -> Any:
        grey = [int(np.clip(round(int(film[self.at]) / 50) - 1, 0, 3)) for film in films]
        return [
            Prediction(
                {name: 0.5 if k == seen else 0.5 / 3 for k, name in enumerate(CLASS_NAMES)},
                reason="undecided" if seen == 0 else None,
            )
            for seen in grey
        ]


@pytest.fixture(scope="module")
def outlines() -> Lungs:
    """Lungs in a square of 32 pixels in the middle of every film."""
    lungs = np.zeros((24, 16, 16), np.float32)
    lungs[:, 4:12, 4:12] = 1
    return lungs


@pytest.fixture(scope="module")
def films() -> Films:
    """Flat films, their class written in their grey."""
    labels = np.arange(24) % 4
    return np.stack([np.full((SIDE, SIDE), 50 * (k + 1), np.uint8) for k in labels]), labels


def test_a_network_that_looks_at_the_lungs_stays_with_them(
    films: Films, outlines: Lungs, tiny_config: ResFormerConfig
) -> None:
    reports = run_controls(Reader(tiny_config, 32, 32), *films, outlines)
    assert list(reports) == list(CONTROLS)
    for name in ("whole film", "lungs only", EXCHANGED, "flipped", "JPEG quality 20"):
        assert reports[name]["accuracy"]["value"] == 1, name
    assert reports[EXCHANGED]["follows_surroundings"] == 0
    for name in ("lungs blacked out", "outer frame of 10 % only"):
        assert reports[name]["accuracy"]["value"] == 0.25, name
    assert {report["mean_confidence"] for report in reports.values()} == {0.5}
    assert reports["whole film"]["withheld"] == 0.25
    assert reports["lungs blacked out"]["withheld"] == 1


def test_a_network_that_looks_at_the_border_is_caught(
    films: Films, outlines: Lungs, tiny_config: ResFormerConfig
) -> None:
    reports = run_controls(Reader(tiny_config, 1, 1), *films, outlines)
    assert reports[EXCHANGED]["accuracy"]["value"] == 0
    assert reports[EXCHANGED]["follows_surroundings"] == 1
    for name in ("lungs blacked out", "outer frame of 10 % only"):
        assert reports[name]["accuracy"]["value"] == 1, name
    assert reports["lungs only"]["accuracy"]["value"] == 0.25


def test_without_a_lung_model_the_controls_of_the_lungs_are_left_out(
    films: Films, tiny_config: ResFormerConfig
) -> None:
    reports = run_controls(Reader(tiny_config, 32, 32), *films, None, bootstrap=10)
    assert list(reports) == [name for name in CONTROLS if name not in NEED_LUNGS]
    assert reports["whole film"]["accuracy"] == {"value": 1.0, "low": 1.0, "high": 1.0}


def test_the_changes_of_grey_are_exact() -> None:
    film = np.array([[0, 100], [220, 255]], dtype=np.uint8).repeat(32, 0).repeat(32, 1)
    none = np.zeros_like(film)
    brighter = CONTROLS["brighter"](film, none, none)
    assert brighter[[0, 0, 63, 63], [0, 63, 0, 63]].tolist() == [40, 140, 255, 255]
    flatter = CONTROLS["half the contrast"](film, none, none)
    assert [flatter[0, 0], flatter[0, 63], flatter[63, 0]] == [64, 114, 174]
    assert np.unique(CONTROLS["blurred to 16 x 16"](film, none, none)[:16, :16]).tolist() == [0]
    framed = CONTROLS["outer frame of 10 % only"](np.full((64, 64), 9, np.uint8), none, none)
    assert framed[6:58, 6:58].max() == 0
    assert framed.sum() == 9 * (64 * 64 - 52 * 52)


def test_a_film_takes_the_surroundings_the_tone_and_the_sharpness_of_another() -> None:
    change = CONTROLS[FOREIGN]
    film, other = draw_chest_phantom(96, seed=1), draw_chest_phantom(96, seed=2)
    everywhere, nowhere = np.full_like(film, 255), np.zeros_like(film)
    assert np.abs(change(film, everywhere, film).astype(int) - film).max() <= 1
    assert np.abs(change(film, nowhere, other).astype(int) - other).max() <= 1
    darker = (other // 3).astype(np.uint8)
    moved = change(film, everywhere, darker)
    assert abs(np.median(moved) - np.median(darker)) <= 3
    smooth = change(film, everywhere, gaussian_filter(film, 1.5)).astype(int)
    assert np.abs(np.diff(smooth)).mean() < 0.8 * np.abs(np.diff(film.astype(int))).mean()


def test_what_cannot_be_examined_is_refused(
    films: Films, outlines: Lungs, tiny_config: ResFormerConfig
) -> None:
    reader = Reader(tiny_config, 0, 0)
    with pytest.raises(ValueError, match="no lung head: train one with --lung-head"):
        outline_lungs(reader, films[0])
    with pytest.raises(ValueError, match="there is no control 'upside down': choose from whole"):
        run_controls(reader, *films, outlines, names=("upside down",))
    with pytest.raises(ValueError, match="all films are of one class"):
        run_controls(reader, films[0], np.zeros_like(films[1]), outlines)
