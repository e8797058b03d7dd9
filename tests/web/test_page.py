"""The page as the server sends it: self-contained, honest and free of inline code."""

from __future__ import annotations

import re

import pytest
from flask.testing import FlaskClient

from resformer.images import IMAGE_SUFFIXES
from tests.web.serving import ROOT
from web.pages import display_name


@pytest.fixture
def page(client: FlaskClient) -> str:
    return client.get("/").get_data(as_text=True)


def test_page_names_the_classes_of_the_checkpoint_as_people_read_them(page: str) -> None:
    names = re.findall(r'class="bar-name">([^<]+)<', page)
    assert names == ["COVID", "Lung Opacity", "Normal", "Viral Pneumonia"]


def test_display_name_only_turns_underscores_into_spaces() -> None:
    assert display_name("Lung_Opacity") == "Lung Opacity"
    assert display_name("COVID-19") == "COVID-19"


@pytest.mark.parametrize(
    "words",
    [
        "Research tool, not a medical device",
        "Not a diagnosis.",
        "even for a picture that is no chest X-ray",
        "What it cannot do",
        "estimate</h2>",
        "up to 1&nbsp;MB",
    ],
)
def test_page_says_what_people_must_know(page: str, words: str) -> None:
    assert words in re.sub(r"\s+", " ", page)


def test_file_chooser_offers_every_format(page: str) -> None:
    found = re.search(r'accept="([^"]*)"', page)
    assert found
    assert set(found[1].split(",")) == IMAGE_SUFFIXES | {".dcm", ".dicom", "application/dicom"}


def test_page_is_self_contained_and_free_of_inline_code(page: str) -> None:
    assert re.findall(r"<script(?![^>]*\bsrc=)", page) == []
    assert re.findall(r"<style|\sstyle=|\son[a-z]+=|javascript:", page) == []
    addresses = re.findall(r'(?:src|href|action)="([^"]+)"', page)
    assert addresses
    assert [a for a in addresses if not re.match(r"/(static/|about$|docs$|$)|#", a)] == []


def test_everything_the_page_needs_is_there(client: FlaskClient, page: str) -> None:
    for address in set(re.findall(r'(?:src|href)="(/static/[^"]+)"', page)):
        with client.get(address) as response:
            assert response.status_code == 200, address


def test_no_file_of_the_page_points_elsewhere() -> None:
    for path in (ROOT / "static").rglob("*"):
        if path.is_file():
            text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
            assert not re.search(r"https?://|//cdn|@import|eval\(|innerHTML", text), path


@pytest.mark.parametrize("address", ["/", "/no", "/predict", "/static/js/main.js"])
def test_every_answer_carries_the_security_headers(client: FlaskClient, address: str) -> None:
    with client.get(address) as response:
        headers = response.headers
    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Frame-Options"] == "DENY"
    assert "Set-Cookie" not in headers


def test_answers_about_an_image_are_not_cached(client: FlaskClient) -> None:
    assert client.post("/predict").headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "address", ["/static/", "/static/../app.py", "/static/%2e%2e/app.py", "/uploads/", "/app.py"]
)
def test_nothing_but_the_files_under_static_is_served(client: FlaskClient, address: str) -> None:
    assert client.get(address).status_code == 404
