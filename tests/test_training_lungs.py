"""A training with a lung head: its first stage, its resumption, and trials."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from resformer.checkpoint import Checkpoint, CheckpointError, load_checkpoint
from resformer.cli import main
from resformer.data.manifest import Manifest
from resformer.model import ResFormerConfig
from resformer.training.films import Workspace
from resformer.training.learner import train_epoch
from resformer.training.lungs import learn_lungs, take_lungs
from resformer.training.train import train
from resformer.transforms import InputSpec
from tests.lung_films import write_masked_films
from tests.training_setup import LUNG_TRAINING, split_by_number


@pytest.fixture(scope="module")
def masked_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn films, those of three classes with an ellipse for each lung as their mask."""
    root = tmp_path_factory.mktemp("masked")
    write_masked_films(root, masked=3, darker=0.15)
    return root


@pytest.fixture(scope="module")
def manifest(masked_folder: Path) -> Manifest:
    return split_by_number(masked_folder)


@pytest.fixture(scope="module")
def uninterrupted(
    masked_folder: Path,
    manifest: Manifest,
    tiny_config: ResFormerConfig,
    tmp_path_factory: pytest.TempPathFactory,
) -> Checkpoint:
    return _train(masked_folder, manifest, tmp_path_factory.mktemp("run"), tiny_config)


def _train(
    root: Path, manifest: Manifest, folder: Path, network: ResFormerConfig, **options: Any
) -> Checkpoint:
    config = options.pop("config", LUNG_TRAINING)
    return train(
        root, manifest, config, folder, model_config=network, trial=True, progress=False, **options
    )


def _assert_same(one: Checkpoint, other: Checkpoint) -> None:
    for name, weight in one.state_dict.items():
        torch.testing.assert_close(other.state_dict[name], weight, rtol=0, atol=0)
    assert one.metrics == other.metrics
    assert one.training["lungs"] == other.training["lungs"]


def test_a_trial_leaves_the_test_split_alone_and_fits_neither_gate_nor_abstention(
    uninterrupted: Checkpoint,
) -> None:
    assert list(uninterrupted.metrics) == ["validation"]
    assert uninterrupted.gate is None
    assert uninterrupted.abstention is None
    assert uninterrupted.model_config.lung_head
    assert 0 < uninterrupted.training["lungs"]["validation_dice"] <= 1


@pytest.mark.parametrize("interrupted_call", [0, 1, 2, 3])
def test_stopped_in_either_stage_it_reaches_the_same_result(
    masked_folder: Path,
    manifest: Manifest,
    tiny_config: ResFormerConfig,
    uninterrupted: Checkpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    interrupted_call: int,
) -> None:
    """Calls 0 and 1 are epochs of the lungs, 2 and 3 those of the classes."""
    calls = []

    def interrupted(*args: Any, **kwargs: Any) -> dict[str, float]:
        calls.append(1)
        figures = train_epoch(*args, **kwargs)
        if len(calls) > interrupted_call:
            raise KeyboardInterrupt
        return figures

    for module in ("lungs", "train"):
        monkeypatch.setattr(f"resformer.training.{module}.train_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _train(masked_folder, manifest, tmp_path, tiny_config)
    monkeypatch.undo()
    in_second_stage = interrupted_call >= 2
    resumed = _train(masked_folder, manifest, tmp_path, tiny_config, resume=in_second_stage)
    _assert_same(uninterrupted, resumed)


def test_the_outlines_come_from_the_network_for_films_with_and_without_a_mask(
    masked_folder: Path, manifest: Manifest, tiny_config: ResFormerConfig, tmp_path: Path
) -> None:
    network = replace(tiny_config, lung_head=True)
    workspace = Workspace(masked_folder, manifest, tmp_path, InputSpec(size=64), with_masks=True)
    first = learn_lungs(network, workspace, LUNG_TRAINING, torch.device("cpu"), progress=False)
    masks = workspace.lungs("train")
    assert first.outlines is not None
    assert first.outlines.shape == masks.masks.shape == (32, 80, 80)
    assert masks.known.sum() == 24
    known = np.flatnonzero(masks.known)
    assert (first.outlines[known] != masks.masks[known]).any(axis=(1, 2)).all()
    again = learn_lungs(network, workspace, LUNG_TRAINING, torch.device("cpu"), progress=False)
    np.testing.assert_array_equal(first.outlines, again.outlines)
    assert len(list(workspace.cache.glob("lungs-*"))) == 2


def test_a_stage_of_other_options_is_not_taken_for_this_one(
    masked_folder: Path, manifest: Manifest, tiny_config: ResFormerConfig, tmp_path: Path
) -> None:
    network = replace(tiny_config, lung_head=True)
    workspace = Workspace(masked_folder, manifest, tmp_path, InputSpec(size=64), with_masks=True)
    for options in ({}, {"lung_epochs": 1}, {"epochs": 9, "background_replacement": 0.1}):
        config = replace(LUNG_TRAINING, **options)
        learn_lungs(network, workspace, config, torch.device("cpu"), progress=False)
    # What shapes the second stage alone finds the first stage of before.
    assert len(list(workspace.cache.glob("lungs-*.pt"))) == 2


def test_one_folder_keeps_the_outlines_of_each_size_of_the_films(
    masked_folder: Path, manifest: Manifest, uninterrupted: Checkpoint, tmp_path: Path
) -> None:
    for size, side in ((64, 80), (96, 120)):
        workspace = Workspace(masked_folder, manifest, tmp_path, InputSpec(size=size), True)
        stage = take_lungs(uninterrupted, workspace, torch.device("cpu"))
        assert stage.outlines is not None
        assert stage.outlines.shape == (32, side, side)


def test_masks_that_changed_make_another_training(
    masked_folder: Path, manifest: Manifest, tiny_config: ResFormerConfig, tmp_path: Path
) -> None:
    config = replace(LUNG_TRAINING, epochs=1, lung_epochs=1)
    folder = tmp_path / "run"
    _train(masked_folder, manifest, folder, tiny_config, config=config)
    mask = masked_folder / "COVID" / "masks" / "COVID-0.png"
    data = mask.read_bytes()
    try:
        Image.new("L", (96, 96), 255).save(mask)
        with pytest.raises(CheckpointError, match="another split"):
            _train(masked_folder, manifest, folder, tiny_config, config=config, resume=True)
    finally:
        mask.write_bytes(data)


def test_a_lung_head_needs_masks(
    image_folder: Path, tiny_config: ResFormerConfig, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="no training film has a lung mask: put"):
        _train(image_folder, split_by_number(image_folder), tmp_path, tiny_config)


def test_the_command_line_trains_a_lung_head(masked_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.pth"
    status = main(
        [
            *("train", "--data", str(masked_folder), "--out", str(out), "--trial"),
            *("--run-dir", str(tmp_path / "run"), "--epochs", "1", "--duplicate-threshold", "1.1"),
            *("--batch-size", "8", "--input-size", "64", "--workers", "0", "--device", "cpu"),
            *("--lung-head", "--lung-epochs", "1", "--background-replacement", "0.5"),
        ]
    )
    assert status == 0
    checkpoint = load_checkpoint(out)
    assert checkpoint.model_config.lung_head
    assert checkpoint.training["config"]["background_replacement"] == 0.5
    assert list(checkpoint.metrics) == ["validation"]
