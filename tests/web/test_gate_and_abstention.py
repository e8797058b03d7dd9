"""What the gate refuses and what the model abstains from: told, and answered on request."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from flask.testing import FlaskClient
from PIL import Image

from resformer.images import decode_image
from resformer.phantom import draw_chest_phantom
from tests import data_sets
from tests.dicom_files import radiograph, write
from tests.web.checkpoints import (
    ACCEPTED,
    GREATEST_DISTANCE,
    LEAST_CONFIDENCE,
    REFUSED,
    client_of,
    write_abstaining_checkpoint,
    write_gated_checkpoint,
    write_recorded_checkpoint,
)
from tests.web.posting import encode, figures, post_batch, post_file, words

FILM = encode(96)
REASON = "It does not look like an upright frontal chest X-ray."
WARNING = {
    "code": "uncertain",
    "message": "The classes are close, and none stands out. Read this as undecided.",
}


def encode_blank() -> bytes:
    return data_sets.encode(np.full((100, 100), 90, np.uint8))


@pytest.fixture
def refusing(tiny_checkpoint: Path, tmp_path: Path) -> FlaskClient:
    path = tmp_path / "model.pth"
    return client_of(write_gated_checkpoint(tiny_checkpoint, path, accepts=False))


@pytest.fixture
def accepting(tiny_checkpoint: Path, tmp_path: Path) -> FlaskClient:
    path = tmp_path / "model.pth"
    return client_of(write_gated_checkpoint(tiny_checkpoint, path, accepts=True))


def test_an_accepted_film_is_answered_with_its_score(accepting: FlaskClient) -> None:
    answer = post_file(accepting, FILM).get_json()
    assert answer["success"] is True
    score = answer["gate"].pop("score")
    assert score == pytest.approx(ACCEPTED, abs=1e-6)
    assert answer["gate"] == {
        "accepted": True,
        "threshold": 0.5,
        "orientation": None,
        "correction": None,
    }
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
        "orientation": None,
        "correction": None,
        "dicom": None,
    }
    with Image.open(io.BytesIO(picture)) as preview:
        assert np.array_equal(np.asarray(preview), decode_image(FILM))


def test_a_refused_dicom_is_told_how_it_was_made(
    refusing: FlaskClient, client: FlaskClient
) -> None:
    film = write(radiograph(draw_chest_phantom(120)[12:108], PixelSpacing=[0.2, 0.1]))
    accepted, refused = (post_file(one, film, rotate="90").get_json() for one in (client, refusing))
    assert refused["code"] == "not_a_chest_xray"
    assert refused["dicom"] == accepted["dicom"]
    assert refused["dicom"]["size"] == [120, 96]


def test_who_insists_gets_answer_and_evidence_with_a_warning(
    refusing: FlaskClient, client: FlaskClient
) -> None:
    refused = post_file(refusing, FILM, explain="1", preview="0")
    assert (refused.status_code, "image" in refused.get_json()) == (422, False)
    response = post_file(refusing, FILM, query="force=true&explain=1")
    answer = response.get_json()
    assert response.status_code == 200
    assert answer["prediction"] == post_file(client, FILM).get_json()["prediction"]
    assert answer["gate"]["accepted"] is False
    assert answer["gate"]["score"] == pytest.approx(REFUSED, abs=1e-6)
    warning = f"{REASON} The estimate may mean nothing."
    assert answer["warnings"] == [{"code": "not_a_chest_xray", "message": warning}]
    assert list(answer["explanation"]) == ["class", "image", "lungs"]


def test_a_blank_picture_in_a_batch_is_refused_for_being_blank_and_spoils_no_other(
    accepting: FlaskClient,
) -> None:
    response = post_batch(accepting, FILM, encode_blank(), FILM, preview="0")
    results = response.get_json()["results"]
    assert response.status_code == 200
    assert [result["success"] for result in results] == [True, False, True]
    parts = "index name success error code reason score threshold orientation correction dicom"
    assert list(results[1]) == parts.split()
    assert results[1]["code"] == "not_a_chest_xray"
    assert results[1]["reason"] == "It is blank: there is no contrast in it."
    assert results[1]["score"] == 0.0


def test_metrics_count_refusals_and_forced_answers(refusing: FlaskClient) -> None:
    post_file(refusing, FILM)
    post_batch(refusing, FILM, FILM)
    name = post_file(refusing, FILM, force="1").get_json()["prediction"]["predicted_class"]
    counted = figures(refusing)
    assert counted['resformer_refusals_total{code="not_a_chest_xray"}'] == 3
    assert counted[f'resformer_predictions_total{{class_name="{name}"}}'] == 1
    assert counted['resformer_requests_total{endpoint="/predict",status="422"}'] == 1
    assert counted['resformer_requests_total{endpoint="/predict/batch",status="200"}'] == 1


@pytest.fixture
def abstaining(tiny_checkpoint: Path, tmp_path: Path) -> FlaskClient:
    return client_of(write_abstaining_checkpoint(tiny_checkpoint, tmp_path / "model.pth"))


def test_a_film_that_is_abstained_on_has_its_probabilities_and_a_warning(
    abstaining: FlaskClient, client: FlaskClient
) -> None:
    response = post_file(abstaining, FILM)
    answer, plain = response.get_json(), post_file(client, FILM).get_json()
    assert response.status_code == 200
    assert answer["warnings"] == [WARNING]
    assert answer["prediction"] == plain["prediction"] | {
        "abstained": True,
        "reason": "undecided",
    }
    assert (plain["prediction"]["abstained"], plain["prediction"]["reason"]) == (False, None)


def test_too_few_films_are_spoken_of_only_where_the_film_is_unfamiliar(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    path = write_abstaining_checkpoint(tiny_checkpoint, tmp_path / "model.pth", "unfamiliar")
    answer = post_file(client_of(path), FILM).get_json()
    assert answer["prediction"]["reason"] == "unfamiliar"
    (warning,) = answer["warnings"]
    assert warning["code"] == "uncertain"
    assert "has not seen enough films like this one" in warning["message"]
    write_abstaining_checkpoint(tiny_checkpoint, path, None)
    answer = post_file(client_of(path), FILM).get_json()
    assert (answer["prediction"]["abstained"], answer["warnings"]) == (False, [])


def test_the_track_record_of_the_class_is_told_but_not_beside_a_warning(
    tiny_checkpoint: Path, client: FlaskClient, tmp_path: Path
) -> None:
    path = write_recorded_checkpoint(tiny_checkpoint, tmp_path / "model.pth")
    answer = post_file(client_of(path), FILM).get_json()
    assert answer["prediction"]["track_record"] == {"called": 9, "right": 7}
    both = write_abstaining_checkpoint(path, tmp_path / "both.pth")
    assert post_file(client_of(both), FILM).get_json()["prediction"]["track_record"] is None
    assert post_file(client, FILM).get_json()["prediction"]["track_record"] is None


def test_each_film_of_a_batch_says_it_for_itself(abstaining: FlaskClient) -> None:
    results = post_batch(abstaining, FILM, b"", FILM).get_json()["results"]
    assert [result.get("warnings") for result in results] == [[WARNING], None, [WARNING]]


def test_who_insists_against_the_gate_gets_both_warnings(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    gated = write_gated_checkpoint(tiny_checkpoint, tmp_path / "gated.pth", accepts=False)
    client = client_of(write_abstaining_checkpoint(gated, tmp_path / "model.pth"))
    assert post_file(client, FILM).status_code == 422
    warnings = post_file(client, FILM, force="1").get_json()["warnings"]
    assert [warning["code"] for warning in warnings] == ["not_a_chest_xray", "uncertain"]
    assert warnings[1] == WARNING


def test_the_card_and_its_page_tell_the_thresholds(
    abstaining: FlaskClient, client: FlaskClient
) -> None:
    assert abstaining.get("/model").get_json()["abstention"] == {
        "least_confidence": LEAST_CONFIDENCE,
        "greatest_distance": GREATEST_DISTANCE,
    }
    assert client.get("/model").get_json()["abstention"] is None
    told, untold = (words(c.get("/about").get_data(as_text=True)) for c in (abstaining, client))
    assert "the most probable class has less than 100.0%" in told
    assert "more than 1,234.5 standard deviations from those of every class" in told
    assert "none: the model answers for any film" in untold


def test_the_page_promises_what_the_model_does(
    abstaining: FlaskClient, client: FlaskClient, accepting: FlaskClient
) -> None:
    told, untold, gated = (
        words(c.get("/").get_data(as_text=True)) for c in (abstaining, client, accepting)
    )
    assert "The model picks one of its classes unless it is uncertain, even for" in told
    assert "The model always picks one of its classes, even for" in untold
    promise = "even for a picture that is no chest X-ray"
    assert [promise in page for page in (untold, gated)] == [True, False]
