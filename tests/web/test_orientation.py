"""A film that is inverted or not upright: the refusal says so, and the options put it right."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from flask.testing import FlaskClient
from PIL import Image

from resformer.orientation import Correction
from resformer.phantom import draw_chest_phantom
from tests.data_sets import encode
from tests.web.checkpoints import client_of, write_upright_checkpoint
from tests.web.posting import post_batch, post_file
from web import WebConfig, create_app

# Wider than it is high, so that a quarter turn shows in its sides.
FILM = draw_chest_phantom(120)[12:108]
HOWS = [
    (Correction(invert=True), "inverted", Correction(invert=True)),
    (Correction(rotate=90), "sideways", Correction(rotate=270)),
    (Correction(rotate=270), "sideways", Correction(rotate=90)),
    (Correction(rotate=180), "upside_down", Correction(rotate=180)),
    (Correction(True, 90), "inverted_sideways", Correction(True, 270)),
    (Correction(True, 180), "inverted_upside_down", Correction(True, 180)),
]


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("upright") / "model.pth"
    return write_upright_checkpoint(tiny_checkpoint, path, FILM)


@pytest.fixture(scope="module")
def client(model: Path) -> FlaskClient:
    return client_of(model)


@pytest.mark.parametrize(("done", "name", "cure"), HOWS)
def test_the_refusal_names_what_is_wrong_and_its_options_put_it_right(
    client: FlaskClient, done: Correction, name: str, cure: Correction
) -> None:
    file = encode(done.apply(FILM))
    response = post_file(client, file)
    refusal = response.get_json()
    assert (response.status_code, refusal["code"]) == (422, "not_a_chest_xray")
    assert refusal["orientation"] == name
    assert refusal["correction"] == {"invert": cure.invert, "rotate": cure.rotate}
    options = {"invert": str(int(cure.invert)), "rotate": str(cure.rotate)}
    answer = post_file(client, file, **options).get_json()
    upright = post_file(client, encode(FILM)).get_json()
    assert answer == upright
    assert (answer["gate"]["orientation"], answer["gate"]["correction"]) == (None, None)


def test_the_refusal_says_it_in_words(client: FlaskClient) -> None:
    refusal = post_file(client, encode(Correction(True, 180).apply(FILM))).get_json()
    assert refusal["reason"] == "It looks like a chest X-ray that is inverted and upside down."
    assert refusal["error"] == f"This image was not classified. {refusal['reason']}"


def test_what_is_asked_for_wrongly_is_put_right_from_the_file_as_it_is(
    client: FlaskClient,
) -> None:
    file = encode(Correction(rotate=90).apply(FILM))
    refusal = post_file(client, file, query="rotate=90&invert=1").get_json()
    assert refusal["orientation"] == "inverted_upside_down"
    assert refusal["correction"] == {"invert": False, "rotate": 270}
    picture = base64.b64decode(refusal["image"])
    with Image.open(io.BytesIO(picture)) as preview:
        assert np.array_equal(np.asarray(preview), Correction(True, 180).apply(FILM))


def test_the_evidence_is_that_for_the_film_put_right(client: FlaskClient) -> None:
    file = encode(Correction(rotate=90).apply(FILM))
    turned = post_file(client, file, query="rotate=270&explain=1").get_json()
    upright = post_file(client, encode(FILM), explain="1").get_json()
    assert turned["explanation"] == upright["explanation"]


def test_a_forced_answer_tells_it_too(client: FlaskClient) -> None:
    answer = post_file(client, encode(Correction(rotate=180).apply(FILM)), force="1").get_json()
    assert (answer["success"], answer["gate"]["orientation"]) == (True, "upside_down")
    assert answer["gate"]["correction"] == {"invert": False, "rotate": 180}
    told = "It looks like a chest X-ray that is upside down. The estimate may mean nothing."
    assert [warning["message"] for warning in answer["warnings"]] == [told]


def test_each_film_of_a_batch_has_its_own(client: FlaskClient) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (100, 100), dtype=np.uint8)
    files = [encode(film) for film in (Correction(invert=True).apply(FILM), noise, FILM[:, ::-1])]
    results = post_batch(client, *files, preview="0").get_json()["results"]
    assert [result.get("orientation") for result in results[:2]] == ["inverted", None]
    assert results[1]["reason"] == "It does not look like an upright frontal chest X-ray."
    turned = post_batch(client, files[0], query="invert=1", preview="0").get_json()["results"]
    assert turned[0]["success"] is True


def test_what_is_kept_is_kept_upright(model: Path, tmp_path: Path) -> None:
    config = WebConfig(model, "cpu", keep_feedback=True, uploads_path=tmp_path)
    giver = create_app(config).test_client()
    file = encode(Correction(rotate=90).apply(FILM))
    refusal = post_file(giver, file, address="/feedback", **{"class": "COVID"}).get_json()
    assert refusal["correction"] == {"invert": False, "rotate": 270}
    fields = {"class": "COVID", "rotate": "270"}
    assert post_file(giver, file, address="/feedback", **fields).status_code == 200
    (kept,) = (tmp_path / "COVID").glob("*.png")
    with Image.open(kept) as picture:
        assert np.array_equal(np.asarray(picture), FILM)
