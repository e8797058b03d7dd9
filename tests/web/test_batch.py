"""`POST /predict/batch`: one result or error for each file, in order; none spoils another."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from numpy.typing import NDArray

from resformer.predict import Prediction
from tests.web.conftest import encode
from tests.web.posting import CONTENT_TYPE, form, post_batch, post_file
from tests.web.test_health import figures
from tests.web.test_refusals import check_refusal
from web import WebConfig, create_app
from web.service import ModelService
from web.work_queue import BusyError, TimeLimitError

FILMS = [encode(96), encode(200), encode(kind="JPEG")]
BAD_FILES: list[tuple[bytes, str]] = [
    (b"", "empty_file"),
    (b"words", "unsupported_format"),
    (FILMS[0][:200], "unreadable_image"),
    (encode(1001), "image_too_large"),
    (bytes(2**20 + 1), "upload_too_large"),
]


@pytest.fixture
def client(tiny_checkpoint: Path) -> FlaskClient:
    config = WebConfig(tiny_checkpoint, "cpu", max_bytes=2**20, max_pixels=10**6, max_files=4)
    return create_app(config).test_client()


def codes(response: Any) -> list[str]:
    return [result.get("code", "") for result in response.get_json()["results"]]


def test_every_file_gets_what_it_would_get_alone_in_order(client: FlaskClient) -> None:
    response = post_batch(client, *FILMS)
    alone = [post_file(client, film).get_json() for film in FILMS]
    assert response.status_code == 200
    assert response.get_json() == {"success": True, "results": alone}


@pytest.mark.parametrize(("data", "code"), BAD_FILES, ids=[code for _, code in BAD_FILES])
def test_a_bad_file_spoils_no_other(client: FlaskClient, data: bytes, code: str) -> None:
    response = post_batch(client, FILMS[0], data, FILMS[1])
    assert response.status_code == 200
    first, bad, last = response.get_json()["results"]
    assert bad == post_file(client, data).get_json()
    assert (bad["success"], bad["code"]) == (False, code)
    assert first == post_file(client, FILMS[0]).get_json()
    assert last == post_file(client, FILMS[1]).get_json()


def test_options_hold_for_all_files(client: FlaskClient) -> None:
    answer = post_batch(client, *FILMS[:2], query="preview=0&explain=1", **{"class": "Normal"})
    for result in answer.get_json()["results"]:
        assert "image" not in result
        assert result["explanation"]["class"] == "Normal"


def test_the_number_of_files_is_bounded(client: FlaskClient) -> None:
    assert len(post_batch(client, *[FILMS[0]] * 4).get_json()["results"]) == 4
    for number in (5, 60):
        response = post_batch(client, *[FILMS[0]] * number)
        check_refusal(response, 413, "too_many_files", "up to 4 can be sent at once")


def test_a_batch_that_is_too_large_as_a_whole_is_refused(client: FlaskClient) -> None:
    response = post_batch(client, *[bytes(2**20)] * 2)
    check_refusal(response, 413, "upload_too_large", "up to 1 MB")


def test_a_batch_without_files_is_refused(client: FlaskClient) -> None:
    check_refusal(client.post("/predict/batch"), 400, "no_file", "send it as “files”")
    body = form([("file", "film.png", FILMS[0])])
    response = client.post("/predict/batch", data=body, content_type=CONTENT_TYPE)
    check_refusal(response, 400, "no_file", "send it as “files”")


@pytest.mark.parametrize("kind", ["application/json", "image/png", "text/plain"])
def test_a_batch_is_a_form(client: FlaskClient, kind: str) -> None:
    response = client.post("/predict/batch", data=b"{}", content_type=kind)
    check_refusal(response, 415, "unsupported_media_type", "each as “files”")


def test_a_batch_is_counted_by_file(client: FlaskClient) -> None:
    post_batch(client, FILMS[0], b"words", b"", FILMS[1])
    counted = figures(client)
    classes = [name for name in counted if name.startswith("resformer_predictions_total")]
    assert sum(counted[name] for name in classes) == 2
    assert counted['resformer_refusals_total{code="unsupported_format"}'] == 1
    assert counted['resformer_refusals_total{code="empty_file"}'] == 1
    assert counted['resformer_requests_total{endpoint="/predict/batch",status="200"}'] == 1


class FailingService(ModelService):
    """A model that fails on its second film."""

    def __init__(self, path: Path, error: Exception) -> None:
        super().__init__(path, "cpu")
        self.load()
        self._error = error
        self._asked = 0

    def predict(self, pixels: NDArray[np.uint8]) -> Prediction:
        self._asked += 1
        if self._asked == 2:
            raise self._error
        return super().predict(pixels)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RuntimeError("secret"), "internal_error"),
        (BusyError(), "busy"),
        (TimeLimitError(), "timeout"),
    ],
)
def test_a_failure_of_the_server_spoils_no_other_file(
    tiny_checkpoint: Path, error: Exception, code: str
) -> None:
    client = create_app(WebConfig(), FailingService(tiny_checkpoint, error)).test_client()
    response = post_batch(client, *FILMS)
    assert response.status_code == 200
    assert codes(response) == ["", code, ""]
    assert "secret" not in response.get_data(as_text=True)


class StuckService(ModelService):
    """A model that answers its first film no sooner than it is told to."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "cpu")
        self.load()
        self.asked = 0
        self.may_answer = threading.Event()

    def predict(self, pixels: NDArray[np.uint8]) -> Prediction:
        self.asked += 1
        self.may_answer.wait()
        return super().predict(pixels)


def test_all_files_together_have_the_time_of_one_request(tiny_checkpoint: Path) -> None:
    service = StuckService(tiny_checkpoint)
    client = create_app(WebConfig(time_limit=1), service).test_client()
    response = post_batch(client, *FILMS)
    service.may_answer.set()
    assert response.status_code == 200
    assert codes(response) == ["timeout"] * 3
    assert service.asked == 1


def test_a_server_that_is_busy_before_it_begins_refuses_the_batch(tiny_checkpoint: Path) -> None:
    service = FailingService(tiny_checkpoint, BusyError())
    client = create_app(WebConfig(), service).test_client()
    assert post_file(client, FILMS[0]).status_code == 200
    response = post_batch(client, *FILMS)
    check_refusal(response, 503, "busy", "Try again")
    assert response.headers["Retry-After"] == "1"


def test_a_model_that_is_not_loaded_refuses_the_batch() -> None:
    client = create_app(WebConfig(), ModelService(Path("none.pth"))).test_client()
    response = post_batch(client, *FILMS)
    check_refusal(response, 503, "model_not_ready", "Try again")


def test_files_of_a_batch_reach_no_disk_and_are_closed(app: Flask) -> None:
    opened: list[io.BytesIO] = []

    class Noted(app.request_class):  # type: ignore[name-defined,misc]
        def _get_file_stream(self, *arguments: Any, **names: Any) -> io.BytesIO:
            stream: io.BytesIO = super()._get_file_stream(*arguments, **names)
            opened.append(stream)
            return stream

    app.request_class = Noted
    assert codes(post_batch(app.test_client(), *FILMS, b"words")) == [
        "",
        "",
        "",
        "unsupported_format",
    ]
    assert len(opened) == 4
    assert all(type(stream) is io.BytesIO and stream.closed for stream in opened)
