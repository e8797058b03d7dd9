"""The checkpoint: round trip, and a clear refusal of everything that is wrong with one."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


def test_everything_survives_a_round_trip(tiny_checkpoint: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    path = tmp_path / "copy.pth"
    save_checkpoint(checkpoint, path)
    copy = load_checkpoint(path)
    assert copy.class_names == checkpoint.class_names
    assert copy.input_spec == checkpoint.input_spec
    assert copy.model_config == checkpoint.model_config
    assert copy.versions == checkpoint.versions
    assert copy.versions["torch"] == torch.__version__
    for name, weight in checkpoint.state_dict.items():
        torch.testing.assert_close(copy.state_dict[name], weight, rtol=0, atol=0)


def _change(key: str, value: object) -> Callable[[dict[str, Any]], None]:
    return lambda content: content.update({key: value})


def _remove(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda content: content.pop(key)


def _break_weight(content: dict[str, Any]) -> None:
    content["state_dict"]["fc.bias"][0] = float("nan")


def _drop_weight(content: dict[str, Any]) -> None:
    del content["state_dict"]["fc.bias"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_remove("format"), "is no resformer-checkpoint-1 file"),
        (_change("format", "other"), "format 'other'"),
        (_remove("class_names"), "lacks class_names"),
        (_remove("temperature"), "lacks temperature"),
        (_change("class_names", ["a", "b"]), "2 class names for 4 logits"),
        (_change("class_names", ["a", "b", "b", "c"]), "must be distinct"),
        (_change("class_names", ["a", "b", "", "c"]), "must be distinct words"),
        (_change("class_names", 4), "cannot be used"),
        (_change("temperature", 0.0), "temperature must be positive"),
        (_change("temperature", float("nan")), "temperature must be positive"),
        (_change("input_spec", {"size": 128}), "the input specification lacks"),
        (_change("model_config", {"num_classes": 4}), "the network's configuration lacks"),
        (_change("state_dict", {}), "weights do not fit"),
        (_drop_weight, "weights do not fit"),
        (_break_weight, r"not finite numbers: fc\.bias"),
    ],
)
def test_what_is_missing_or_contradictory_is_named(
    tiny_checkpoint: Path,
    tmp_path: Path,
    spoil: Callable[[dict[str, Any]], None],
    message: str,
) -> None:
    content = read_content(tiny_checkpoint)
    spoil(content)
    path = tmp_path / "spoilt.pth"
    save_atomically(content, path)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*absent\.pth"):
        load_checkpoint(tmp_path / "absent.pth")


@pytest.mark.parametrize("data", [b"", b"not a checkpoint", b"PK\x03\x04 half a zip"])
def test_a_damaged_file_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "damaged.pth"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="damaged or is not a checkpoint"):
        load_checkpoint(path)


def test_a_truncated_file_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "short.pth"
    path.write_bytes(tiny_checkpoint.read_bytes()[:-500])
    with pytest.raises(CheckpointError, match="damaged"):
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


def test_contradictory_parts_cannot_be_put_together(tiny_checkpoint: Path) -> None:
    good = load_checkpoint(tiny_checkpoint)
    with pytest.raises(CheckpointError, match="contradicts itself"):
        Checkpoint(good.model_config, ("a", "b"), good.input_spec, good.state_dict)
