"""The gate: scores and refusals, its place in the checkpoint, and how it is fitted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from resformer.backends import PyTorchBackend
from resformer.checkpoint import (
    Checkpoint,
    CheckpointError,
    NetworkGraph,
    load_checkpoint,
    save_checkpoint,
)
from resformer.cli import main
from resformer.data.manifest import write_manifest
from resformer.gate import Gate, GateError, Subspace, describe, find_objection
from resformer.phantom import draw_chest_phantom
from resformer.predict import Predictor
from resformer.training.gate_alterations import ALTERATIONS, FilmVariation
from resformer.training.gate_drawings import DRAWINGS
from resformer.training.gate_fit import (
    Describer,
    GateConfig,
    GateSamples,
    collect_samples,
    find_outliers,
    fit_gate,
    read_outliers,
)
from tests.test_checkpoint import save_spoilt
from tests.training_setup import split_by_number

LENGTHS = (256, 128, 256, 384, 512)
CONFIG = GateConfig(copies=2, directions=16)


def _gate(bias: float = 0.0) -> Gate:
    generator = torch.Generator().manual_seed(0)
    subspaces = tuple(
        Subspace(
            mean=torch.zeros(length),
            scale=torch.ones(length),
            basis=torch.linalg.qr(torch.randn(length, 3, generator=generator))[0],
            deviation=torch.ones(3),
        )
        for length in LENGTHS
    )
    return Gate(subspaces, torch.zeros(25), bias)


@pytest.fixture
def gated(tiny_checkpoint: Path) -> Checkpoint:
    return replace(load_checkpoint(tiny_checkpoint), gate=_gate(1.0))


def test_evidence_is_position_and_two_distances() -> None:
    subspace = Subspace(
        mean=torch.tensor([1.0, 1.0, 1.0]),
        scale=torch.tensor([1.0, 2.0, 1.0]),
        basis=torch.tensor([[1.0], [0.0], [0.0]]),
        deviation=torch.tensor([2.0]),
    )
    gate = Gate((subspace,), torch.zeros(3), 0.0, 0.5)
    (evidence,) = gate.evidence([torch.tensor([[7.0, 5.0, 4.0]])])
    # 3 deviations out along the only direction; 2 and 3 away from it.
    expected = [3.0 / np.sqrt(2), np.log(9.0), np.log(4.0 + 9.0)]
    assert evidence.tolist() == pytest.approx(expected, rel=1e-5)


def test_a_description_keeps_the_place_on_a_grid() -> None:
    image = torch.zeros(1, 1, 64, 64)
    image[..., :32, :] = 1
    stage = torch.arange(16.0).reshape(1, 1, 4, 4).repeat_interleave(2, 2).repeat_interleave(2, 3)
    blocks = describe(image, [stage])
    assert blocks[0].reshape(16, 16)[:, 0].tolist() == [1.0] * 8 + [0.0] * 8
    assert blocks[1].tolist() == [list(range(16))]


def test_the_predictor_judges_in_the_pass_that_classifies(gated: Checkpoint) -> None:
    film = draw_chest_phantom(120, seed=3)
    prediction = Predictor(gated, "cpu").predict(film)
    ungated = Predictor(replace(gated, gate=None), "cpu").predict(film)
    assert ungated.gate is None
    assert prediction.probabilities == ungated.probabilities
    assert prediction.gate is not None
    assert prediction.gate.score == pytest.approx(1 / (1 + np.exp(-1.0)))
    assert prediction.gate.accepted
    assert prediction.gate.reason == ""


def test_a_low_score_is_refused_with_a_reason(gated: Checkpoint) -> None:
    strict = Predictor(replace(gated, gate=_gate(-1.0)), "cpu")
    prediction = strict.predict(draw_chest_phantom(96))
    assert prediction.gate is not None
    assert not prediction.gate.accepted
    assert prediction.gate.score < prediction.gate.threshold == 0.5
    assert "upright frontal chest X-ray" in prediction.gate.reason
    assert sum(prediction.probabilities.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        (np.full((200, 200), 90, np.uint8), "It is blank"),
        (draw_chest_phantom(63), "It is only 63 x 63 pixels"),
        (np.tile(draw_chest_phantom(100), (1, 3)), "too long and narrow"),
    ],
)
def test_pixels_alone_can_be_refused(
    gated: Checkpoint, pixels: np.ndarray[Any, np.dtype[np.uint8]], reason: str
) -> None:
    prediction = Predictor(gated, "cpu").predict(pixels)
    assert prediction.gate is not None
    assert prediction.gate.score == 0
    assert reason in prediction.gate.reason


def test_a_film_gives_no_objection() -> None:
    dark = (draw_chest_phantom(300) // 5).astype(np.uint8)
    assert find_objection(dark) == ""


def test_a_gate_survives_a_round_trip(gated: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(gated, tmp_path / "model.pth")
    copy = load_checkpoint(tmp_path / "model.pth").gate
    assert copy is not None
    assert gated.gate is not None
    assert (copy.bias, copy.threshold) == (1.0, 0.5)
    for one, other in zip(gated.gate.subspaces, copy.subspaces, strict=True):
        torch.testing.assert_close(one.to_dict(), other.to_dict(), rtol=0, atol=0)


def _set(key: str, value: object) -> Callable[[dict[str, Any]], None]:
    return lambda gate: gate.update({key: value})


def _set_part(key: str, value: torch.Tensor) -> Callable[[dict[str, Any]], None]:
    return lambda gate: gate["subspaces"][0].update({key: value})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda gate: gate.pop("weights"), "the gate lacks 'weights'"),
        (_set("weights", torch.zeros(3)), r"\(3,\) weights for 25 values"),
        (_set("weights", torch.full((25,), torch.nan)), "not finite"),
        (_set("weights", "many"), "the gate cannot be read"),
        (_set("bias", float("inf")), "not finite"),
        (_set("threshold", 1.0), "threshold must be between 0 and 1"),
        (_set("subspaces", []), "25,.* weights for 0 values"),
        (_set_part("mean", torch.zeros(5)), "do not fit its basis"),
        (_set_part("deviation", torch.ones(4)), "deviations do not fit"),
        (_set_part("scale", torch.zeros(256)), "must be greater than 0"),
        (_set_part("basis", torch.full((256, 3), torch.inf)), "basis holds a value that is not"),
        (_set_part("surprise", torch.zeros(1)), "the gate cannot be read"),
    ],
)
def test_a_contradictory_gate_is_refused(
    gated: Checkpoint, tmp_path: Path, spoil: Callable[[dict[str, Any]], None], message: str
) -> None:
    save_checkpoint(gated, tmp_path / "model.pth")
    path = save_spoilt(
        tmp_path / "model.pth", tmp_path / "spoilt.pth", lambda content: spoil(content["gate"])
    )
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path)


def test_another_networks_gate_is_refused(gated: Checkpoint) -> None:
    other = replace(_gate(), subspaces=_gate().subspaces[:1], weights=torch.zeros(5))
    with pytest.raises(CheckpointError, match=r"the gate is for features \[256\]"):
        replace(gated, gate=other)
    with pytest.raises(GateError, match="the network gives"):
        other.check_fits(1, (8, 16, 24, 32))


@pytest.fixture(scope="module")
def describer(tiny_checkpoint: Path) -> Describer:
    checkpoint = load_checkpoint(tiny_checkpoint)
    return Describer(PyTorchBackend(checkpoint, torch.device("cpu")), checkpoint.input_spec.size)


@pytest.fixture(scope="module")
def samples(describer: Describer) -> GateSamples:
    films = [draw_chest_phantom(80, seed=seed) for seed in range(60)]
    stripes = [np.tile(np.arange(0, 250, 10, dtype=np.uint8), (70, 4))] * 3
    return collect_samples(describer, films[:40], films[40:], {"stripes": stripes}, CONFIG)


def test_the_samples_are_films_variations_and_every_kind(samples: GateSamples) -> None:
    parts = (samples.films, samples.varied, samples.validation)
    assert [len(part[0]) for part in parts] == [40, 160, 20]
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
    assert (gate.scores(describer(fresh)) >= gate.threshold).float().mean() > 0.9
    assert (gate.scores(describer(others)) < gate.threshold).float().mean() > 0.9


def test_the_threshold_leaves_the_chosen_share_of_validation_below(samples: GateSamples) -> None:
    gate = fit_gate(samples, GateConfig(directions=16, refused_share=0.25))
    assert int((gate.scores(samples.validation) < gate.threshold).sum()) == 5


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


def test_fit_gate_gives_a_checkpoint_a_gate_an_abstention_and_a_new_graph(
    tiny_checkpoint: Path, image_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = load_checkpoint(tiny_checkpoint)
    old = replace(before, graph=NetworkGraph(b"of a time before", before.source))
    save_checkpoint(old, tmp_path / "old.pth")
    write_manifest(split_by_number(image_folder), tmp_path / "manifest.csv")
    _save(DRAWINGS["text"](90, np.random.default_rng(1)), tmp_path / "outliers" / "page.png")
    command = ["fit-gate", "--model", str(tmp_path / "old.pth"), "--data", str(image_folder)]
    command += ["--manifest", str(tmp_path / "manifest.csv"), "--device", "cpu"]
    command += ["--outliers", str(tmp_path / "outliers")]
    untouched = (tmp_path / "old.pth").read_bytes()
    assert main(command) == 1
    assert f"{tmp_path / 'old.pth'} is there already: pass --overwrite" in caplog.text
    assert (tmp_path / "old.pth").read_bytes() == untouched
    command += ["--out", str(tmp_path / "gated.pth")]
    assert main(command) == 0
    after = load_checkpoint(tmp_path / "gated.pth")
    assert before.gate is None
    assert after.gate is not None
    assert after.abstention is not None
    assert len(after.abstention.class_means) == 4
    torch.testing.assert_close(after.state_dict, before.state_dict, rtol=0, atol=0)
    predictor = Predictor(after, "cpu")
    assert predictor.backend == "onnxruntime"
    prediction = predictor.predict(DRAWINGS["noise"](90, np.random.default_rng(2)))
    assert prediction.distance is not None
    assert prediction.gate is not None
    assert not prediction.gate.accepted
