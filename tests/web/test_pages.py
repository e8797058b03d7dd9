"""The pages as the server sends them: self-contained, honest, and true to the checkpoint."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient

from resformer.checkpoint import load_checkpoint, save_checkpoint
from resformer.evaluation.external import ExternalFilm, evaluate_external
from resformer.evaluation.metrics import evaluate_predictions
from resformer.evaluation.predictions import Predictions
from resformer.evaluation.tables import show_name
from resformer.images import IMAGE_SUFFIXES
from tests.data_sets import CLASS_NAMES
from tests.web import checkpoints
from tests.web.posting import post_file, words
from tests.web.serving import ROOT
from web.model_card import CHART_HEIGHT, CHART_WIDTH, draw_history


@pytest.fixture
def page(client: FlaskClient) -> str:
    return client.get("/").get_data(as_text=True)


def test_page_names_the_classes_of_the_checkpoint_as_people_read_them(page: str) -> None:
    names = re.findall(r'class="bar-name">([^<]+)<', page)
    assert names == ["COVID", "Lung opacity", "Normal", "Viral pneumonia"]


@pytest.mark.parametrize(
    ("key", "read"),
    [
        ("Lung_Opacity", "Lung opacity"),
        ("Viral Pneumonia", "Viral pneumonia"),
        ("COVID-19", "COVID-19"),
        ("Mycoplasma_DNA", "Mycoplasma DNA"),
        ("learning_rate", "learning rate"),
        ("_", ""),
    ],
)
def test_classes_have_one_name_as_people_read_it(key: str, read: str) -> None:
    assert show_name(key) == read


def test_page_says_what_people_must_know(page: str) -> None:
    for sentence in (
        "Research tool, not a medical device",
        "Not a diagnosis.",
        "even for a picture that is no chest X-ray",
        "What it cannot do",
        "estimate</h2>",
        "up to 1&nbsp;MB",
        "and it does not always notice when it is given one.",
        "File names and results stay in this tab, even after a reload, until you close it or press "
        "Clear. The films themselves are lost on reload.",
        "next / previous film (also \N{RIGHTWARDS ARROW} \N{LEFTWARDS ARROW})",
    ):
        assert sentence in re.sub(r"\s+", " ", page)


def test_file_chooser_offers_every_format(page: str) -> None:
    found = re.search(r'accept="([^"]*)"', page)
    assert found
    assert set(found[1].split(",")) == IMAGE_SUFFIXES | {".dcm", ".dicom", "application/dicom"}


def test_page_is_whole_self_contained_and_free_of_inline_code(
    client: FlaskClient, page: str
) -> None:
    assert re.findall(r"<script(?![^>]*\bsrc=)", page) == []
    assert re.findall(r"<style|\sstyle=|\son[a-z]+=|javascript:", page) == []
    addresses = re.findall(r'(?:src|href|action)="([^"]+)"', page)
    assert addresses
    assert [a for a in addresses if not re.match(r"/(static/|about$|docs$|licence$|$)|#", a)] == []
    for address in {a for a in addresses if a.startswith("/static/")}:
        with client.get(address) as response:
            assert response.status_code == 200, address


def test_no_file_of_the_page_points_elsewhere() -> None:
    for path in (ROOT / "static").rglob("*"):
        if path.is_file() and "vendor" not in path.parts:
            text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
            assert not re.search(r"https?://|//cdn|@import|eval\(|innerHTML", text), path


@pytest.mark.parametrize(
    "address", ["/static/", "/static/../app.py", "/static/%2e%2e/app.py", "/uploads/", "/app.py"]
)
def test_nothing_but_the_files_under_static_is_served(client: FlaskClient, address: str) -> None:
    assert client.get(address).status_code == 404


@pytest.fixture(scope="module")
def told(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that tells of its training and of 4 test films, none of Lung_Opacity."""
    folder = tmp_path_factory.mktemp("told")
    return checkpoints.write_telling_checkpoint(tiny_checkpoint, folder / "model.pth")


@pytest.fixture(scope="module")
def measured(told: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same checkpoint with what ``python -m resformer report`` puts into it."""
    checkpoint = load_checkpoint(told)
    films = [
        ExternalFilm("far_clinic", "far_clinic/1.png", "no finding"),
        ExternalFilm("far_clinic", "far_clinic/2.png", "tuberculosis"),
        ExternalFilm("papers", "papers/1.png", "covid-19"),
        ExternalFilm("papers", "papers/2.png", "no finding"),
    ]
    none = np.zeros(4, bool)
    answers = Predictions(checkpoints.PROBABILITIES[[0, 1, 0, 2]], none, none)
    external = evaluate_external(films, answers, CLASS_NAMES, bootstrap=20)
    black = evaluate_predictions(
        checkpoints.LABELS, checkpoints.PROBABILITIES[::-1], CLASS_NAMES, bootstrap=20
    )
    sure = {"name": "lungs blacked out", "mean_confidence": 0.3, "withheld": 0.75}
    share = {"value": 0.25, "low": 0.1, "high": 0.5}
    area: dict[str, Any] = {
        "source": "clinic",
        "positive": None,
        "negative": "Normal",
        "positives": 3,
    }
    area |= {"negatives": 1, "by_positive": None, "by_negative": share}
    goal: dict[str, Any] = {
        "bound": 0.5,
        "at_least": True,
        "measured": share,
        "tried": "",
        "missed_by": 0.25,
    }
    gauges = (
        "far_clinic: tuberculosis called Lung_Opacity",
        "clinic: Viral Pneumonia against Normal",
    )
    read: dict[str, Any] = {
        "label": "COVID",
        "reading": "Negative",
        "count": 2,
        "called_as_labelled": share,
    }
    kept = {
        "external": external,
        "controls": [{**sure, **black}],
        "sources": {
            "COVID": {"clinic": {"count": 2, "recall": share, "predicted": {"Normal": 2}}},
        },
        "within_sources": {"areas": [area]},
        "traces": {"model": {"classes": {"Normal": {"auc": share}}}},
        "readings": {"contradicted": [{**read, "others": share}]},
        "goals": [{**goal, "gauge": gauge} for gauge in gauges],
        "about": {"statements": {"selection": "Seen twice ([when](a.md)), by [us](b.md)."}},
    }
    path = tmp_path_factory.mktemp("measured") / "model.pth"
    metrics = {**checkpoint.metrics, "report": kept}
    save_checkpoint(dataclasses.replace(checkpoint, metrics=metrics), path)
    return path


@pytest.fixture(scope="module")
def card_client(told: Path) -> FlaskClient:
    return checkpoints.client_of(told)


@pytest.fixture(scope="module")
def about(card_client: FlaskClient) -> str:
    response = card_client.get("/about")
    assert response.status_code == 200
    return re.sub(r"\s+", " ", response.get_data(as_text=True))


def test_the_card_is_what_the_checkpoint_tells(card_client: FlaskClient, told: Path) -> None:
    response = card_client.get("/model")
    card = response.get_json()
    checkpoint = load_checkpoint(told)
    assert (response.status_code, response.mimetype) == (200, "application/json")
    assert card["name"] == "Identity-Mapping ResFormer"
    assert card["version"] == checkpoint.source[:12]
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
    assert card["training"]["films"] == checkpoints.TRAINING["films"]
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


def test_the_card_needs_the_model(unloaded_client: FlaskClient) -> None:
    assert unloaded_client.get("/model").get_json()["code"] == "model_not_ready"
    for address in ("/model", "/about"):
        response = unloaded_client.get(address)
        assert response.status_code == 503
        assert int(response.headers["Retry-After"]) > 0
    assert "The model is still loading" in response.get_data(as_text=True)


def test_the_page_tells_people(about: str) -> None:
    told = words(about)
    for text in (
        "not a medical device",
        "It has not been validated on patients",
        "On 4 test films that it was not trained on.",
        "95% bootstrap intervals",
        "Accuracy 75.0%",
        "Films: 8,627 train, 1,079 validation, 4 test.",
        "learning rate 0.0015",
        "64 \N{MULTIPLICATION SIGN} 64 pixels",
        "refuses pictures that score below 0.5",
        "COVID, Lung opacity, Normal, Viral pneumonia",
    ):
        assert text in told
    for not_measured in ("Films from other hospitals", "What it looks at"):
        assert not_measured not in told


def test_the_page_shows_what_is_called_what(about: str) -> None:
    counts = [
        [int(count) for count in re.findall(r'<td class="heat-\d">(\d+) ', row)]
        for row in re.findall(r"<tr>.*?</tr>", about)
    ]
    assert [row for row in counts if row] == [[1, 0, 1, 0], [0] * 4, [0, 0, 1, 0], [0, 0, 0, 1]]
    levels = re.findall(r'<td class="heat-(\d)">1 ', about)
    assert levels == ["2", "2", "5", "5"]
    assert "\N{EN DASH}" in words(about)  # the recall of a class without films


def test_the_plots_are_in_the_page_and_hold_no_inline_code(about: str) -> None:
    drawn = re.findall(r'<svg [^>]*role="img" aria-label="[^"]+ by epoch: ([^"]+)"', about)
    assert drawn == ["Training and Validation", "Accuracy and Macro F1 and AUC within sources"]
    assert (
        re.findall(r"<style|\sstyle=|\son[a-z]+=|<script|javascript:|<img [^>]*http", about) == []
    )


def test_the_page_shows_other_hospitals_and_controls(measured: Path) -> None:
    client = checkpoints.client_of(measured)
    page = client.get("/about").get_data(as_text=True)
    rows = [words(row).split() for row in re.findall(r"<tr>.*?</tr>", page, flags=re.DOTALL)]
    # Films, called COVID, Lung Opacity, Normal, Viral Pneumonia, refused, abstained, wrong.
    assert ["far", "clinic", "no", "finding", "1", *"100000", "100.0%"] in [r[:12] for r in rows]
    dash = "\N{EN DASH}"
    assert ["far", "clinic", "tuberculosis", "1", *"001000", dash] in rows
    text = words(page)
    assert "Films from other hospitals" in text
    auc = client.get("/model").get_json()["metrics"]["report"]["external"]
    value = auc["covid_against_no_finding"]["auc"]["value"]
    assert f"AUC: COVID against no finding, by P(COVID) {value:.3f}" in text
    black = next(row for row in rows if row[:3] == ["lungs", "blacked", "out"])
    # Of the four films that of Normal alone is still found, and there is none of Lung Opacity.
    assert (black[3], black[-6:-2]) == ("25.0%", ["0.0%", dash, "100.0%", "0.0%"])
    assert black[-2:] == ["30.0%", "75.0%"]


def test_the_page_shows_sources_readings_and_goals(measured: Path) -> None:
    text = words(checkpoints.client_of(measured).get("/about").get_data(as_text=True))
    assert "COVID clinic 2 25.0% 10.0% to 50.0%" in text
    assert "clinic all others against Normal 3 and 1 \N{EN DASH} 0.250 0.100 to 0.500" in text
    assert "First table: what the model calls the test films of each source. Second: how" in text
    assert "of Normal films (0.5: they do not give the hospital away) 0.250 0.100" in text
    assert "COVID Negative 2 25.0%" in text
    assert (
        "far clinic: tuberculosis called Lung opacity 25.0% 10.0% to 50.0% at least 50.0% "
        "missed by 25.0 percentage points"
    ) in text
    assert (
        "clinic: Viral pneumonia against Normal 0.250 0.100 to 0.500 at least 0.500 missed by 0.250"
    ) in text
    assert "Seen twice, by us." in text


def test_few_films_are_told_with_caution_and_every_word_is_explained(measured: Path) -> None:
    page = checkpoints.client_of(measured).get("/about").get_data(as_text=True)
    text = words(page)
    assert "4 films are few: every figure here may be far off" in text
    assert "4 findings with fewer than 20 films" in text
    for term in ("specificity", "expected calibration error", "abstained", "macro-F1"):
        assert re.search(rf"<dt>[^<]*{term}[^<]*</dt><dd>\w", page), term


def test_a_page_that_is_not_there_says_so_once_and_where_to_go(client: FlaskClient) -> None:
    response = client.get("/no", headers={"Accept": "text/html"})
    text = words(response.get_data(as_text=True))
    assert response.status_code == 404
    assert text.count("There is nothing at this address") == 2  # the title and the heading
    assert "The pages of this server are named above." in text
    assert "Not Found" not in text


def test_the_drawn_sample_is_a_film(client: FlaskClient) -> None:
    sample = client.get("/sample.png")
    assert sample.mimetype == "image/png"
    assert post_file(client, sample.data).get_json()["success"] is True


def test_every_page_leads_to_the_licence(client: FlaskClient, page: str) -> None:
    assert '<a href="/licence">MIT licence</a>' in page
    licence = client.get("/licence").get_data(as_text=True)
    assert "Permission is hereby granted, free of charge" in licence


def test_the_page_of_a_checkpoint_without_figures_says_so(client: FlaskClient) -> None:
    text = words(client.get("/about").get_data(as_text=True))
    assert "The checkpoint holds no evaluation: nobody knows how good this model is." in text
    assert "none: any picture is classified" in text


def test_the_shipped_model_has_a_page() -> None:
    client = checkpoints.client_of(ROOT / "best_model.pth")
    card = client.get("/model").get_json()
    text = words(client.get("/about").get_data(as_text=True))
    accuracy = card["metrics"]["test"]["accuracy"]
    assert f"Accuracy {100 * accuracy['value']:.1f}% {100 * accuracy['low']:.1f}% to" in text
    assert f"Macro AUC {card['metrics']['test']['macro_auc']['value']:.3f} 0." in text
    for name in ("Lung_Opacity", "Viral Pneumonia", "clinic_normal"):
        assert name not in text


def test_earlier_trainings_are_told_from_the_first_on(told: Path, tmp_path: Path) -> None:
    first, second, third = ({"config": {"seed": k}, "history": []} for k in range(3))
    further = {**third, "initial": {**second, "initial": first}}
    path = tmp_path / "further.pth"
    save_checkpoint(dataclasses.replace(load_checkpoint(told), training=further), path)
    card = checkpoints.client_of(path).get("/model").get_json()
    assert card["training"] == third
    assert card["earlier_trainings"] == [first, second]


def draw(values: list[float | None], best: int | None = None) -> dict[str, Any] | None:
    history = [{"loss": value} for value in values]
    return draw_history(history, "Loss", {"Training": "loss"}, best)


def test_a_curve_runs_over_its_axes() -> None:
    chart = draw([1.0, 0.5, 0.0], best=3)
    assert chart
    places = [tuple(map(float, p.split(","))) for p in chart["curves"]["Training"].split()]
    assert {x: label for (x, _), label in zip(places, "123", strict=True)} == chart["epochs"]
    assert chart["mark"] == places[2][0]
    heights = {label: y for y, label in chart["values"].items()}
    assert [y for _, y in places] == [heights["1"], heights["0.5"], heights["0"]]
    assert all(0 <= x <= CHART_WIDTH and 0 <= y <= CHART_HEIGHT for x, y in places)


@pytest.mark.parametrize("values", [[], [1.0], [None, None], [float("nan"), float("inf")]])
def test_there_is_no_chart_without_a_curve(values: list[float | None]) -> None:
    assert draw(values) is None


@pytest.mark.parametrize("values", [[0.3, 0.3], [0.0, 0.0], [1e-9, 2e-9], [-3.0, 1e6], [0.7, None]])
def test_ticks_enclose_the_values(values: list[float | None]) -> None:
    chart = draw(values)
    assert chart
    labels = [float(label) for label in chart["values"].values()]
    known = [value for value in values if value is not None]
    assert 2 <= len(labels) <= 7
    assert labels == sorted(labels)
    assert labels[0] <= min(known) + 1e-12
    assert labels[-1] >= max(known) - 1e-12


TEXT, GRAPHIC = 4.5, 3.0
PAIRS = [
    *[("ink", back, TEXT) for back in ("page", "surface")],
    *[("muted", back, TEXT) for back in ("page", "surface")],
    *[("accent", back, TEXT) for back in ("page", "surface")],
    *[("ink", f"heat-{level}", TEXT) for level in range(4)],
    *[("on-accent", f"heat-{level}", TEXT) for level in (4, 5)],
    *[(front, "film-raised", TEXT) for front in ("film-ink", "film-muted")],
    ("film-accent", "film-raised", GRAPHIC),
    ("edge", "film-raised", GRAPHIC),
    ("edge", "surface", GRAPHIC),
    ("second", "surface", GRAPHIC),
    ("on-accent", "accent", TEXT),
    ("on-accent", "accent-hover", TEXT),
    ("danger", "danger-surface", TEXT),
    ("caution", "caution-surface", TEXT),
    ("caution", "surface", TEXT),
    ("film-ink", "film", TEXT),
    ("film-muted", "film", TEXT),
    ("film-accent", "film", GRAPHIC),
    ("edge", "film", GRAPHIC),
    ("bar", "surface", GRAPHIC),
    ("bar", "track", GRAPHIC),
    ("accent", "track", GRAPHIC),
    ("accent", "danger-surface", GRAPHIC),
    *[("focus", back, GRAPHIC) for back in ("page", "surface", "danger-surface")],
]


def read_themes() -> dict[str, dict[str, str]]:
    """Colours by name, in light and in dark."""
    text = (ROOT / "static/css/tokens.css").read_text(encoding="utf-8")
    light, dark = text.split("@media screen and (prefers-color-scheme: dark)")
    pattern = re.compile(r"--([a-z0-9-]+): (#[0-9a-f]{6});")
    return {
        "light": dict(pattern.findall(light)),
        "dark": {**dict(pattern.findall(light)), **dict(pattern.findall(dark))},
    }


def luminance(colour: str) -> float:
    """Relative luminance of ``#rrggbb`` by WCAG."""
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(first: str, second: str) -> float:
    """Contrast of two colours, from 1 to 21."""
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_computed_as_wcag_does() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(("front", "back", "needed"), PAIRS)
def test_colours_can_be_told_apart(theme: str, front: str, back: str, needed: float) -> None:
    colours = read_themes()[theme]
    assert contrast(colours[front], colours[back]) >= needed


def test_only_the_tokens_hold_colours() -> None:
    for path in (ROOT / "static/css").glob("*.css"):
        if path.name != "tokens.css":
            assert re.findall(r"#[0-9a-f]{3,8}\b", path.read_text(encoding="utf-8")) == [], path
