"""Every bad request gets its status, its code and words that name the fix; nothing leaks."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from numpy.typing import NDArray
from werkzeug.test import TestResponse

from resformer.predict import Prediction
from tests.web.conftest import encode
from tests.web.posting import CONTENT_TYPE, multipart, post_file
from web import WebConfig, create_app
from web.service import ModelService

SECRET = "Mustermann^Erika"


class FailingService(ModelService):
    """A model that fails in a way nobody foresaw, quoting what it was given."""

    def __init__(self) -> None:
        super().__init__(Path("none.pth"))

    def predict(self, pixels: NDArray[np.uint8]) -> Prediction:
        raise RuntimeError(f"cannot handle {SECRET}")


@pytest.fixture
def failing_client() -> FlaskClient:
    return create_app(WebConfig(), FailingService()).test_client()


def check_refusal(response: TestResponse, status: int, code: str, words: str) -> None:
    answer: dict[str, Any] = response.get_json()
    assert (response.status_code, answer["code"]) == (status, code)
    assert list(answer) == ["success", "error", "code"]
    assert answer["success"] is False
    assert words in answer["error"]


def test_no_file(client: FlaskClient) -> None:
    check_refusal(client.post("/predict"), 400, "no_file", "send it as “file”")
    check_refusal(post_file(client, b"x", field="image"), 400, "no_file", "“file”")
    text = multipart(b"text", "", "file").replace(b'; filename=""', b"")
    response = client.post("/predict", data=text, content_type=CONTENT_TYPE)
    check_refusal(response, 400, "no_file", "“file”")
    check_refusal(post_file(client, b"", name=""), 400, "no_file", "“file”")


def test_body_that_is_no_multipart(client: FlaskClient) -> None:
    kind = "multipart/form-data; boundary=a"
    response = client.post("/predict", data=b"--b\r\nnonsense", content_type=kind)
    check_refusal(response, 400, "no_file", "“file”")


@pytest.mark.parametrize(
    ("data", "status", "code", "words"),
    [
        (b"", 400, "empty_file", "empty"),
        (encode()[:200], 400, "unreadable_image", "damaged"),
        (b"hello", 415, "unsupported_format", "PNG, JPEG"),
        (encode(1001), 413, "image_too_large", "1,000,000"),
        (bytes(2**20 + 1), 413, "upload_too_large", "up to 1 MB"),
        (bytes(2**21), 413, "upload_too_large", "up to 1 MB"),
    ],
    ids=["empty", "truncated", "text", "pixels", "bytes", "body"],
)
def test_bad_file(client: FlaskClient, data: bytes, status: int, code: str, words: str) -> None:
    check_refusal(post_file(client, data), status, code, words)


def test_too_many_parts(client: FlaskClient) -> None:
    parts = {f"part{number}": (io.BytesIO(b"x"), "x") for number in range(20)}
    check_refusal(client.post("/predict", data=parts), 413, "upload_too_large", "too large")


def test_wrong_method_and_address(client: FlaskClient) -> None:
    response = client.get("/predict")
    check_refusal(response, 405, "method_not_allowed", "not allowed")
    assert set(response.headers["Allow"].split(", ")) == {"OPTIONS", "POST"}
    check_refusal(client.get("/predict/no"), 404, "not_found", "nothing at this address")
    asked = client.get("/no", headers={"Accept": "application/json"})
    check_refusal(asked, 404, "not_found", "nothing at this address")


def test_people_get_a_page_for_an_error(client: FlaskClient) -> None:
    response = client.get("/<b>no</b>")
    page = response.get_data(as_text=True)
    assert (response.status_code, response.mimetype) == (404, "text/html")
    assert "There is nothing at this address." in page
    assert "no</b>" not in page


def test_model_that_is_not_loaded(phantom_png: bytes) -> None:
    client = create_app(WebConfig(), ModelService(Path("none.pth"))).test_client()
    response = post_file(client, phantom_png)
    check_refusal(response, 503, "model_not_ready", "Try again in a moment")
    assert int(response.headers["Retry-After"]) > 0
    assert "still loading" in client.get("/").get_data(as_text=True)


def test_unforeseen_failure_is_generic_and_logged_without_its_words(
    failing_client: FlaskClient, phantom_png: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    response = post_file(failing_client, phantom_png)
    check_refusal(response, 500, "internal_error", "Something went wrong on the server")
    assert SECRET not in response.get_data(as_text=True)
    assert "RuntimeError" in caplog.text
    assert "in predict" in caplog.text
    assert SECRET not in caplog.text


def test_names_and_contents_of_files_are_never_logged(
    client: FlaskClient, phantom_png: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        for data in (phantom_png, phantom_png[:300] + SECRET.encode(), SECRET.encode(), b""):
            response = post_file(client, data, name=f"{SECRET}.png")
            assert SECRET not in response.get_data(as_text=True)
    assert SECRET not in caplog.text
