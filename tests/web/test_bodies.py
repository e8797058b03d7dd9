"""The forms in which an image may come: a form, the body itself, JSON."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.test import TestResponse

from tests.dicom_files import radiograph, write
from tests.phantom import draw_chest_phantom
from tests.web.conftest import encode
from tests.web.posting import post_file
from tests.web.test_refusals import check_refusal

FILM = encode(96)
TEXT = base64.b64encode(FILM).decode()


def post_json(client: FlaskClient, content: object) -> TestResponse:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return client.post("/predict", data=body, content_type="application/json")


@pytest.fixture
def expected(client: FlaskClient) -> Any:
    return post_file(client, FILM).get_json()


@pytest.mark.parametrize(
    "kind", ["image/png", "image/x-whatever", "application/octet-stream", "application/dicom", None]
)
def test_the_body_may_be_the_image_whatever_its_type_says(
    client: FlaskClient, expected: Any, kind: str | None
) -> None:
    response = client.post("/predict", data=FILM, content_type=kind)
    assert (response.status_code, response.get_json()) == (200, expected)


def test_the_body_may_be_dicom_and_its_preview_goes_back(client: FlaskClient) -> None:
    film = draw_chest_phantom(96)
    data = write(radiograph(film, PatientName="Mustermann^Erika"))
    response = client.post("/predict", data=data, content_type="application/dicom")
    assert response.status_code == 200
    with Image.open(io.BytesIO(base64.b64decode(response.get_json()["image"]))) as preview:
        assert preview.format == "PNG"
        assert np.array_equal(np.asarray(preview), film)
    assert b"Mustermann" not in response.data


@pytest.mark.parametrize("start", ["", "data:image/png;base64,", "data:;base64,"])
def test_json_may_hold_the_image_as_base64_or_data_url(
    client: FlaskClient, expected: Any, start: str
) -> None:
    response = post_json(client, {"image": start + TEXT})
    assert (response.status_code, response.get_json()) == (200, expected)


@pytest.mark.parametrize(
    ("content", "status", "code", "words"),
    [
        ({}, 400, "no_file", "send it as “image”"),
        ({"image": ""}, 400, "no_file", "send it as “image”"),
        ({"image": None}, 400, "no_file", "send it as “image”"),
        ({"image": 5}, 400, "bad_base64", "must be base64"),
        ({"image": [TEXT]}, 400, "bad_base64", "must be base64"),
        ({"image": "%%%"}, 400, "bad_base64", "must be base64"),
        ({"image": TEXT[:-1]}, 400, "bad_base64", "padded"),
        ({"image": TEXT[:40] + "\n" + TEXT[40:]}, 400, "bad_base64", "without line breaks"),
        ({"image": "data:image/png," + TEXT}, 400, "bad_base64", "data URL"),
        ({"image": "data:image/png;base64,"}, 400, "empty_file", "empty"),
        ({"image": base64.b64encode(b"words").decode()}, 415, "unsupported_format", "PNG, JPEG"),
        ({"image": base64.b64encode(bytes(2**20 + 1)).decode()}, 413, "upload_too_large", "1 MB"),
        ([TEXT], 400, "bad_request", "small JSON object"),
        (TEXT, 400, "bad_request", "small JSON object"),
        (b"", 400, "bad_request", "small JSON object"),
        (b'{"image": ', 400, "bad_request", "small JSON object"),
        (b"\xff\xfe{}", 400, "bad_request", "small JSON object"),
        (b"[" * 100_000, 400, "bad_request", "small JSON object"),
        (b'{"a":' * 90 + b"1" + b"}" * 90, 400, "no_file", "“image”"),
        (b'{"image": [' + b"[]," * 50_000 + b"[]]}", 400, "bad_request", "small JSON object"),
    ],
    ids=lambda value: str(value)[:24] if isinstance(value, bytes | dict) else None,
)
def test_bad_json(client: FlaskClient, content: object, status: int, code: str, words: str) -> None:
    check_refusal(post_json(client, content), status, code, words)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "video/mp4"])
def test_a_content_type_that_holds_no_image_is_refused(client: FlaskClient, kind: str) -> None:
    response = client.post("/predict", data=FILM, content_type=kind)
    check_refusal(response, 415, "unsupported_media_type", "application/dicom")


def test_an_empty_body_is_an_empty_file(client: FlaskClient) -> None:
    response = client.post("/predict", data=b"", content_type="image/png")
    check_refusal(response, 400, "empty_file", "empty")


def test_a_body_that_is_too_large_is_refused(client: FlaskClient) -> None:
    for size in (2**20 + 1, 2**21):
        response = client.post("/predict", data=bytes(size), content_type="image/png")
        check_refusal(response, 413, "upload_too_large", "up to 1 MB")
