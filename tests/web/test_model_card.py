"""`GET /model` tells what the checkpoint tells of itself; `/about` shows it to people."""

from __future__ import annotations

import dataclasses
import hashlib
import html
import re
from pathlib import Path

import numpy as np
import pytest
from flask.testing import FlaskClient

from resformer import __version__
from resformer.checkpoint import load_checkpoint, save_checkpoint
from resformer.evaluation.external import ExternalFilm, evaluate_external
from resformer.evaluation.metrics import evaluate_predictions
from resformer.evaluation.predictions import Predictions
from tests.conftest import CLASS_NAMES
from tests.web.telling import LABELS, PROBABILITIES, TRAINING, write_telling_checkpoint
from web import WebConfig, create_app
from web.service import ModelService


@pytest.fixture(scope="module")
def told(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that tells of its training and of 4 test films, none of Lung_Opacity."""
    folder = tmp_path_factory.mktemp("told")
    return write_telling_checkpoint(tiny_checkpoint, folder / "model.pth")


@pytest.fixture(scope="module")
def measured(told: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same checkpoint with what `python -m resformer report` puts into it."""
    checkpoint = load_checkpoint(told)
    films = [
        ExternalFilm("far_clinic", "far_clinic/1.png", "no finding"),
        ExternalFilm("far_clinic", "far_clinic/2.png", "tuberculosis"),
        ExternalFilm("papers", "papers/1.png", "covid-19"),
        ExternalFilm("papers", "papers/2.png", "no finding"),
    ]
    none = np.zeros(4, bool)
    answers = Predictions(PROBABILITIES[[0, 1, 0, 2]], none, none)
    external = evaluate_external(films, answers, CLASS_NAMES, bootstrap=20)
    black = evaluate_predictions(LABELS, PROBABILITIES[::-1], CLASS_NAMES, bootstrap=20)
    sure = {"name": "lungs blacked out", "mean_confidence": 0.3, "withheld": 0.75}
    kept = {"external": external, "controls": [{**sure, **black}]}
    path = tmp_path_factory.mktemp("measured") / "model.pth"
    metrics = {**checkpoint.metrics, "report": kept}
    save_checkpoint(dataclasses.replace(checkpoint, metrics=metrics), path)
    return path


@pytest.fixture(scope="module")
def card_client(told: Path) -> FlaskClient:
    return create_app(WebConfig(told, "cpu")).test_client()


@pytest.fixture(scope="module")
def page(card_client: FlaskClient) -> str:
    response = card_client.get("/about")
    assert response.status_code == 200
    return re.sub(r"\s+", " ", response.get_data(as_text=True))


def words(page: str) -> str:
    """The page as it is read."""
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", page)))


def test_the_card_is_what_the_checkpoint_tells(card_client: FlaskClient, told: Path) -> None:
    response = card_client.get("/model")
    card = response.get_json()
    checkpoint = load_checkpoint(told)
    assert (response.status_code, response.mimetype) == (200, "application/json")
    assert card["name"] == "Identity-Mapping ResFormer"
    assert card["version"] == __version__
    assert card["sha256"] == hashlib.sha256(told.read_bytes()).hexdigest()
    assert card["classes"] == list(CLASS_NAMES)
    weights = checkpoint.build_model().parameters()
    assert card["parameters"] == sum(weight.numel() for weight in weights)
    assert card["input"]["size"] == 64
    assert card["gate"] == {"threshold": 0.5}
    assert card["temperature"] == 1.0
    assert card["metrics"] == {"test": checkpoint.metrics["test"]}
    assert card["metrics"]["test"]["accuracy"]["value"] == 0.75
    assert set(card["metrics"]["test"]["accuracy"]) == {"value", "low", "high"}
    assert card["training"]["films"] == TRAINING["films"]
    assert card["earlier_trainings"] == []
    assert card["versions"] == checkpoint.versions
    assert "not a medical device" in card["intended_use"]
    assert len(card["limitations"]) >= 4
    assert card["limits"] == {
        "max_bytes": 32 * 2**20,
        "max_pixels": 50_000_000,
        "max_files": 32,
    }


def test_what_json_cannot_hold_is_null(card_client: FlaskClient) -> None:
    response = card_client.get("/model")
    assert "Infinity" not in response.get_data(as_text=True)
    losses = [entry["validation_loss"] for entry in response.get_json()["training"]["history"]]
    assert losses == [1.2, None, 1.0]


def test_the_card_needs_the_model() -> None:
    client = create_app(WebConfig(), ModelService(Path("none.pth"))).test_client()
    response = client.get("/model")
    assert (response.status_code, response.get_json()["code"]) == (503, "model_not_ready")
    for address in ("/model", "/about"):
        response = client.get(address)
        assert response.status_code == 503
        assert int(response.headers["Retry-After"]) > 0
    assert "The model is still loading" in response.get_data(as_text=True)


@pytest.mark.parametrize(
    "text",
    [
        "not a medical device",
        "It has not been validated on patients",
        "On 4 test films that it was not trained on.",
        "95% bootstrap intervals",
        "Accuracy 75.0%",
        "Films: 8,627 train, 1,079 validation, 4 test.",
        "learning rate 0.0015",
        "64 \N{MULTIPLICATION SIGN} 64 pixels",
        "refuses pictures that score below 0.5",
        "COVID, Lung Opacity, Normal, Viral Pneumonia",
    ],
)
def test_the_page_tells_people(page: str, text: str) -> None:
    assert text in words(page)


def test_the_page_shows_what_is_called_what(page: str) -> None:
    counts = [
        [int(count) for count in re.findall(r'<td class="heat-\d">(\d+) ', row)]
        for row in re.findall(r"<tr>.*?</tr>", page)
    ]
    assert [row for row in counts if row] == [[1, 0, 1, 0], [0] * 4, [0, 0, 1, 0], [0, 0, 0, 1]]
    levels = re.findall(r'<td class="heat-(\d)">1 ', page)
    assert levels == ["2", "2", "5", "5"]
    assert "\N{EN DASH}" in words(page)  # the recall of a class without films


def test_the_plots_are_in_the_page_and_hold_no_inline_code(page: str) -> None:
    assert len(re.findall(r'<svg [^>]*role="img" aria-label="[^"]+ by epoch', page)) == 2
    assert re.findall(r"<style|\sstyle=|\son[a-z]+=|<script|javascript:|<img [^>]*http", page) == []


def test_the_page_shows_other_hospitals_and_controls(measured: Path) -> None:
    client = create_app(WebConfig(measured, "cpu")).test_client()
    page = client.get("/about").get_data(as_text=True)
    rows = [words(row).split() for row in re.findall(r"<tr>.*?</tr>", page, flags=re.DOTALL)]
    # Films, called COVID, Lung Opacity, Normal, Viral Pneumonia, refused, abstained, wrong.
    assert ["far", "clinic", "no", "finding", "1", *"100000", "100.0%"] in [r[:12] for r in rows]
    dash = "\N{EN DASH}"
    assert ["far", "clinic", "tuberculosis", "1", *"001000", dash] in rows
    text = words(page)
    assert "Away from home" in text
    auc = client.get("/model").get_json()["metrics"]["report"]["external"]
    value = auc["covid_against_no_finding"]["auc"]["value"]
    assert f"AUC: COVID against no finding, by P(COVID) {100 * value:.1f}%" in text
    black = next(row for row in rows if row[:3] == ["lungs", "blacked", "out"])
    # Of the four films that of Normal alone is still found, and there is none of Lung Opacity.
    assert (black[3], black[-6:-2]) == ("25.0%", ["0.0%", dash, "100.0%", "0.0%"])
    assert black[-2:] == ["30.0%", "75.0%"]


def test_the_page_shows_no_table_that_was_not_measured(page: str) -> None:
    assert "Away from home" not in page
    assert "What it looks at" not in page


def test_the_page_of_a_checkpoint_without_figures_says_so(client: FlaskClient) -> None:
    text = words(client.get("/about").get_data(as_text=True))
    assert "The checkpoint holds no evaluation: nobody knows how good this model is." in text
    assert "none: any picture is classified" in text


def test_the_shipped_model_has_a_page() -> None:
    client = create_app(WebConfig(device="cpu")).test_client()
    card = client.get("/model").get_json()
    text = words(client.get("/about").get_data(as_text=True))
    accuracy = card["metrics"]["test"]["accuracy"]
    assert f"Accuracy {100 * accuracy['value']:.1f}% {100 * accuracy['low']:.1f}% to" in text


def test_the_page_shows_each_training_that_was_averaged(told: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(told)
    again = {**TRAINING, "config": {"learning_rate": 0.0008}}
    mean = {"films": TRAINING["films"], "config": {}, "history": [], "initial": [TRAINING, again]}
    path = tmp_path / "mean.pth"
    save_checkpoint(dataclasses.replace(checkpoint, training=mean), path)
    client = create_app(WebConfig(path, "cpu")).test_client()
    page = client.get("/about").get_data(as_text=True)
    assert "the mean of those of 2 trainings" in words(page)
    assert page.count('<figure class="chart">') == 4
    for number, rate in enumerate((0.0015, 0.0008), start=1):
        assert f"Settings of training {number} learning rate {rate}" in words(page)


def test_what_trainings_have_in_common_is_told_once(told: Path, tmp_path: Path) -> None:
    first = {"config": {"seed": 7}, "history": []}
    branches = [{"config": {"seed": k}, "history": [], "initial": first} for k in (0, 1)]
    mean = {"config": {}, "history": [], "initial": branches}
    path = tmp_path / "mean.pth"
    save_checkpoint(dataclasses.replace(load_checkpoint(told), training=mean), path)
    card = create_app(WebConfig(path, "cpu")).test_client().get("/model").get_json()
    assert card["training"] == {"config": {}, "history": [], "averaged": False}
    assert card["earlier_trainings"] == [
        {**first, "averaged": False},
        *({"config": {"seed": k}, "history": [], "averaged": True} for k in (0, 1)),
    ]
