"""The checkpoint: round trip, and one line for everything that is wrong with a file."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from resformer.checkpoint import (
    DIGEST,
    CheckpointError,
    load_checkpoint,
    read_content,
    save_atomically,
    save_checkpoint,
)
from resformer.cli import main
from resformer.predict import Predictor

Content = dict[str, Any]
Spoil = Callable[[Content], object]


def save_spoilt(source: Path, path: Path, spoil: Spoil) -> Path:
    """Write a checkpoint with a changed content, as one who means harm or a time before would."""
    content = read_content(source)
    content.pop(DIGEST, None)
    spoil(content)
    save_atomically(content, path)
    return path


def test_everything_survives_a_round_trip(tiny_checkpoint: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    path = tmp_path / "copy.pth"
    save_checkpoint(checkpoint, path)
    copy = load_checkpoint(path)
    assert copy.class_names == checkpoint.class_names
    assert copy.input_spec == checkpoint.input_spec
    assert copy.model_config == checkpoint.model_config
    assert copy.versions == checkpoint.versions
    assert torch.__version__.startswith(copy.versions["torch"])
    torch.testing.assert_close(copy.state_dict, checkpoint.state_dict, rtol=0, atol=0)


def test_weights_may_be_of_half_the_precision(tiny_checkpoint: Path, tmp_path: Path) -> None:
    def halve(content: Content) -> None:
        weights = content["state_dict"].items()
        content["state_dict"] = {
            n: w.bfloat16() if w.is_floating_point() else w for n, w in weights
        }

    path = save_spoilt(tiny_checkpoint, tmp_path / "half.pth", halve)
    assert len(Predictor.from_file(path, "cpu").checkpoint.source) == 64


def test_a_checkpoint_may_lack_gate_abstention_and_graph(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    plain = load_checkpoint(save_spoilt(tiny_checkpoint, tmp_path / "plain.pth", lambda _: None))
    assert (plain.gate, plain.abstention, plain.graph) == (None, None, None)


def _set(*place: str, to: object) -> Spoil:
    def spoil(content: Content) -> None:
        *parents, last = place
        for name in parents:
            content = content[name]
        content[last] = to

    return spoil


def _remove(*place: str) -> Spoil:
    def spoil(content: Content) -> None:
        *parents, last = place
        for name in parents:
            content = content[name]
        del content[last]

    return spoil


def _laugh(content: Content) -> None:
    """Nest a few lists so that they stand for more values than fit any memory."""
    values: list[Any] = ["ha"] * 10
    for _ in range(20):
        values = [values] * 10
    content["training"]["history"] = values


def _hold_itself(content: Content) -> None:
    values: list[Any] = []
    values.append(values)
    content["training"]["history"] = values


def _widen(content: Content) -> None:
    """Ask for a network of the largest sizes that may be, whose weights fit no memory."""
    largest = {"channels": [4096] * 4, "depths": [64] * 4, "num_heads": [1] * 4}
    content["model_config"].update(largest)


HUGE = torch.zeros(1).expand(10**12)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_remove("format"), "is not a resformer-checkpoint-2 file"),
        (_set("format", to="other"), "format 'other'"),
        (_remove("class_names"), "lacks class_names"),
        (_remove("temperature"), "lacks temperature"),
        (_set("class_names", to=["a", "b"]), "2 class names for 4 logits"),
        (_set("class_names", to=["a", "b", "b", "c"]), "must be distinct"),
        (_set("class_names", to=["a", "b", "", "c"]), "must be distinct words"),
        (_set("class_names", to=["a", "b", "c\nd", "e"]), "must be distinct words"),
        (_set("class_names", to=["a", "b", 3, "c"]), "must be distinct words"),
        (_set("class_names", to=4), "class_names is not a list"),
        (_set("temperature", to=0.0), "temperature must be from 0.001"),
        (_set("temperature", to=1e-320), "temperature must be from 0.001"),
        (_set("temperature", to=float("nan")), "temperature must be from 0.001"),
        (_set("temperature", to="1"), "temperature must be from 0.001"),
        (_set("temperature", to=10**400), "temperature must be from 0.001"),
        (_set("input_spec", to={"size": 128}), "the input specification lacks"),
        (_set("input_spec", "size", to=32 * 10**6), "size must be at most 2048"),
        (_set("input_spec", "size", to=128.0), "size must be a whole number"),
        (_set("input_spec", "std", to=1e-320), "std must be from 0.001"),
        (_set("input_spec", "mean", to=float("nan")), "mean must be from"),
        (_set("model_config", to={"num_classes": 4}), "the network's configuration lacks"),
        (_set("model_config", "depths", to=[100_000, 1, 1, 1]), "depths must be at most 64"),
        (_set("model_config", "depths", to=[True, 1, 1, 1]), "depths must be a whole number"),
        (_set("model_config", "depths", to="many"), "depths needs 4 values"),
        (_set("model_config", "mlp_ratio", to=float("inf")), "mlp_ratio must be from 0 to 16"),
        (_set("model_config", "lung_head", to="yes"), "lung_head must be true or false"),
        (_set("model_config", to=None), "model_config is not a dictionary"),
        (_widen, "weights do not fit"),
        (_set("state_dict", to={}), "weights do not fit"),
        (_set("state_dict", to=[1]), "state_dict is not a dictionary"),
        (_remove("state_dict", "fc.bias"), r"weights do not fit.*fc\.bias is missing"),
        (_set("state_dict", "more", to=torch.zeros(1)), "weights do not fit.*more is too many"),
        (_set("state_dict", "fc.bias", to=torch.zeros(3)), r"weights do not fit.*\(3,\)"),
        (_set("state_dict", "fc.bias", to="no"), r"fc\.bias is not a tensor"),
        (_set("state_dict", "fc.bias", to=torch.full((4,), torch.nan)), r"finite.*fc\.bias"),
        (_set("state_dict", "fc.bias", to=torch.zeros(4).to_sparse()), "damaged or is not a"),
        (_set("state_dict", "fc.bias", to=torch.zeros(4, dtype=torch.cfloat)), "a plain tensor"),
        (_set("state_dict", "fc.bias", to=HUGE), "larger than what the file holds"),
        (_set("versions", to="3.11"), "versions is not a dictionary"),
        (_set("versions", "torch", to=2), "version of torch is not text"),
        (_set("metrics", to=None), "metrics is not a dictionary"),
        (_set("metrics", "test", to=1.0), "metrics/test is not a dictionary"),
        (_set("metrics", "test", to={"confusion_matrix": [[1, 2]]}), "not a square of whole"),
        (_set("metrics", "test", to={"per_class": 1}), "per_class is not a dictionary"),
        (_set("metrics", "track_record", to={"a": {"called": 1, "right": 2}}), "cannot be right"),
        (_set("metrics", "track_record", to={"a": 3}), "its track_record is not one"),
        (_set("training", to=3), "training is not a dictionary"),
        (_set("training", "history", to=[1]), "history is not a list of epochs"),
        (_set("training", "initial", to=[{"config": 1}]), "training/initial.*is not a dictionary"),
        (_set("training", "seen", to={1, 2}), "training/seen is a set"),
        (_set("training", "by_number", to={1: 2}), "has a key that is not text"),
        (_hold_itself, "nested too deeply"),
        (_laugh, "more values than any checkpoint"),
        (_set("graph", to={"content": "no", "source": ""}), "the graph holds no bytes"),
        (_set("graph", to="no"), "cannot be used"),
    ],
)
def test_whatever_is_wrong_is_told_in_one_line(
    tiny_checkpoint: Path, tmp_path: Path, spoil: Spoil, message: str
) -> None:
    path = save_spoilt(tiny_checkpoint, tmp_path / "spoilt.pth", spoil)
    with pytest.raises(CheckpointError, match=message) as refusal:
        load_checkpoint(path)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 1000


def test_answers_that_are_no_numbers_are_refused_before_they_are_given(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    path = save_spoilt(
        tiny_checkpoint,
        tmp_path / "overflows.pth",
        lambda content: content["state_dict"]["fc.weight"].fill_(1e38),
    )
    with pytest.raises(CheckpointError, match="answers are not finite numbers"):
        Predictor.from_file(path, "cpu")


def test_a_bit_that_fell_over_is_noticed_wherever_it_lies(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.pth"
    content = read_content(tiny_checkpoint)
    content["state_dict"]["fc.bias"][0] += 1e-6
    save_atomically(content, damaged)
    with pytest.raises(CheckpointError, match=r"SHA-256.*copy it anew"):
        load_checkpoint(damaged)
    content = read_content(tiny_checkpoint)
    content["class_names"][:2] = reversed(content["class_names"][:2])
    save_atomically(content, damaged)
    with pytest.raises(CheckpointError, match="SHA-256"):
        load_checkpoint(damaged)


def test_the_command_line_refuses_in_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "damaged.pth"
    path.write_bytes(b"not a checkpoint")
    assert main(["predict", "--model", str(path), "film.png"]) == 1
    (line,) = caplog.messages
    assert line.endswith("is damaged or is not a checkpoint of resformer")


@pytest.mark.parametrize("kept", [0, 100, -500])
def test_a_damaged_file_is_refused(tiny_checkpoint: Path, tmp_path: Path, kept: int) -> None:
    path = tmp_path / "short.pth"
    path.write_bytes(tiny_checkpoint.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match="damaged or is not a checkpoint"):
        load_checkpoint(path)


def test_a_list_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "list.pth"
    torch.save([1, 2], path)
    with pytest.raises(CheckpointError, match="holds no dictionary"):
        load_checkpoint(path)


class _RunsCode:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, ("executed",))


def test_a_checkpoint_cannot_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "hostile.pth"
    torch.save({"format": _RunsCode()}, path)
    with pytest.raises(CheckpointError, match="damaged or is not a checkpoint"):
        load_checkpoint(path)
    assert not (tmp_path / "executed").exists()


def test_a_failed_write_leaves_the_former_file(tmp_path: Path) -> None:
    path = tmp_path / "kept.pth"
    save_atomically({"value": 1}, path)
    with pytest.raises((AttributeError, pickle.PicklingError), match="local object"):
        save_atomically({"value": lambda: None}, path)
    assert read_content(path) == {"value": 1}
    assert list(tmp_path.iterdir()) == [path]
