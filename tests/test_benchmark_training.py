"""The training benchmark: the films, the loop for both networks, and the history it reads."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks import training, training_loop
from benchmarks.baselines import WithoutLungs
from benchmarks.training_films import drawn_films, training_config
from benchmarks.training_report import (
    describe_history,
    epoch_of_accuracy,
    minutes_to_accuracy,
    render_splits,
)
from resformer.checkpoint import load_checkpoint, save_checkpoint
from resformer.model import IdentityMappingResFormer

HISTORY = [
    {"validation_accuracy": accuracy, "seconds": 90.0, "images_per_second": rate}
    for accuracy, rate in ((0.7, 100.0), (0.89, 110.0), (0.85, 120.0))
]


def test_the_time_to_an_accuracy_is_that_of_the_epochs_until_it() -> None:
    assert epoch_of_accuracy(HISTORY, 0.886) == 2
    assert minutes_to_accuracy(HISTORY, 0.886) == 3.0
    assert epoch_of_accuracy(HISTORY, 0.9) is None
    assert minutes_to_accuracy(HISTORY, 0.9) is None


def test_a_history_is_told_in_a_sentence(tiny_checkpoint: Path) -> None:
    checkpoint = replace(load_checkpoint(tiny_checkpoint), training={"history": HISTORY})
    assert describe_history(checkpoint, 0.886).startswith(
        "The checkpoint reached 88.6% validation accuracy in epoch 2, with 3.0 minutes of training "
        "at a median of 110 images/s; validation is not counted."
    )
    staged = replace(checkpoint, training={"initial": checkpoint.training, "history": []})
    assert describe_history(staged, 0.886).startswith(
        "The checkpoint reached 88.6% validation accuracy in epoch 2, with 3.0 minutes of training "
    )
    assert "has no epoch with 95.0%" in describe_history(checkpoint, 0.95)


def test_splits_are_read_and_shown() -> None:
    assert training._read_split("2:1") == (2, 1)
    assert render_splits({(2, 1): 151.4}).splitlines()[-1] == "| 2 | 1 | 151 |"
    for bad in ("2", "1:0", "a:b"):
        with pytest.raises(Exception, match="expected WORKERS:THREADS"):
            training._read_split(bad)


def test_films_are_varied_as_the_checkpoint_says(tiny_checkpoint: Path) -> None:
    stored = {"style_exchange": 1.0, "lung_head": True, "infection_head": True, "gone": 3}
    checkpoint = replace(load_checkpoint(tiny_checkpoint), training={"config": stored})
    config = training_config(checkpoint, input_size=64, background_replacement=1.0)
    assert config.style_exchange == 1.0
    films = drawn_films(40, 4, config)
    assert len(films) == 40
    assert films.background is not None
    film = films[0, 33]
    assert film.image.shape == (1, 64, 64)
    assert film.regions.shape == (2, 16, 16)
    assert film.known.tolist() == [1, 1]
    assert 0.1 < film.regions.mean() < 0.5


def test_both_networks_go_through_the_same_loop(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    config = replace(checkpoint.model_config, lung_head=True)
    weights = IdentityMappingResFormer(config).state_dict()
    model, out = tmp_path / "lungs.pth", tmp_path / "training.md"
    save_checkpoint(
        replace(
            checkpoint,
            model_config=config,
            state_dict=weights,
            training={"history": HISTORY, "config": {"lung_head": True, "batch_size": 4}},
        ),
        model,
    )
    small = nn.Sequential(nn.Conv2d(1, 4, 8, stride=8), nn.Flatten(), nn.Linear(256, 4))
    untrained = next(small.parameters()).detach().clone()
    monkeypatch.setattr(training_loop, "_resnet", lambda network: WithoutLungs(small))
    rows = training.main(
        f"--model {model} --out {out} --size 64 --films 8 --epochs 1 --workers 0 --threads 1 "
        "--splits 0:1 --processes 1".split()
    )
    text = out.read_text()
    for name in (training_loop.OURS, training_loop.RESNET, training_loop.LOADER):
        assert f"| {name} | " in text
    assert "| 0 | 1 | " in text
    assert (rows[-1].what, rows[-1].ours) == (
        "training to 88.6% validation accuracy, minutes",
        "3.0",
    )
    assert out.with_suffix(".png").stat().st_size > 1000
    assert not torch.equal(next(small.parameters()), untrained)


def test_each_process_measures_and_the_main_one_writes(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = nn.Sequential(nn.Conv2d(1, 4, 8, stride=8), nn.Flatten(), nn.Linear(256, 4))
    monkeypatch.setattr(training_loop, "_resnet", lambda network: WithoutLungs(small))
    out = tmp_path / "rates.json"
    training_loop.main(
        f"--model {tiny_checkpoint} --out {out} --size 64 --films 8 --epochs 2".split()
    )
    rates = json.loads(out.read_text())
    assert set(rates) == {training_loop.OURS, training_loop.RESNET, training_loop.LOADER}
    assert all(len(found) == 2 and min(found) > 0 for found in rates.values())
