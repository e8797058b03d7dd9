"""What the model abstains from: answered with its probabilities and a warning."""

from __future__ import annotations

from pathlib import Path

import jsonschema_rs
import pytest
from flask.testing import FlaskClient

from tests.abstaining import GREATEST_DISTANCE, LEAST_CONFIDENCE, write_abstaining_checkpoint
from tests.web.conftest import encode
from tests.web.gating import write_gated_checkpoint
from tests.web.posting import post_batch, post_file
from tests.web.test_model_card import words
from web import WebConfig, create_app

FILM = encode(96)
WARNING = {
    "code": "uncertain",
    "message": "Uncertain: the model has not seen enough films like this one. "
    "Do not rely on its probabilities.",
}


def client_of(path: Path) -> FlaskClient:
    return create_app(WebConfig(path, "cpu")).test_client()


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
    assert answer["prediction"] == plain["prediction"] | {"abstained": True}
    assert plain["prediction"]["abstained"] is False


def test_other_films_have_no_warning(tiny_checkpoint: Path, tmp_path: Path) -> None:
    path = write_abstaining_checkpoint(tiny_checkpoint, tmp_path / "model.pth", abstains=False)
    answer = post_file(client_of(path), FILM).get_json()
    assert answer["prediction"]["abstained"] is False
    assert answer["warnings"] == []


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


def test_the_contract_promises_both(abstaining: FlaskClient) -> None:
    components = abstaining.get("/openapi.json").get_json()["components"]
    schemas = components["schemas"]
    assert "abstained" in schemas["Prediction"]["required"]
    assert schemas["Warning"]["properties"]["code"]["enum"] == ["not_a_chest_xray", "uncertain"]
    for name, address in (("Answer", None), ("ModelCard", "/model")):
        response = abstaining.get(address) if address else post_file(abstaining, FILM)
        whole = {"$ref": f"#/components/schemas/{name}", "components": components}
        jsonschema_rs.Draft202012Validator(whole).validate(response.get_json())


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


def test_the_page_does_not_say_that_a_class_is_always_picked_where_it_is_not(
    abstaining: FlaskClient, client: FlaskClient
) -> None:
    told, untold = (words(c.get("/").get_data(as_text=True)) for c in (abstaining, client))
    assert "The model picks one of its classes unless it is uncertain, even for" in told
    assert "The model always picks one of its classes, even for" in untold
