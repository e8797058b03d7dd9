"""Training: it learns, it is reproducible, and it can be stopped at any time."""

from __future__ import annotations

from dataclasses import replace
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
from resformer.data.manifest import Manifest
from resformer.model import ResFormerConfig
from resformer.training.learner import train_epoch
from resformer.training.state import Progress
from resformer.training.train import STATE_NAME, train
from tests.training_setup import TINY_TRAINING, split_by_number, train_a_trial


@pytest.fixture(scope="module")
def manifest(image_folder: Path) -> Manifest:
    return split_by_number(image_folder)


@pytest.fixture(scope="module")
def uninterrupted(
    image_folder: Path,
    manifest: Manifest,
    tiny_config: ResFormerConfig,
    tmp_path_factory: pytest.TempPathFactory,
) -> Checkpoint:
    folder = tmp_path_factory.mktemp("uninterrupted")
    return train(
        image_folder, manifest, TINY_TRAINING, folder, model_config=tiny_config, progress=False
    )


def _figures(checkpoint: Checkpoint) -> list[dict[str, float]]:
    """Everything in the history that does not depend on the clock."""
    clock = {"seconds", "images_per_second"}
    return [
        {k: v for k, v in entry.items() if k not in clock}
        for entry in checkpoint.training["history"]
    ]


def _assert_same(one: Checkpoint, other: Checkpoint) -> None:
    assert _figures(one) == _figures(other)
    for name, weight in one.state_dict.items():
        torch.testing.assert_close(other.state_dict[name], weight, rtol=0, atol=0)
    assert one.temperature == other.temperature
    assert one.metrics == other.metrics


def test_the_epochs_are_counted_and_the_loss_falls(
    image_folder: Path, tiny_config: ResFormerConfig, tmp_path: Path
) -> None:
    config = replace(TINY_TRAINING, epochs=10, patience=10, learning_rate=5e-3)
    trained = train_a_trial(image_folder, tmp_path, tiny_config, config=config)
    history = trained.training["history"]
    assert [entry["epoch"] for entry in history] == [*range(1, 11)]
    losses = [entry["train_loss"] for entry in history]
    assert sum(losses[5:]) < 0.97 * sum(losses[:5])


def test_the_checkpoint_tells_what_it_was_trained_on(
    uninterrupted: Checkpoint, tmp_path: Path
) -> None:
    path = tmp_path / "best_model.pth"
    save_checkpoint(uninterrupted, path)
    checkpoint = load_checkpoint(path)
    assert checkpoint.training["films"] == {"train": 32, "validation": 8, "test": 8}
    assert checkpoint.training["config"]["seed"] == 0
    assert checkpoint.metrics["test"]["count"] == 8
    assert checkpoint.input_spec.size == 64


def test_the_best_epoch_is_the_one_with_the_best_validation_macro_f1(
    uninterrupted: Checkpoint,
) -> None:
    scores = [entry["validation_macro_f1"] for entry in uninterrupted.training["history"]]
    assert uninterrupted.training["best_epoch"] == 1 + scores.index(max(scores))
    report = uninterrupted.metrics["validation"]
    assert report["macro_f1"]["value"] == pytest.approx(max(scores), abs=1e-6)


def test_a_seed_gives_one_result(
    image_folder: Path,
    manifest: Manifest,
    tiny_config: ResFormerConfig,
    uninterrupted: Checkpoint,
    tmp_path: Path,
) -> None:
    def again(seed: int, workers: int) -> Checkpoint:
        config = replace(TINY_TRAINING, seed=seed, workers=workers)
        folder = tmp_path / f"{seed}-{workers}"
        return train(
            image_folder, manifest, config, folder, model_config=tiny_config, progress=False
        )

    _assert_same(uninterrupted, again(0, workers=2))
    assert _figures(again(1, workers=0)) != _figures(uninterrupted)


@pytest.mark.parametrize("interrupted_epoch", [0, 1, 2])
def test_an_interrupted_training_resumes_to_the_same_result(
    image_folder: Path,
    manifest: Manifest,
    tiny_config: ResFormerConfig,
    uninterrupted: Checkpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    interrupted_epoch: int,
) -> None:
    calls = []

    def interrupted(*args: Any, **kwargs: Any) -> dict[str, float]:
        calls.append(1)
        figures = train_epoch(*args, **kwargs)
        if len(calls) > interrupted_epoch:
            raise KeyboardInterrupt  # after the weights moved and before anything was written
        return figures

    monkeypatch.setattr("resformer.training.train.train_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(
            image_folder,
            manifest,
            TINY_TRAINING,
            tmp_path,
            model_config=tiny_config,
            progress=False,
        )
    monkeypatch.undo()
    resumed = train(
        image_folder,
        manifest,
        TINY_TRAINING,
        tmp_path,
        model_config=tiny_config,
        resume=True,
        progress=False,
    )
    _assert_same(uninterrupted, resumed)


def test_a_finished_training_resumes_to_its_result_at_once(
    image_folder: Path, manifest: Manifest, tiny_config: ResFormerConfig, tmp_path: Path
) -> None:
    config = replace(TINY_TRAINING, epochs=1)
    first = train(
        image_folder, manifest, config, tmp_path, model_config=tiny_config, progress=False
    )
    again = train(
        image_folder,
        manifest,
        config,
        tmp_path,
        model_config=tiny_config,
        resume=True,
        progress=False,
    )
    assert again.training["history"] == first.training["history"]
    _assert_same(first, again)


def _forget_option(state: Path, name: str) -> None:
    content = read_content(state)
    del content["config"][name]
    save_atomically(content, state)


def test_a_training_is_never_overwritten_and_never_continued_by_mistake(
    image_folder: Path, manifest: Manifest, tiny_config: ResFormerConfig, tmp_path: Path
) -> None:
    config = replace(TINY_TRAINING, epochs=1)

    def start(changed: Manifest = manifest, *, resume: bool, **options: Any) -> None:
        train(
            image_folder,
            changed,
            replace(config, **options),
            tmp_path,
            model_config=tiny_config,
            resume=resume,
            progress=False,
        )

    with pytest.raises(FileNotFoundError, match="start without --resume"):
        start(resume=True)
    start(resume=False)
    with pytest.raises(FileExistsError, match="pass --resume"):
        start(resume=False)
    with pytest.raises(CheckpointError, match=r"learning_rate: 0\.0015 then, 0\.1 now"):
        start(resume=True, learning_rate=0.1)
    _forget_option(tmp_path / STATE_NAME, "optimizer")  # as a version before it wrote the state
    with pytest.raises(CheckpointError, match=r"options \(optimizer: adamw then, muon now\)"):
        start(resume=True, optimizer="muon")
    start(resume=True)
    swapped = replace(manifest, rows=manifest.rows[::-1])
    with pytest.raises(CheckpointError, match="another split"):
        start(swapped, resume=True)
    (tmp_path / STATE_NAME).write_bytes(b"cut off")
    with pytest.raises(CheckpointError, match="damaged"):
        start(resume=True)


def test_training_stops_when_validation_stops_improving() -> None:
    config = replace(TINY_TRAINING, epochs=50, patience=4)
    entry = {"epoch": 1.0}
    assert not Progress(history=[entry] * 9, best_epoch=6).is_over(config)
    assert Progress(history=[entry] * 10, best_epoch=6).is_over(config)
    assert Progress(history=[entry] * 50, best_epoch=50).is_over(config)
    growing = replace(config, input_size=96, start_size=64)  # whose first 25 epochs do not count
    assert not Progress(history=[entry] * 28).is_over(growing)
    assert Progress(history=[entry] * 29).is_over(growing)
