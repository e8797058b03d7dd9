"""The mean of trainings that started from one network: exact weights, lineage, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from resformer.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from resformer.cli import main
from resformer.data.manifest import write_manifest
from resformer.evaluation.card import render_recipe, show_origin
from resformer.evaluation.report import describe_model, list_stages
from resformer.model import ResFormerConfig
from resformer.training.films import Workspace
from resformer.training.finish import average_trainings, average_weights
from tests.training_setup import TINY_TRAINING, split_by_number, train_a_trial


@pytest.fixture(scope="module")
def branches(
    image_folder: Path, tiny_config: ResFormerConfig, tmp_path_factory: pytest.TempPathFactory
) -> list[Checkpoint]:
    folder = tmp_path_factory.mktemp("branches")
    start = train_a_trial(image_folder, folder / "start", tiny_config)
    configs = [replace(TINY_TRAINING, epochs=1, seed=seed) for seed in (1, 2)]
    return [
        train_a_trial(
            *(image_folder, folder / str(config.seed), tiny_config), initial=start, config=config
        )
        for config in configs
    ]


@pytest.fixture
def workspace(image_folder: Path, branches: list[Checkpoint], tmp_path: Path) -> Workspace:
    return Workspace(image_folder, split_by_number(image_folder), tmp_path, branches[0].input_spec)


def _average(checkpoints: list[Checkpoint], workspace: Workspace, **options: Any) -> Checkpoint:
    return average_trainings(
        *(checkpoints, workspace, {}), device="cpu", progress=False, **{"trial": True, **options}
    )


def test_the_mean_of_weights_is_exact_and_counters_stay() -> None:
    steps = torch.tensor(7)
    one = {"weight": torch.tensor([1.0, 2.0]), "steps": steps}
    two = {"weight": torch.tensor([4.0, 2.5]), "steps": torch.tensor(9)}
    three = {"weight": torch.tensor([4.0, 3.0]), "steps": torch.tensor(9)}
    mean = average_weights([one, two, three])
    assert mean["weight"].tolist() == [3.0, 2.5]
    assert mean["weight"].dtype == torch.float32
    assert mean["steps"] is steps


def test_the_mean_is_judged_and_remembers_each_training_once(
    branches: list[Checkpoint], workspace: Workspace
) -> None:
    mean = _average(branches, workspace)
    expected = average_weights([branch.state_dict for branch in branches])
    for name, weight in mean.state_dict.items():
        torch.testing.assert_close(weight, expected[name], atol=0, rtol=0)
    assert list(mean.metrics) == ["validation"]
    assert mean.metrics["validation"]["count"] == 8
    assert mean.temperature > 0
    assert (mean.gate, mean.abstention) == (None, None)
    start = branches[0].training["initial"]
    stages = list_stages(mean.training)
    assert stages[:-1] == [start, *(branch.training for branch in branches)]
    assert stages[-1]["history"] == []


def test_a_mean_that_is_no_trial_has_all_that_a_training_ends_with(
    branches: list[Checkpoint], workspace: Workspace
) -> None:
    mean = _average(branches, workspace, trial=False)
    assert list(mean.metrics) == ["validation", "test"]
    assert mean.gate is not None
    assert mean.abstention is not None


def test_the_report_tells_of_a_mean(branches: list[Checkpoint], workspace: Workspace) -> None:
    model = describe_model(_average(branches, workspace))
    assert show_origin(model) == (
        "the mean of the weights of 2 trainings of 1 and 1 epochs after 1 on 64 x 64 pixels"
    )
    recipe = render_recipe(model)
    assert recipe.startswith("- The mean of the weights of 2 trainings of")
    assert "| setting | 1 epochs | 1 epochs, averaged | 1 epochs, averaged |" in recipe
    assert "| `seed` | 0 | 1 | 2 |" in recipe


def test_what_does_not_fit_together_is_refused(
    branches: list[Checkpoint], workspace: Workspace
) -> None:
    one, two = branches
    spec = replace(two.input_spec, size=96)
    for other, message in (
        (replace(two, input_spec=spec), "differ in input_spec"),
        (replace(two, class_names=two.class_names[::-1]), "differ in class_names"),
        (replace(two, training={**two.training, "data_digest": "x"}), "on another split"),
        (replace(two, training={**two.training, "initial": {}}), "no training in common"),
    ):
        with pytest.raises(CheckpointError, match=message):
            _average([one, other], workspace)
    with pytest.raises(CheckpointError, match="two networks or more, got 1"):
        _average([one], workspace)
    elsewhere = [replace(branch, class_names=one.class_names[::-1]) for branch in branches]
    with pytest.raises(CheckpointError, match="give the films that they were trained on"):
        _average(elsewhere, workspace)


def test_the_command_writes_the_mean(
    branches: list[Checkpoint], image_folder: Path, tmp_path: Path
) -> None:
    write_manifest(split_by_number(image_folder), tmp_path / "split.csv")
    paths = [tmp_path / f"{number}.pth" for number in range(2)]
    for branch, path in zip(branches, paths, strict=True):
        save_checkpoint(branch, path)
    out = tmp_path / "mean.pth"
    arguments = ["--data", str(image_folder), "--manifest", str(tmp_path / "split.csv"), "--trial"]
    given = ["average", *map(str, paths), "--out", str(out), "--device", "cpu", *arguments]
    assert main(given) == 0
    mean = load_checkpoint(out)
    assert mean.source not in {branch.source for branch in branches}
    assert [stage["config"]["seed"] for stage in mean.training["initial"]] == [1, 2]
    assert main(["average", str(paths[0]), *given[3:]]) == 1
