"""Every bad request gets its status, its code and words that name the fix; nothing leaks."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Sequence

import pytest
from flask.testing import FlaskClient
from pydicom.uid import JPEGLosslessSV1

from resformer.phantom import draw_chest_phantom
from resformer.predict import Prediction
from tests.dicom_files import radiograph, write
from tests.web import posting
from web import create_app
from web.batching import Pixels
from web.service import ModelService

SECRET = "Mustermann^Erika"
BAD_FILES = [
    (b"", 400, "empty_file", "empty"),
    (posting.encode()[:200], 400, "unreadable_image", "damaged"),
    (b"hello", 415, "unsupported_format", "PNG, JPEG"),
    (posting.encode(1001), 413, "image_too_large", "1,000,000"),
    (bytes(2**20 + 1), 413, "upload_too_large", "up to 1 MB"),
    (bytes(2**21), 413, "upload_too_large", "up to 1 MB"),
]
BAD_NAMES = ["empty", "truncated", "text", "pixels", "bytes", "body"]


def test_no_file(client: FlaskClient) -> None:
    field = posting.multipart(b"text", "").replace(b'; filename=""', b"")
    kind = "multipart/form-data; boundary=a"
    for response in (
        client.post("/predict"),
        posting.post_file(client, b"x", field="image"),
        posting.post_file(client, b"", name=""),
        client.post("/predict", data=field, content_type=posting.CONTENT_TYPE),
        client.post("/predict", data=b"--b\r\nnonsense", content_type=kind),
    ):
        posting.check_refusal(response, 400, "no_file", "send it as “file”")


@pytest.mark.parametrize(("data", "status", "code", "words"), BAD_FILES, ids=BAD_NAMES)
def test_bad_file(client: FlaskClient, data: bytes, status: int, code: str, words: str) -> None:
    posting.check_refusal(posting.post_file(client, data), status, code, words)
    raw = client.post("/predict", data=data, content_type="image/png")
    posting.check_refusal(raw, status, code, words)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "video/mp4"])
def test_a_content_type_that_holds_no_image_is_refused(client: FlaskClient, kind: str) -> None:
    response = client.post("/predict", data=posting.encode(), content_type=kind)
    posting.check_refusal(response, 415, "unsupported_media_type", "application/dicom")


def test_too_many_parts(client: FlaskClient) -> None:
    parts = {f"part{number}": (io.BytesIO(b"x"), "x") for number in range(20)}
    posting.check_refusal(client.post("/predict", data=parts), 413, "upload_too_large", "too large")


def test_wrong_method_and_address(client: FlaskClient) -> None:
    response = client.get("/predict")
    posting.check_refusal(response, 405, "method_not_allowed", "Use POST at this address")
    assert set(response.headers["Allow"].split(", ")) == {"OPTIONS", "POST"}
    posting.check_refusal(client.get("/predict/no"), 404, "not_found", "nothing at this address")
    for kinds in ("application/json", "*/*", ""):
        asked = client.get("/no", headers={"Accept": kinds})
        posting.check_refusal(asked, 404, "not_found", "nothing at this address")


def test_people_get_a_page_for_an_error(client: FlaskClient) -> None:
    of_a_browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
    response = client.get("/<b>no</b>", headers={"Accept": of_a_browser})
    page = response.get_data(as_text=True)
    assert (response.status_code, response.mimetype) == (404, "text/html")
    assert "There is nothing at this address" in page
    assert "no</b>" not in page


def test_model_that_is_not_loaded(unloaded_client: FlaskClient) -> None:
    response = posting.post_file(unloaded_client, posting.encode())
    posting.check_refusal(response, 503, "model_not_ready", "Try again in a moment")
    assert int(response.headers["Retry-After"]) > 0
    assert "still loading" in unloaded_client.get("/").get_data(as_text=True)


def test_a_decoder_that_is_missing_is_not_the_films_fault(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    compressed = write(radiograph(draw_chest_phantom(96)), JPEGLosslessSV1)
    monkeypatch.setattr(sys, "executable", "no-such-python")
    monkeypatch.delattr("PIL.Image.core.jpeg_decoder")
    for data in (compressed, posting.encode(kind="JPEG")):
        caplog.clear()
        refused = posting.post_file(client, data)
        posting.check_refusal(refused, 503, "decoder_unavailable", "cannot be decoded here")
        assert int(refused.headers["Retry-After"]) > 0
        assert [record.levelname for record in caplog.records].count("ERROR") == 1
        (result,) = posting.post_batch(client, data).get_json()["results"]
        assert result["code"] == "decoder_unavailable"
    assert posting.post_file(client, posting.encode()).status_code == 200


def test_unforeseen_failure_is_generic_and_logged_without_its_words(
    monkeypatch: pytest.MonkeyPatch, loaded: ModelService, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(films: Sequence[Pixels]) -> list[Prediction]:
        raise RuntimeError(f"cannot handle {SECRET}")

    monkeypatch.setattr(loaded, "predict", fail)
    response = posting.post_file(create_app(service=loaded).test_client(), posting.encode())
    posting.check_refusal(response, 500, "internal_error", "Something went wrong on the server")
    assert SECRET not in response.get_data(as_text=True)
    assert "RuntimeError" in caplog.text
    assert "in predict" in caplog.text
    assert SECRET not in caplog.text


def test_names_and_contents_of_files_are_never_logged(
    client: FlaskClient, phantom_png: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        for data in (phantom_png, phantom_png[:300] + SECRET.encode(), SECRET.encode(), b""):
            response = posting.post_file(client, data, name=f"{SECRET}.png")
            assert SECRET not in response.get_data(as_text=True)
    assert SECRET not in caplog.text
