"""``python -m resformer report`` on drawn films: one JSON, and all texts from it alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from resformer.abstention import Abstention
from resformer.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from resformer.cli import main
from resformer.data.manifest import write_manifest
from resformer.evaluation import card
from resformer.evaluation.controls import CONTROLS, NEED_LUNGS
from resformer.evaluation.lineage import describe_model
from resformer.evaluation.report import quote_traces
from resformer.evaluation.tables import replace_block
from resformer.model import IdentityMappingResFormer, ResFormerConfig
from resformer.transforms import InputSpec
from tests.data_sets import CLASS_NAMES
from tests.training_setup import report_arguments, split_by_number, tell_of_a_training

README = "# Title\n\nProse.\n\n<!-- figures:begin -->\nold\n<!-- figures:end -->\n\nMore prose.\n"
ABOUT = """
[statements]
data_sources = "Drawn by a program."
selection = "The test films were looked at twice before."
[terms]
set_1 = "One drawn film."
[goals]
"accuracy" = ">= 0; nothing"
"recall of COVID" = ">= 1.5"
"clinic: Normal called COVID" = "<= 1"
"set-2: tuberculosis called Normal" = "<= 1"
"far: COVID against Normal" = ">= 0.9; a longer training"
"""


@pytest.fixture(scope="module")
def written(
    tiny_config: ResFormerConfig,
    image_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A project's folder with all that the command publishes, of a network with a lung head."""
    folder = tmp_path_factory.mktemp("report")
    torch.manual_seed(0)
    config = replace(tiny_config, lung_head=True)
    weights = IdentityMappingResFormer(config).state_dict()
    model = folder / "model.pth"
    save_checkpoint(Checkpoint(config, CLASS_NAMES, InputSpec(size=64), weights), model)
    tell_of_a_training(model, model)
    (folder / "README.md").write_text(README)
    (folder / "about.toml").write_text(ABOUT)
    estimate = {"value": 0.5, "low": 0.4, "high": 0.6}
    figures = ("accuracy", "macro_f1", "macro_auc", "expected_calibration_error")
    tested = replace(load_checkpoint(model), metrics={"test": dict.fromkeys(figures, estimate)})
    save_checkpoint(tested, folder / "seed.pth")
    arguments = [
        *report_arguments(model, image_folder, folder / "run"),
        *("--seed-models", str(folder / "seed.pth"), "--before", str(folder / "seed.pth")),
        *("--about", str(folder / "about.toml"), "--publish", str(folder)),
    ]
    assert main(arguments) == 0
    return folder


@pytest.fixture(scope="module")
def report(written: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((written / "docs" / "report.json").read_text())
    return found


def test_goals_are_held_against_what_was_measured(report: dict[str, Any], written: Path) -> None:
    goals = {goal["gauge"]: goal for goal in report["goals"]}
    assert goals["accuracy"]["measured"] == report["test"]["accuracy"]
    assert (goals["accuracy"]["missed_by"], goals["accuracy"]["tried"]) == (0, "nothing")
    recall = report["test"]["per_class"]["COVID"]["recall"]
    assert goals["recall of COVID"]["missed_by"] == pytest.approx(1.5 - recall["value"])
    called = report["sources"]["Normal"]["clinic"]
    share = called["predicted"]["COVID"] / called["count"]
    assert goals["clinic: Normal called COVID"]["measured"]["value"] == pytest.approx(share)
    shares = report["external"]["sets"]["set-2"]["tuberculosis"]["shares"]
    assert goals["set-2: tuberculosis called Normal"]["measured"] == shares["Normal"]
    assert goals["far: COVID against Normal"]["measured"] is None
    text = (written / "MODEL_CARD.md").read_text()
    assert re.search(r"\| accuracy \| [0-9. to()]+ \| >= 0 \| met \| nothing \|", text)
    assert "| recall of COVID |" in text
    assert "far: COVID against Normal" not in text


def test_everything_is_in_the_report(report: dict[str, Any]) -> None:
    assert report["test"]["count"] == 8
    assert [control["name"] for control in report["controls"]] == list(CONTROLS)
    assert {control["count"] for control in report["controls"]} == {8}
    assert report["controls"][0]["confusion_matrix"] == report["test"]["confusion_matrix"]
    assert report["external"]["sets"]["set-2"]["tuberculosis"]["count"] == 1
    assert report["data"]["films"] == {"train": 32, "validation": 8, "test": 8}
    assert report["data"]["duplicate_groups"] == 0
    assert report["sources"]["COVID"]["clinic"]["count"] == 2
    assert report["readings"]["contradicted"][0]["count"] == 2
    assert len(report["within_sources"]["areas"]) == 7
    assert report["abstention"]["count"] == 8
    assert report["seeds"]["spread"]["accuracy"]["mean"] == 0.5
    area = "covid_against_no_finding"  # by the same weights
    assert report["seeds"]["runs"][0][area] == report["external"][area]["auc"]["value"]
    assert report["ablations"] is None
    assert list(report) == sorted(report)


def test_the_texts_are_those_of_the_report(written: Path, report: dict[str, Any]) -> None:
    assert (written / "MODEL_CARD.md").read_text() == card.render_card(report, published=True)
    assert (written / "run" / "MODEL_CARD.md").read_text() == card.render_card(report)
    assert json.loads((written / "run" / "report.json").read_text()) == report
    readme = (written / "README.md").read_text()
    assert readme == replace_block(README, "figures", card.render_figures(report))
    assert readme.startswith("# Title\n\nProse.\n")
    assert readme.endswith("\n\nMore prose.\n")
    assert "\nold\n" not in readme


def test_the_checkpoint_holds_the_same_report(written: Path, report: dict[str, Any]) -> None:
    metrics = load_checkpoint(written / "model.pth").metrics
    assert metrics["test"] == report["test"]
    for name in ("sources", "within_sources", "abstention", "controls", "external", "seeds"):
        assert metrics["report"][name] == report[name]
    assert metrics["track_record"] == report["track_record"]
    assert sum(record["called"] for record in report["track_record"].values()) == 8
    assert "ablations" not in metrics["report"]


@pytest.mark.parametrize("folder", [".", "run"])
def test_the_pictures_of_either_card_are_written(written: Path, folder: str) -> None:
    text = (written / folder / "MODEL_CARD.md").read_text()
    pictures = re.findall(r"\]\(([\w/]+\.png)\)", text)
    assert len(pictures) == 4
    assert all((written / folder / name).read_bytes().startswith(b"\x89PNG") for name in pictures)


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
    for text in (card.render_card(report), card.render_figures(report)):
        shown = set(re.findall(r"\b\d\.\d{3}\b", text))
        assert len(shown) > 10
        assert shown - known == set()


def test_another_report_makes_another_card(report: dict[str, Any]) -> None:
    changed = json.loads(json.dumps(report))
    changed["test"]["accuracy"]["value"] = 0.12345
    changed["controls"][2]["accuracy"]["value"] = 0.23456
    changed["external"]["abnormal_against_no_finding"]["auc"]["value"] = 0.34567
    whole, choice = card.render_card(changed), card.render_figures(changed)
    assert all(figure in whole for figure in ("0.123", "0.235", "0.346"))
    assert all(figure in choice for figure in ("0.123", "0.346"))


@pytest.mark.parametrize(
    ("value", "low", "lies_above", "cancels"),
    [
        (0.02, 0.03, True, True),
        (0.02, 0.01, False, True),
        (0.20, 0.10, False, False),
        (0.20, None, False, False),
        (None, None, False, False),
    ],
)
def test_what_is_odd_about_the_calibration_error_is_told(
    report: dict[str, Any], value: float | None, low: float | None, lies_above: bool, cancels: bool
) -> None:
    changed = json.loads(json.dumps(report))
    changed["test"]["expected_calibration_error"] = {"value": value, "low": low, "high": low}
    changed["within_sources"]["calibration"] = {
        name: {"count": 9, "expected_calibration_error": error}
        for name, error in (("near", 0.05), ("far", 0.1))
    }
    text = card.render_figures(changed)
    assert ("lies above it, for films" in text) == lies_above
    assert ("within one source they are 0.050 to 0.100" in text) == cancels


def test_a_card_says_what_people_said_and_else_what_holds_for_any_training(
    report: dict[str, Any],
) -> None:
    said = card.render_card(report)
    for text in ("Drawn by a program.", "looked at twice before.", "| set 1 | One drawn film. |"):
        assert text in said
    assert "looked at twice before." in card.render_figures(report)
    plain = card.render_card(report | {"about": None})
    for untrue in ("Public collections", "chose nothing", "repository", "clinic_tb", "looked at"):
        assert untrue not in plain
    assert "nothing else is known of them" in plain
    for term in ("macro-F1", "ECE", "P(Normal)", "abstained"):
        assert re.search(rf"^\| [^|]*{re.escape(term)}", plain, flags=re.MULTILINE), term


def test_a_report_touches_nothing_but_its_folder(
    tiny_checkpoint: Path, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With classes of its own, without readings and sources."""
    model = tell_of_a_training(tiny_checkpoint, tmp_path / "model.pth")
    own = dict(zip(CLASS_NAMES, ("A", "B", "C", "D"), strict=True))
    save_checkpoint(replace(load_checkpoint(model), class_names=tuple(own.values())), model)
    project = {"README.md": README, "MODEL_CARD.md": "the project's own"}
    for name, text in project.items():
        (tmp_path / name).write_text(text)
    before = model.read_bytes()
    monkeypatch.chdir(tmp_path)
    arguments = report_arguments(model, image_folder, tmp_path / "given")
    del arguments[-2:]  # --out
    manifest = split_by_number(image_folder)
    rows = tuple(replace(row, class_name=own[row.class_name], source="") for row in manifest.rows)
    given = replace(manifest, class_names=tuple(own.values()), rows=rows)
    write_manifest(given, tmp_path / "given" / "split.csv")
    assert main(arguments) == 0
    assert model.read_bytes() == before
    assert {name: (tmp_path / name).read_text() for name in project} == project
    assert not (tmp_path / "docs").exists()
    report = json.loads((tmp_path / "runs" / "report" / "report.json").read_text())
    names = [control["name"] for control in report["controls"]]
    assert names == [name for name in CONTROLS if name not in NEED_LUNGS]
    text = (tmp_path / "runs" / "report" / "MODEL_CARD.md").read_text()
    assert "the controls that need them are missing" in text
    assert "undefined: the network has no class Normal" in text
    assert "## Within one source" not in text
    assert "P(A)" in text
    other = {"model": {"source": "another network", "classes": {}}}
    (tmp_path / "other.json").write_text(json.dumps({"traces": other}))
    more = ["--store", "--bootstrap", "5", "--before", str(tmp_path / "other.json")]
    assert main([*arguments, *more]) == 0
    metrics = load_checkpoint(model).metrics
    assert metrics["test"]["count"] == 8
    assert metrics["report"]["traces"]["before"] == other["model"]
    own_report = tmp_path / "runs" / "report" / "report.json"
    assert quote_traces(own_report, report["model"]["source"]) == other["model"]
    assert quote_traces(own_report, "a third")["source"] == report["model"]["source"]


def test_what_cannot_be_reported_is_refused_before_anything_is_written(
    tiny_checkpoint: Path, image_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = tell_of_a_training(tiny_checkpoint, tmp_path / "model.pth")
    arguments = report_arguments(model, image_folder, tmp_path / "run")
    (tmp_path / "README.md").write_text("no marks")
    (tmp_path / "about.toml").write_text("[opinions]\ngood = true\n")
    (tmp_path / "goals.toml").write_text('[goals]\n"accuracy" = "high"\n')
    (tmp_path / "other.json").write_text('{"traces": []}')
    other_films = {"source": "", "classes": {"A": {"sources": {"near": 9}, "auc": {"value": 1.0}}}}
    own = {"source": load_checkpoint(model).source, "classes": {}}
    (tmp_path / "own.json").write_text(json.dumps({"traces": {"model": own}}))
    (tmp_path / "half.json").write_text(json.dumps({"traces": {"model": {"classes": {}}}}))
    (tmp_path / "films.json").write_text(json.dumps({"traces": {"model": other_films}}))
    (tmp_path / "gauges.toml").write_text('[goals]\n"beauty" = ">= 1"\n')
    for more, message in (
        (("--publish", tmp_path), "needs the lines <!-- figures:begin --> and <!-- figures:end"),
        (("--publish", tmp_path / "absent"), "README.md"),
        (("--seed-models", model), "holds no test report: name a training that was no trial"),
        (("--ablations", tmp_path / "absent"), "holds no JSON: run python -m benchmarks.ablations"),
        (
            ("--about", tmp_path / "about.toml"),
            "the tables [statements], [terms] and [goals]",
        ),
        (("--about", model), "is not valid TOML"),
        (("--before", tmp_path / "other.json"), "is no report.json of python -m resformer report"),
        (("--before", tmp_path / "half.json"), "is no report.json of python -m resformer report"),
        (("--before", tmp_path / "own.json"), "tells of no other network than this one"),
        (("--before", tmp_path / "films.json"), "counts other test films: name a checkpoint"),
        (("--about", tmp_path / "goals.toml"), "write a bound such as '>= 0.9; what was tried'"),
        (("--about", tmp_path / "gauges.toml"), "goal 'beauty' is no gauge"),
    ):
        caplog.clear()
        assert main([*arguments, *map(str, more)]) == 1
        assert message in caplog.text
    untold: dict[str, Any] = {"config": {}, "history": []}
    for training in ({}, {**untold, "initial": {**untold, "films": {}}}):
        save_checkpoint(replace(load_checkpoint(tiny_checkpoint), training=training), model)
        caplog.clear()
        assert main(arguments) == 1
        assert "does not tell how it was trained" in caplog.text
    assert not (tmp_path / "run" / "report.json").exists()


@pytest.fixture
def trained(tiny_checkpoint: Path, tmp_path: Path) -> Checkpoint:
    """A checkpoint that tells of two epochs of 90 seconds each."""
    return load_checkpoint(tell_of_a_training(tiny_checkpoint, tmp_path / "model.pth"))


def test_the_time_of_all_stages_counts_and_their_settings_stand_side_by_side(
    trained: Checkpoint,
) -> None:
    alone = describe_model(trained)
    assert (alone["epochs"], alone["earlier"], alone["training_seconds"]) == (2, [], 180.0)
    assert card.show_origin(alone) == "epoch 2 of 2"
    training = trained.training
    later = {**training, "config": {**training["config"], "input_size": 96}, "initial": training}
    last = {**training["history"][-1], "score": "the mean AUC"}
    told = {**later, "history": [training["history"][0], last]}
    model = describe_model(replace(trained, training=told))
    recipe = card.render_recipe(model)
    assert "Epoch 2 of 2 after 2 on 64 x 64 pixels, chosen by the mean AUC on the" in recipe
    assert "6 minutes of training steps" in recipe
    assert "| setting | first 2 epochs | last 2 epochs |" in recipe
    assert "| `input_size` | 64 | 96 |" in recipe
    older = {**training, "config": {"input_size": 64}}
    model = describe_model(replace(trained, training={**training, "initial": older}))
    assert "| `epochs` | - | 3 |" in card.render_recipe(model)


def test_the_time_of_several_processes_is_summed_beside_that_of_the_clock(
    trained: Checkpoint,
) -> None:
    first = trained.training
    together = [{**entry, "processes": 2} for entry in first["history"]]
    second = {**first, "history": together, "initial": first}
    model = describe_model(replace(trained, training={**second, "initial": second}))
    assert "after 2 on 64 x 64 and 2 on 64 x 64 pixels" in card.show_origin(model)
    assert card.show_minutes(model) == "9 minutes (15 summed over processes)"


def test_the_thresholds_of_abstention_are_told(trained: Checkpoint) -> None:
    assert "- Abstention: none" in card.render_recipe(describe_model(trained))
    width = trained.build_model().fc.in_features
    abstention = Abstention(torch.zeros(width), torch.eye(width)[:, :3], torch.ones(4, 3), 0.5, 7.0)
    told = card.render_recipe(describe_model(replace(trained, abstention=abstention, graph=None)))
    assert "a probability below 0.500" in told
    assert "further than 7.0 standard deviations" in told


def test_a_block_is_replaced_and_nothing_else() -> None:
    text = "a\n<!-- x:begin -->\nold\n<!-- x:end -->\nb <!-- y:begin -->"
    new = replace_block(text, "x", r"new \1")
    assert new == "a\n<!-- x:begin -->\nnew \\1\n<!-- x:end -->\nb <!-- y:begin -->"
    assert replace_block(new, "x", "old") == text
    for broken in ("", "<!-- x:begin -->", "<!-- x:end --><!-- x:begin -->", text + text):
        with pytest.raises(ValueError, match="once each, in this order"):
            replace_block(broken, "x", "")
