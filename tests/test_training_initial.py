"""A training that goes on from the weights of another one, and inputs that grow on the way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from resformer.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from resformer.cli import main
from resformer.model import IdentityMappingResFormer, ResFormerConfig
from resformer.training import train as epochs
from resformer.training.config import TrainingConfig
from resformer.training.learner import train_epoch
from resformer.training.state import read_initial
from tests.conftest import CLASS_NAMES
from tests.training_setup import TINY_TRAINING, train_a_trial


@pytest.fixture(scope="module")
def first(
    image_folder: Path, tiny_config: ResFormerConfig, tmp_path_factory: pytest.TempPathFactory
) -> Checkpoint:
    return train_a_trial(image_folder, tmp_path_factory.mktemp("first"), tiny_config)


def test_it_starts_from_the_weights_and_remembers_their_training(
    image_folder: Path, tiny_config: ResFormerConfig, first: Checkpoint, tmp_path: Path
) -> None:
    # So small a rate moves nothing: the average stays where it began.
    config = replace(TINY_TRAINING, epochs=1, learning_rate=1e-12)
    further = train_a_trial(image_folder, tmp_path, tiny_config, initial=first, config=config)
    for name, parameter in first.build_model().named_parameters():
        torch.testing.assert_close(further.state_dict[name], parameter, atol=1e-6, rtol=0)
    assert further.training["initial"] == first.training
    assert "initial" not in first.training


def test_it_resumes_from_the_same_start_alone(
    image_folder: Path, tiny_config: ResFormerConfig, first: Checkpoint, tmp_path: Path
) -> None:
    train_a_trial(image_folder, tmp_path, tiny_config, initial=first)
    train_a_trial(image_folder, tmp_path, tiny_config, initial=first, resume=True)
    with pytest.raises(CheckpointError, match="from other initial weights: give the same ones"):
        train_a_trial(image_folder, tmp_path, tiny_config, resume=True)


def test_the_state_of_a_stopped_training_gives_its_averaged_weights(
    image_folder: Path, tiny_config: ResFormerConfig, tmp_path: Path
) -> None:
    """The best epoch may be an earlier one: what is trained further is where the training stood."""
    config = replace(TINY_TRAINING, epochs=2)
    train_a_trial(image_folder, tmp_path, tiny_config, config=config)
    state = tmp_path / epochs.STATE_NAME
    initial = read_initial(state)
    assert initial.model_config == tiny_config
    assert initial.class_names == CLASS_NAMES
    assert initial.input_spec.size == 64
    assert len(initial.training["history"]) == initial.training["best_epoch"] == 2
    average = torch.load(state, weights_only=True)["average"]
    for name, weight in initial.build_model().state_dict().items():
        torch.testing.assert_close(weight, average[f"module.{name}"], rtol=0, atol=0)


def test_a_checkpoint_is_read_as_it_is_and_anything_else_refused(
    first: Checkpoint, tmp_path: Path
) -> None:
    path = tmp_path / "model.pth"
    save_checkpoint(first, path)
    assert read_initial(path).source == first.source
    path.write_bytes(b"no checkpoint")
    with pytest.raises(CheckpointError, match="is damaged or is not a checkpoint"):
        read_initial(path)


def test_weights_of_another_network_or_of_other_classes_are_refused(
    image_folder: Path, tiny_config: ResFormerConfig, first: Checkpoint, tmp_path: Path
) -> None:
    other = replace(tiny_config, dropout=0.5)
    with pytest.raises(ValueError, match="the initial weights are of the network"):
        train_a_trial(image_folder, tmp_path, other, initial=first)
    renamed = replace(first, class_names=("a", "b", "c", "d"))
    with pytest.raises(ValueError, match="the initial weights know a, b, c, d, the films are of"):
        train_a_trial(image_folder, tmp_path, tiny_config, initial=renamed)


def test_the_command_line_takes_a_checkpoint(
    image_folder: Path, first: Checkpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "first.pth"
    save_checkpoint(first, path)
    arguments = [
        *("train", "--data", str(image_folder), "--out", str(tmp_path / "model.pth"), "--trial"),
        *("--run-dir", str(tmp_path / "run"), "--epochs", "1", "--duplicate-threshold", "1.1"),
        *("--batch-size", "8", "--input-size", "64", "--workers", "0", "--device", "cpu"),
    ]
    # The command line trains the network of the default size.
    assert main([*arguments, "--initial", str(path)]) == 1
    assert "give the options that it was trained with" in caplog.text


def test_the_input_grows_after_half_of_the_epochs(
    image_folder: Path,
    tiny_config: ResFormerConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes: list[int] = []

    def observed(learner: Any, loader: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
        sizes.append(next(iter(loader)).image.shape[-1])
        return train_epoch(learner, loader, *args, **kwargs)

    monkeypatch.setattr(epochs, "train_epoch", observed)
    config = replace(TINY_TRAINING, input_size=96, start_size=64, epochs=3)
    checkpoint = train_a_trial(image_folder, tmp_path, tiny_config, config=config)
    assert sizes == [64, 96, 96]
    assert checkpoint.input_spec.size == 96


def test_weights_that_learnt_from_a_smaller_input_are_not_kept(
    image_folder: Path,
    tiny_config: ResFormerConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scores = iter((0.9, 0.8, 0.3, 0.6))
    monkeypatch.setattr(
        epochs,
        "validate",
        lambda *_: {
            "validation_loss": 1.0,
            "validation_accuracy": 0.5,
            "validation_macro_f1": next(scores),
        },
    )
    config = replace(TINY_TRAINING, input_size=96, start_size=64, epochs=4, patience=2)
    assert (
        train_a_trial(image_folder, tmp_path, tiny_config, config=config).training["best_epoch"]
        == 4
    )


def test_the_sizes_of_a_configuration() -> None:
    assert TrainingConfig(input_size=128).sizes == (128,)
    growing = TrainingConfig(input_size=128, start_size=96, epochs=5)
    assert [growing.size_at(epoch) for epoch in range(5)] == [96, 96, 128, 128, 128]
    with pytest.raises(ValueError, match="start_size must be 0 or more"):
        TrainingConfig(start_size=-1)


def test_a_network_with_a_lung_head_goes_on_with_its_own_lungs(
    image_folder: Path, tiny_config: ResFormerConfig, tmp_path: Path
) -> None:
    """No film of this folder has a mask, so the lungs could not be learned here."""
    network = replace(tiny_config, lung_head=True)
    plain = train_a_trial(image_folder, tmp_path / "plain", tiny_config)
    weights = IdentityMappingResFormer(network).state_dict()
    initial = replace(plain, model_config=network, state_dict=weights)
    config = replace(TINY_TRAINING, epochs=1, lung_head=True, background_replacement=1.0)
    further = train_a_trial(
        image_folder, tmp_path / "run", tiny_config, initial=initial, config=config
    )
    assert further.model_config.lung_head
    assert len(list((tmp_path / "run" / "cache").glob("lungs-*.npy"))) == 1
    path = tmp_path / "model.pth"
    save_checkpoint(further, path)
    assert load_checkpoint(path).training["initial"] == plain.training


def test_the_state_of_a_stopped_training_knows_where_it_started(
    image_folder: Path, tiny_config: ResFormerConfig, first: Checkpoint, tmp_path: Path
) -> None:
    train_a_trial(image_folder, tmp_path, tiny_config, initial=first)
    assert read_initial(tmp_path / epochs.STATE_NAME).training["initial"] == first.training
