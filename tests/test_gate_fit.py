"""Fitting the gate: it learns to tell, is reproducible, and comes with a training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from resformer import export
from resformer.checkpoint import NetworkGraph, load_checkpoint, save_checkpoint
from resformer.cli import main
from resformer.data.manifest import write_manifest
from resformer.gate.alterations import ALTERATIONS, FilmVariation
from resformer.gate.drawings import DRAWINGS
from resformer.gate.fit import (
    Describer,
    GateConfig,
    GateSamples,
    collect_samples,
    find_outliers,
    fit_gate,
    read_outliers,
)
from resformer.predict import Predictor
from resformer.training import finish as gating
from tests.phantom import draw_chest_phantom
from tests.training_setup import split_by_number

CONFIG = GateConfig(copies=2, directions=16)


@pytest.fixture(scope="module")
def describer(tiny_checkpoint: Path) -> Describer:
    checkpoint = load_checkpoint(tiny_checkpoint)
    return Describer(checkpoint.build_model(), checkpoint.input_spec)


@pytest.fixture(scope="module")
def samples(describer: Describer) -> GateSamples:
    films = [draw_chest_phantom(80, seed=seed) for seed in range(60)]
    stripes = [np.tile(np.arange(0, 250, 10, dtype=np.uint8), (70, 4))] * 3
    return collect_samples(describer, films[:40], films[40:], {"stripes": stripes}, CONFIG)


def test_the_samples_are_films_variations_and_every_kind(samples: GateSamples) -> None:
    assert [len(part[0]) for part in (samples.films, samples.varied, samples.validation)] == [
        *(40, 160, 20)
    ]
    made = {f"made: {kind}" for kind in (*DRAWINGS, *ALTERATIONS)}
    assert set(samples.outliers) == {"stripes"} | made
    assert len(samples.outliers["stripes"][0]) == 3 * 3
    assert len(samples.outliers["made: noise"][0]) == 10


def test_a_fitted_gate_tells_films_from_the_rest(
    samples: GateSamples, describer: Describer
) -> None:
    gate = fit_gate(samples, CONFIG)
    fresh = [draw_chest_phantom(80, seed=seed) for seed in range(500, 530)]
    rng = np.random.default_rng(9)
    others = [DRAWINGS[kind](64, rng) for kind in ("noise", "text", "grating") for _ in range(10)]
    assert (gate.scores(describer(fresh, "")) >= gate.threshold).float().mean() > 0.9
    assert (gate.scores(describer(others, "")) < gate.threshold).float().mean() > 0.9


def test_the_threshold_leaves_the_chosen_share_of_validation_below(samples: GateSamples) -> None:
    gate = fit_gate(samples, GateConfig(directions=16, refused_share=0.25))
    assert int((gate.scores(samples.validation) < gate.threshold).sum()) == 5


def test_a_fit_is_reproducible(samples: GateSamples) -> None:
    one, other = fit_gate(samples, CONFIG), fit_gate(samples, CONFIG)
    torch.testing.assert_close(one.weights, other.weights, rtol=0, atol=0)
    assert one.bias == other.bias


def test_a_gate_needs_films_and_outliers(describer: Describer, samples: GateSamples) -> None:
    with pytest.raises(ValueError, match="needs training films and validation films"):
        collect_samples(describer, [], [draw_chest_phantom(80)], {}, CONFIG)
    empty = GateSamples(samples.films, samples.varied, samples.validation, {})
    with pytest.raises(ValueError, match="needs outliers"):
        fit_gate(empty, CONFIG)


@pytest.mark.parametrize("kind", DRAWINGS)
def test_a_drawing_is_the_same_for_the_same_seed(kind: str) -> None:
    one, other = (DRAWINGS[kind](64, np.random.default_rng(4)) for _ in range(2))
    assert one.shape == (64, 64)
    assert one.dtype == np.uint8
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", ALTERATIONS)
def test_an_alteration_changes_a_film_and_leaves_the_original(kind: str) -> None:
    film = draw_chest_phantom(64, seed=1)
    before = film.copy()
    altered = ALTERATIONS[kind](film, np.random.default_rng(4))
    assert altered.dtype == np.uint8
    assert altered.shape != film.shape or np.abs(altered.astype(int) - film).mean() > 5
    np.testing.assert_array_equal(film, before)


def test_turned_films_are_exactly_turned() -> None:
    film = draw_chest_phantom(64, seed=1)
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(ALTERATIONS["inverted"](film, rng), 255 - film)
    flipped = ALTERATIONS["upside_down"](film, rng)
    assert any(np.array_equal(flipped, f) for f in (film[::-1], film[::-1, ::-1]))


def test_a_variation_is_the_same_for_the_same_seed() -> None:
    vary, film = FilmVariation(64), draw_chest_phantom(90, seed=2)
    np.testing.assert_array_equal(vary(film, 5), vary(film, 5))
    assert vary(film, 5).shape == (64, 64)
    assert not np.array_equal(vary(film, 5), vary(film, 6))


def _save(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def test_outliers_are_found_by_kind(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    noise = DRAWINGS["noise"](64, np.random.default_rng(0))
    _save(noise, tmp_path / "cats" / "deep" / "a.png")
    _save(noise, tmp_path / "b.png")
    _save(noise, tmp_path / ".hidden" / "c.png")
    (tmp_path / "cats" / "broken.png").write_bytes(b"no image")
    (tmp_path / "notes.txt").write_text("no image")
    read = read_outliers(find_outliers(tmp_path))
    assert {kind: len(pictures) for kind, pictures in read.items()} == {"unsorted": 1, "cats": 1}
    np.testing.assert_array_equal(read["cats"][0], noise)
    assert "broken.png" in caplog.text


def test_outliers_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no folder"):
        find_outliers(tmp_path / "absent")
    with pytest.raises(ValueError, match="holds no image"):
        find_outliers(tmp_path)
    (tmp_path / "cats").mkdir()
    (tmp_path / "cats" / "broken.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="no image of the outliers 'cats' can be read"):
        read_outliers(find_outliers(tmp_path))


def test_fit_gate_gives_a_checkpoint_a_gate(
    tiny_checkpoint: Path, image_folder: Path, tmp_path: Path
) -> None:
    write_manifest(split_by_number(image_folder), tmp_path / "manifest.csv")
    _save(DRAWINGS["text"](90, np.random.default_rng(1)), tmp_path / "outliers" / "page.png")
    command = ["fit-gate", "--model", str(tiny_checkpoint), "--data", str(image_folder)]
    command += ["--manifest", str(tmp_path / "manifest.csv"), "--device", "cpu"]
    command += ["--outliers", str(tmp_path / "outliers"), "--out", str(tmp_path / "gated.pth")]
    assert main(command) == 0
    before, after = load_checkpoint(tiny_checkpoint), load_checkpoint(tmp_path / "gated.pth")
    assert before.gate is None
    assert after.gate is not None
    assert before.abstention is None
    assert after.abstention is not None
    for name, weight in before.state_dict.items():
        torch.testing.assert_close(after.state_dict[name], weight, rtol=0, atol=0)
    noise = DRAWINGS["noise"](90, np.random.default_rng(2))
    (prediction,) = Predictor(after, "cpu").predict([noise])
    assert prediction.gate is not None
    assert not prediction.gate.accepted


def test_fit_gate_renews_a_graph(
    tiny_checkpoint: Path, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    old, new = (NetworkGraph(content, checkpoint.source) for content in (b"old", b"new"))
    # The fit of a gate and the export take long, and have tests of their own.
    monkeypatch.setattr(gating, "add_gate", lambda fitted, *_, **__: fitted)
    monkeypatch.setattr(export, "add_graph_if_possible", lambda fitted: replace(fitted, graph=new))
    write_manifest(split_by_number(image_folder), tmp_path / "manifest.csv")
    path = tmp_path / "model.pth"
    command = ["fit-gate", "--model", str(path), "--data", str(image_folder)]
    command += ["--manifest", str(tmp_path / "manifest.csv"), "--device", "cpu"]
    for before, expected in ((old, new), (None, None)):
        save_checkpoint(replace(checkpoint, graph=before), path)
        assert main(command) == 0
        after = load_checkpoint(path)
        assert after.graph == expected
        assert after.abstention is not None


def test_fit_gate_names_missing_outliers(
    tiny_checkpoint: Path, image_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    command = ["fit-gate", "--model", str(tiny_checkpoint), "--data", str(image_folder)]
    assert main([*command, "--outliers", "absent"]) == 1
    assert "there is no folder absent" in caplog.text
