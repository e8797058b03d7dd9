"""The README quotes the shipped checkpoint's own figures, and its files are there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.speed import collect, quote
from resformer.checkpoint import Checkpoint, load_checkpoint
from resformer.cli.report import CARD_NAME, DOCS_FOLDER, FIGURES_MARK, JSON_NAME
from resformer.evaluation.card import render_card, render_figures, show_origin
from resformer.evaluation.lineage import describe_model
from resformer.evaluation.report import read_about
from resformer.evaluation.tables import class_table, overall_table, replace_block, show_name
from web.config import describe_settings
from web.errors import CODES

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def read_doc(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def shipped() -> Checkpoint:
    return load_checkpoint(ROOT / "best_model.pth")


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / DOCS_FOLDER / JSON_NAME).read_text(encoding="utf-8"))
    return found


def _row(text: str, *cells: object) -> None:
    row = "| " + " | ".join(map(str, cells)) + " |"
    assert row in text, f"the README lacks the row {row}"


def test_the_results_are_the_checkpoints_own(readme: str, shipped: Checkpoint) -> None:
    report = shipped.metrics["test"]
    overall = overall_table(report)
    _row(readme, "accuracy", overall["accuracy"])
    _row(readme, "macro-F1", overall["macro_f1"])
    _row(readme, "macro AUC", overall["macro_auc"])
    _row(readme, "expected calibration error", overall["expected_calibration_error"])
    for name, scores in class_table(report).items():
        cells = (scores[key] for key in ("support", "recall", "specificity", "f1"))
        _row(readme, show_name(name), *cells)
    assert f"{report['count']:,} test films" in readme


def test_the_report_is_of_the_shipped_model_which_holds_it(
    report: dict[str, Any], shipped: Checkpoint
) -> None:
    assert report["model"]["source"] == shipped.source
    assert report["test"] == shipped.metrics["test"]
    assert report["abstention"] == shipped.metrics["report"]["abstention"]
    assert report["model"]["validation"] == shipped.metrics["validation"]


def test_the_report_quotes_what_people_said(report: dict[str, Any]) -> None:
    assert report["about"] == read_about(ROOT / "docs" / "about.toml")


def test_the_texts_are_what_the_report_renders_to(readme: str, report: dict[str, Any]) -> None:
    assert (ROOT / CARD_NAME).read_text(encoding="utf-8") == render_card(report, published=True)
    assert replace_block(readme, FIGURES_MARK, render_figures(report)) == readme


def test_the_pictures_of_the_model_card_are_there(report: dict[str, Any]) -> None:
    pictures = re.findall(r"\]\(([^)]+\.png)\)", render_card(report, published=True))
    assert len(pictures) == 4
    assert [name for name in pictures if not (ROOT / name).is_file()] == []
    assert sum((ROOT / name).stat().st_size for name in pictures) < 500_000


def test_the_training_is_described_as_it_was(readme: str, shipped: Checkpoint) -> None:
    training = shipped.training
    assert f"{training['films']['train']:,} films" in readme
    assert show_origin(describe_model(shipped)) in readme
    million = sum(w.numel() for w in shipped.build_model().parameters()) / 1e6
    assert f"{million:.1f} million parameters" in readme
    size = shipped.input_spec.size
    assert f"(B, 1, {size}, {size})" in readme


def test_every_refusal_of_the_api_is_in_the_table_and_no_other() -> None:
    text = read_doc("http_api.md")
    told = {
        (int(status), code)
        for status, codes in re.findall(r"^\| (\d{3}) \| ([^|]+) \|", text, flags=re.MULTILINE)
        for code in re.findall(r"`(\w+)`", codes)
    }
    assert told == {(entry.status, code) for code, entry in CODES.items()}


DOCUMENTS = ("README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_and_heading_that_a_document_names_is_there(document: str) -> None:
    path = ROOT / document
    text = path.read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!https?://)([^)]+)\)", text):
        name, _, heading = link.partition("#")
        target = path.parent / name if name else path
        assert target.exists(), link
        if heading:
            assert heading in _headings(target.read_text(encoding="utf-8")), link
    paths = re.findall(r"`((?:resformer|docs|web|tests|benchmarks)/[\w/.-]+)`", text)
    assert [name for name in paths if not (ROOT / name).exists()] == []


def _headings(text: str) -> set[str]:
    return {
        re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    }


@pytest.mark.parametrize("name", ["refusal", "evidence"])
def test_the_figures_of_the_benchmarks_are_quoted_as_they_were_printed(name: str) -> None:
    text = read_doc("gate_and_evidence.md")
    printed = (ROOT / "benchmarks" / f"{name}.md").read_text(encoding="utf-8").splitlines()
    tables = {line for line in printed if re.match(r"\| [a-z].* \| (refused|films) \|", line)}
    quoted = [line for line in text.splitlines() if line in tables]
    assert len(quoted) >= 2
    for title in quoted:
        rows = text.split(title)[1].split("\n\n")[0].splitlines()[2:]
        table = "\n".join(printed).split(title)[1].split("\n\n")[0].splitlines()
        assert rows
        assert [row for row in rows if row not in table] == []


def test_the_summary_of_the_speed_is_quoted_as_it_was_printed(readme: str) -> None:
    printed = (ROOT / "benchmarks" / "speed.md").read_text(encoding="utf-8")
    assert quote(readme, printed) == readme
    whole = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert quote(whole, collect(ROOT / "benchmarks")) == whole


def test_every_setting_is_in_the_table_of_settings() -> None:
    text = read_doc("operations.md")
    for line in describe_settings().splitlines():
        setting = re.fullmatch(r"  (\w+)\s+(.+) \(default: (.*)\)", line)
        assert setting, line
        variable, meaning, default = setting.groups()
        _row(text, f"`{variable}`", meaning, default.replace(f"{ROOT}/", ""))
