"""What the gate refuses: told with a score and the picture, and answered where one insists."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from flask.testing import FlaskClient
from PIL import Image

from resformer.images import decode_image
from tests.web.conftest import encode
from tests.web.gating import ACCEPTED, REFUSED, write_gated_checkpoint
from tests.web.posting import post_batch, post_file
from tests.web.test_health import figures
from web import WebConfig, create_app

FILM = encode(96)
REASON = "It does not look like an upright frontal chest X-ray."


def client_of(tiny_checkpoint: Path, folder: Path, *, accepts: bool) -> FlaskClient:
    path = write_gated_checkpoint(tiny_checkpoint, folder / "model.pth", accepts=accepts)
    return create_app(WebConfig(path, "cpu")).test_client()


@pytest.fixture
def refusing(tiny_checkpoint: Path, tmp_path: Path) -> FlaskClient:
    return client_of(tiny_checkpoint, tmp_path, accepts=False)


@pytest.fixture
def accepting(tiny_checkpoint: Path, tmp_path: Path) -> FlaskClient:
    return client_of(tiny_checkpoint, tmp_path, accepts=True)


def test_an_accepted_film_is_answered_with_its_score(accepting: FlaskClient) -> None:
    answer = post_file(accepting, FILM).get_json()
    assert answer["success"] is True
    score = answer["gate"].pop("score")
    assert score == pytest.approx(ACCEPTED, abs=1e-6)
    assert answer["gate"] == {"accepted": True, "threshold": 0.5}
    assert answer["warnings"] == []


def test_a_refused_picture_is_told_why_with_its_score_and_its_preview(
    refusing: FlaskClient,
) -> None:
    response = post_file(refusing, FILM)
    answer = response.get_json()
    picture = base64.b64decode(answer.pop("image"), validate=True)
    assert response.status_code == 422
    assert answer.pop("score") == pytest.approx(REFUSED, abs=1e-6)
    assert answer == {
        "success": False,
        "error": f"This image was not classified. {REASON}",
        "code": "not_a_chest_xray",
        "reason": REASON,
        "threshold": 0.5,
    }
    with Image.open(io.BytesIO(picture)) as preview:
        assert np.array_equal(np.asarray(preview), decode_image(FILM))


def test_the_preview_of_a_refused_picture_can_be_left_out(refusing: FlaskClient) -> None:
    response = post_file(refusing, FILM, preview="0")
    assert (response.status_code, "image" in response.get_json()) == (422, False)


@pytest.mark.parametrize("query", ["force=1", "force=true"])
def test_who_insists_gets_the_answer_with_a_warning(
    refusing: FlaskClient, client: FlaskClient, query: str
) -> None:
    response = post_file(refusing, FILM, query=query)
    answer = response.get_json()
    assert response.status_code == 200
    assert answer["prediction"] == post_file(client, FILM).get_json()["prediction"]
    assert answer["gate"]["accepted"] is False
    assert answer["gate"]["score"] == pytest.approx(REFUSED, abs=1e-6)
    assert answer["warnings"] == [
        {"code": "not_a_chest_xray", "message": f"{REASON} The estimate may mean nothing."}
    ]


def test_the_evidence_needs_insistence_too(refusing: FlaskClient) -> None:
    assert post_file(refusing, FILM, explain="1").status_code == 422
    answer = post_file(refusing, FILM, explain="1", force="1").get_json()
    assert list(answer["explanation"]) == ["class", "image", "lungs"]


def test_a_blank_picture_is_refused_for_being_blank(accepting: FlaskClient) -> None:
    buffer = io.BytesIO()
    Image.new("L", (100, 100), 90).save(buffer, "PNG")
    answer = post_file(accepting, buffer.getvalue()).get_json()
    assert answer["reason"] == "It is blank: there is no contrast in it."
    assert answer["score"] == 0.0


def test_a_refusal_in_a_batch_is_one_result_and_spoils_no_other(accepting: FlaskClient) -> None:
    buffer = io.BytesIO()
    Image.new("L", (100, 100), 90).save(buffer, "PNG")
    response = post_batch(accepting, FILM, buffer.getvalue(), FILM, preview="0")
    results = response.get_json()["results"]
    assert response.status_code == 200
    assert [result["success"] for result in results] == [True, False, True]
    assert list(results[1]) == ["success", "error", "code", "reason", "score", "threshold"]
    assert results[1]["code"] == "not_a_chest_xray"


def test_metrics_count_refusals_and_forced_answers(refusing: FlaskClient) -> None:
    post_file(refusing, FILM)
    post_batch(refusing, FILM, FILM)
    name = post_file(refusing, FILM, force="1").get_json()["prediction"]["predicted_class"]
    counted = figures(refusing)
    assert counted['resformer_refusals_total{code="not_a_chest_xray"}'] == 3
    assert counted[f'resformer_predictions_total{{class_name="{name}"}}'] == 1
    assert counted['resformer_requests_total{endpoint="/predict",status="422"}'] == 1
    assert counted['resformer_requests_total{endpoint="/predict/batch",status="200"}'] == 1


def test_the_page_promises_a_refusal_only_where_there_is_a_gate(
    client: FlaskClient, accepting: FlaskClient
) -> None:
    pages = [c.get("/").get_data(as_text=True) for c in (client, accepting)]
    words = "even for a picture that is no chest X-ray"
    assert [words in re.sub(r"\s+", " ", page) for page in pages] == [True, False]
