"""The gate: scores, refusals with a reason, its place in the checkpoint, and wrong contents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from resformer.checkpoint import (
    Checkpoint,
    CheckpointError,
    load_checkpoint,
    read_content,
    save_atomically,
    save_checkpoint,
)
from resformer.gate.gate import Gate, GateError, Subspace, describe, object_to_pixels
from resformer.predict import Predictor, compute_logits
from resformer.transforms import to_input
from tests.phantom import draw_chest_phantom

LENGTHS = (256, 128, 256, 384, 512)


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
    (evidence,) = subspace.evidence(torch.tensor([[7.0, 5.0, 4.0]]))
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
    predictor = Predictor(gated, "cpu")
    (prediction,) = predictor.predict([film])
    model = gated.build_model()
    image = to_input(film, gated.input_spec)[None]
    expected = torch.softmax(compute_logits(model, image), 1)[0].tolist()
    assert list(prediction.probabilities.values()) == pytest.approx(expected, abs=1e-6)
    assert prediction.gate is not None
    assert prediction.gate.score == pytest.approx(1 / (1 + np.exp(-1.0)))
    assert prediction.gate.accepted
    assert prediction.gate.reason == ""


def test_a_low_score_is_refused_with_a_reason(gated: Checkpoint) -> None:
    (prediction,) = Predictor(replace(gated, gate=_gate(-1.0)), "cpu").predict(
        [draw_chest_phantom(96)]
    )
    assert prediction.gate is not None
    assert not prediction.gate.accepted
    assert prediction.gate.score < prediction.gate.threshold == 0.5
    assert "upright frontal chest X-ray" in prediction.gate.reason
    assert sum(prediction.probabilities.values()) == pytest.approx(1)


def test_without_a_gate_nothing_is_refused(tiny_checkpoint: Path) -> None:
    predictor = Predictor.from_file(tiny_checkpoint, "cpu")
    assert predictor.predict([np.zeros((80, 80), np.uint8)])[0].gate is None


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        (np.full((200, 200), 90, np.uint8), "It is blank"),
        (draw_chest_phantom(63), "It is 63 x 63 pixels small"),
        (np.tile(draw_chest_phantom(100), (1, 3)), "too long and narrow"),
    ],
)
def test_pixels_alone_can_be_refused(
    gated: Checkpoint, pixels: np.ndarray[Any, np.dtype[np.uint8]], reason: str
) -> None:
    (prediction,) = Predictor(gated, "cpu").predict([pixels])
    assert prediction.gate is not None
    assert prediction.gate.score == 0
    assert reason in prediction.gate.reason


def test_a_film_gives_no_objection() -> None:
    dark = (draw_chest_phantom(300) // 5).astype(np.uint8)
    assert object_to_pixels(dark) == ""


def test_a_gate_survives_a_round_trip(gated: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(gated, tmp_path / "model.pth")
    copy = load_checkpoint(tmp_path / "model.pth").gate
    assert copy is not None
    assert gated.gate is not None
    assert (copy.bias, copy.threshold) == (1.0, 0.5)
    for one, other in zip(gated.gate.subspaces, copy.subspaces, strict=True):
        torch.testing.assert_close(one.to_dict(), other.to_dict(), rtol=0, atol=0)


def test_a_checkpoint_from_before_the_gate_has_none(gated: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(gated, tmp_path / "model.pth")
    content = read_content(tmp_path / "model.pth")
    del content["gate"]
    save_atomically(content, tmp_path / "old.pth")
    assert load_checkpoint(tmp_path / "old.pth").gate is None


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
        (_set_part("basis", torch.full((256, 3), torch.inf)), "basis holds what is no finite"),
        (_set_part("surprise", torch.zeros(1)), "the gate cannot be read"),
    ],
)
def test_a_contradictory_gate_is_refused(
    gated: Checkpoint, tmp_path: Path, spoil: Callable[[dict[str, Any]], None], message: str
) -> None:
    save_checkpoint(gated, tmp_path / "model.pth")
    content = read_content(tmp_path / "model.pth")
    spoil(content["gate"])
    save_atomically(content, tmp_path / "spoilt.pth")
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path / "spoilt.pth")


def test_another_networks_gate_is_refused(gated: Checkpoint) -> None:
    other = replace(_gate(), subspaces=_gate().subspaces[:1], weights=torch.zeros(5))
    with pytest.raises(CheckpointError, match=r"the gate is for features \[256\]"):
        replace(gated, gate=other)
    with pytest.raises(GateError, match="the network gives"):
        other.check_fits(1, (8, 16, 24, 32))
