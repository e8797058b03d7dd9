"""A report tells the whole training: the stages before the last one, and what it abstains from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from resformer.abstention import Abstention
from resformer.checkpoint import load_checkpoint
from resformer.evaluation.card import render_recipe, show_earlier, show_minutes
from resformer.evaluation.report import describe_model, list_stages
from tests.report_setup import tell_of_a_training


def test_stages_are_listed_from_the_first_to_the_last() -> None:
    first, second = {"best_epoch": 1}, {"best_epoch": 2, "initial": {"best_epoch": 1}}
    third = {"best_epoch": 3, "initial": second}
    assert list_stages(first) == [first]
    assert list_stages(third) == [first, second, third]


def test_the_time_of_all_stages_counts_and_their_settings_stand_side_by_side(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    checkpoint = load_checkpoint(tell_of_a_training(tiny_checkpoint, tmp_path / "model.pth"))
    alone = describe_model(checkpoint)
    assert (alone["epochs"], alone["earlier"], alone["training_seconds"]) == (2, [], 180.0)
    assert show_earlier(alone) == ""
    training = checkpoint.training
    config = {**training["config"], "input_size": 96}
    staged = replace(checkpoint, training={**training, "config": config, "initial": training})
    model = describe_model(staged)
    assert (model["epochs"], model["training_seconds"]) == (2, 360.0)
    assert show_earlier(model) == " after 2 on 64 x 64 pixels"
    assert show_minutes(model) == "6 minutes"
    recipe = render_recipe(model)
    assert "Epoch 2 of 2 after 2 on 64 x 64 pixels, chosen" in recipe
    assert "6 minutes of training steps" in recipe
    assert "| setting | first 2 epochs | last 2 epochs |" in recipe
    assert "| `input_size` | 64 | 96 |" in recipe


def test_the_time_of_several_processes_is_summed_beside_that_of_the_clock(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    checkpoint = load_checkpoint(tell_of_a_training(tiny_checkpoint, tmp_path / "model.pth"))
    first = checkpoint.training
    together = [{**entry, "processes": 2} for entry in first["history"]]
    second = {**first, "history": together, "initial": first}
    third = {**second, "initial": second}
    model = describe_model(replace(checkpoint, training=third))
    assert show_earlier(model) == " after 2 on 64 x 64 and 2 on 64 x 64 pixels"
    assert show_minutes(model) == "9 minutes (15 summed over processes)"


def test_a_setting_that_an_earlier_stage_did_not_have_is_a_dash(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    checkpoint = load_checkpoint(tell_of_a_training(tiny_checkpoint, tmp_path / "model.pth"))
    training = checkpoint.training
    older = {**training, "config": {"input_size": 64}}
    model = describe_model(replace(checkpoint, training={**training, "initial": older}))
    assert "| `epochs` | - | 3 |" in render_recipe(model)


def test_the_thresholds_of_abstention_are_told(tiny_checkpoint: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(tell_of_a_training(tiny_checkpoint, tmp_path / "model.pth"))
    assert "- Abstention: none" in render_recipe(describe_model(checkpoint))
    width = checkpoint.build_model().fc.in_features
    abstention = Abstention(torch.zeros(width), torch.eye(width)[:, :3], torch.ones(4, 3), 0.5, 7.0)
    told = render_recipe(describe_model(replace(checkpoint, abstention=abstention, graph=None)))
    assert "a probability below 0.500" in told
    assert "further than 7.0 standard deviations" in told
