"""`python -m resformer report` on drawn films: one JSON, and all texts from it alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from resformer.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from resformer.cli import main
from resformer.evaluation.card import render_card, render_figures, replace_block
from resformer.evaluation.controls import CONTROLS, NEED_LUNGS
from resformer.model import IdentityMappingResFormer, ResFormerConfig
from resformer.transforms import InputSpec
from tests.conftest import CLASS_NAMES
from tests.report_setup import report_arguments, tell_of_a_training

README = "# Title\n\nProse.\n\n<!-- figures:begin -->\nold\n<!-- figures:end -->\n\nMore prose.\n"


@pytest.fixture(scope="module")
def written(
    tiny_config: ResFormerConfig,
    image_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A folder with all that the command writes, of a network with a lung head."""
    folder = tmp_path_factory.mktemp("report")
    torch.manual_seed(0)
    config = replace(tiny_config, lung_head=True)
    weights = IdentityMappingResFormer(config).state_dict()
    model = folder / "model.pth"
    save_checkpoint(Checkpoint(config, CLASS_NAMES, InputSpec(size=64), weights), model)
    tell_of_a_training(model, model)
    (folder / "README.md").write_text(README)
    arguments = report_arguments(model, image_folder, folder)
    assert main([*arguments, "--seed-models", str(_tested(model, folder))]) == 0
    return folder


def _tested(model: Path, folder: Path) -> Path:
    """Write a checkpoint that holds a test report, as a training does."""
    report = {
        name: {"value": 0.5, "low": 0.4, "high": 0.6}
        for name in ("accuracy", "macro_f1", "macro_auc", "expected_calibration_error")
    }
    path = folder / "seed.pth"
    save_checkpoint(replace(load_checkpoint(model), metrics={"test": report}), path)
    return path


@pytest.fixture(scope="module")
def report(written: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((written / "docs" / "report.json").read_text())
    return found


def test_everything_is_in_the_report(report: dict[str, Any]) -> None:
    assert report["test"]["count"] == 8
    assert [control["name"] for control in report["controls"]] == list(CONTROLS)
    assert {control["count"] for control in report["controls"]} == {8}
    assert report["controls"][0]["confusion_matrix"] == report["test"]["confusion_matrix"]
    assert report["external"]["sets"]["set-2"]["tuberculosis"]["count"] == 1
    assert report["data"]["films"] == {"train": 32, "validation": 8, "test": 8}
    assert report["data"]["duplicate_groups"] == 0
    assert report["sources"]["COVID"]["other"]["count"] == 2
    assert report["abstention"]["count"] == 8
    assert report["seeds"]["spread"]["accuracy"]["mean"] == 0.5
    assert report["ablations"] is None
    assert list(report) == sorted(report)


def test_the_texts_are_those_of_the_report(written: Path, report: dict[str, Any]) -> None:
    assert (written / "MODEL_CARD.md").read_text() == render_card(report)
    readme = (written / "README.md").read_text()
    assert readme == replace_block(README, "figures", render_figures(report))
    assert readme.startswith("# Title\n\nProse.\n")
    assert readme.endswith("\n\nMore prose.\n")
    assert "\nold\n" not in readme


def test_the_checkpoint_holds_the_same_report(written: Path, report: dict[str, Any]) -> None:
    metrics = load_checkpoint(written / "model.pth").metrics
    assert metrics["test"] == report["test"]
    for name in ("sources", "abstention", "controls", "external", "seeds"):
        assert metrics["report"][name] == report[name]
    assert "ablations" not in metrics["report"]


def test_the_pictures_are_written(written: Path) -> None:
    card = (written / "MODEL_CARD.md").read_text()
    pictures = re.findall(r"\]\((docs/card/\w+\.png)\)", card)
    assert len(pictures) == 4
    assert all((written / name).read_bytes().startswith(b"\x89PNG") for name in pictures)


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _numbers(item)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


def test_every_figure_of_the_card_is_in_the_report(report: dict[str, Any]) -> None:
    known = {f"{number:.3f}" for number in _numbers(report)}
    for text in (render_card(report), render_figures(report)):
        shown = set(re.findall(r"\b\d\.\d{3}\b", text))
        assert len(shown) > 10
        assert shown - known == set()


def test_another_report_makes_another_card(report: dict[str, Any]) -> None:
    changed = json.loads(json.dumps(report))
    changed["test"]["accuracy"]["value"] = 0.12345
    changed["controls"][2]["accuracy"]["value"] = 0.23456
    changed["external"]["abnormal_against_no_finding"]["auc"]["value"] = 0.34567
    for text in (render_card(changed), render_figures(changed)):
        assert [f in text for f in ("0.123", "0.235", "0.346")] == [True] * 3


def test_a_network_without_lungs_has_no_controls_of_them(
    tiny_checkpoint: Path, image_folder: Path, tmp_path: Path
) -> None:
    model = tell_of_a_training(tiny_checkpoint, tmp_path / "model.pth")
    before = model.read_bytes()
    assert main([*report_arguments(model, image_folder, tmp_path), "--no-store"]) == 0
    assert model.read_bytes() == before
    report = json.loads((tmp_path / "docs" / "report.json").read_text())
    names = [control["name"] for control in report["controls"]]
    assert names == [name for name in CONTROLS if name not in NEED_LUNGS]
    assert "the controls that need them are missing" in (tmp_path / "MODEL_CARD.md").read_text()
    assert not (tmp_path / "README.md").exists()


def test_what_cannot_be_reported_is_refused_before_anything_is_written(
    tiny_checkpoint: Path, image_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = tell_of_a_training(tiny_checkpoint, tmp_path / "model.pth")
    arguments = report_arguments(model, image_folder, tmp_path)
    (tmp_path / "README.md").write_text("no marks")
    assert main(arguments) == 1
    assert "needs the lines <!-- figures:begin --> and <!-- figures:end -->" in caplog.text
    (tmp_path / "README.md").unlink()
    assert main([*arguments, "--seed-models", str(model)]) == 1
    assert "holds no test report: name a training that was no trial" in caplog.text
    assert main([*arguments, "--ablations", str(tmp_path / "absent")]) == 1
    assert "holds no JSON: run python -m benchmarks.ablations" in caplog.text
    untold: dict[str, Any] = {"config": {}, "history": []}
    for training in ({}, {**untold, "initial": [untold, {**untold, "films": {}}]}):
        save_checkpoint(replace(load_checkpoint(tiny_checkpoint), training=training), model)
        caplog.clear()
        assert main(arguments) == 1
        assert "does not tell how it was trained" in caplog.text
    assert not (tmp_path / "docs").exists()
