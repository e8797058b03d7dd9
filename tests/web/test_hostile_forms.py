"""Forms and JSON made to do harm, whatever they hold."""

from __future__ import annotations

import base64
import json

import pytest
from flask.testing import FlaskClient

from tests.web.conftest import encode
from tests.web.hostile import check
from tests.web.posting import CONTENT_TYPE, form

pytestmark = pytest.mark.usefixtures("small_app_works")


def test_thousands_of_parts_are_refused(small_client: FlaskClient) -> None:
    fields = form([], **{f"field{number}": "x" for number in range(10_000)})
    files = form([("files", "film.png", b"x")] * 10_000)
    for address in ("/predict", "/predict/batch"):
        for body in (fields, files):
            response = small_client.post(address, data=body, content_type=CONTENT_TYPE)
            assert check(response, small_client, address) == 413


@pytest.mark.parametrize(
    "body",
    [
        b"--film-boundary\r\n" + b"X: y\r\n" * 50_000 + b"\r\n\r\n--film-boundary--\r\n",
        b"--film-boundary\r\nContent-Disposition: " + b"x" * 500_000,
        b"--film-boundary\r\n" * 20_000,
        b"--film-boundary--\r\n" + bytes(500_000),
        b"\r\n" * 300_000,
        b"-" * 900_000,
        form([("file", "a" * 500_000, encode())])[:-20],
    ],
    ids=["headers", "endless header", "borders", "epilogue", "lines", "dashes", "endless part"],
)
def test_broken_forms_are_refused(small_client: FlaskClient, body: bytes) -> None:
    response = small_client.post("/predict", data=body, content_type=CONTENT_TYPE)
    assert check(response, small_client) in (400, 413)


@pytest.mark.parametrize(
    "kind",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=" + "x" * 10_000,
        "multipart/form-data; boundary=\x80",
        "application/json; charset=utf-7",
        "image/png; " + "a=b; " * 2000,
        "x" * 10_000,
        "/",
    ],
)
def test_odd_content_types_are_refused_or_read(small_client: FlaskClient, kind: str) -> None:
    check(small_client.post("/predict", data=encode(), content_type=kind), small_client)


@pytest.mark.parametrize(
    "document",
    [
        {"image": "A" * 1_390_000},
        {"image": "data:" + "a" * 900_000 + ";base64,"},
        {"image": "=" * 900_000},
        {"image": "\ud800"},
        {"image": "A", "preview": 1e308},
        {"image": {"image": {}}},
        {"class": "x" * 900_000, "image": base64.b64encode(encode()).decode()},
    ],
    ids=["large", "data URL", "padding", "surrogate", "number", "nested", "class"],
)
def test_hostile_json_is_refused(small_client: FlaskClient, document: dict[str, object]) -> None:
    body = json.dumps(document)
    response = small_client.post("/predict", data=body, content_type="application/json")
    assert 400 <= check(response, small_client) < 500
    assert len(response.data) < 2000


@pytest.mark.parametrize("body", [b"[" * 900_000, b'{"image":' * 50_000, b"9" * 900_000, b"1e999"])
def test_deep_or_long_json_is_refused(small_client: FlaskClient, body: bytes) -> None:
    response = small_client.post("/predict", data=body, content_type="application/json")
    assert check(response, small_client) == 400
