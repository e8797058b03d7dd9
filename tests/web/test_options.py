"""What a client may choose: in the query, in a form, in JSON."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from flask.testing import FlaskClient
from numpy.typing import NDArray
from PIL import Image

from resformer.explanation import encode_overlay, evidence_map
from resformer.images import decode_image
from resformer.predict import Predictor
from tests.web.conftest import encode
from tests.web.posting import post_batch, post_file
from tests.web.test_refusals import check_refusal
from web import WebConfig, create_app
from web.service import ModelService

FILM = encode(96)
NAMES = "COVID, Lung_Opacity, Normal, Viral Pneumonia"


@pytest.mark.parametrize("value", ["0", "false"])
def test_the_preview_can_be_left_out(client: FlaskClient, value: str) -> None:
    full = post_file(client, FILM).get_json()
    without = {name: full[name] for name in full if name != "image"}
    assert post_file(client, FILM, query=f"preview={value}").get_json() == without
    assert post_file(client, FILM, preview=value).get_json() == without


def test_json_takes_options_as_true_and_false(client: FlaskClient) -> None:
    text = base64.b64encode(FILM).decode()
    for value, is_there in ((False, False), (0, False), ("0", False), (True, True)):
        body = json.dumps({"image": text, "preview": value})
        answer = client.post("/predict", data=body, content_type="application/json").get_json()
        assert ("image" in answer) is is_there


def test_a_raw_body_takes_options_from_the_query(client: FlaskClient) -> None:
    answer = client.post("/predict?preview=0", data=FILM, content_type="image/png").get_json()
    assert answer["success"] is True
    assert "image" not in answer


def test_a_field_wins_over_the_query(client: FlaskClient) -> None:
    assert "image" in post_file(client, FILM, query="preview=0", preview="1").get_json()
    assert "image" not in post_file(client, FILM, query="preview=1", preview="0").get_json()


@pytest.mark.parametrize("name", ["preview", "explain", "force"])
@pytest.mark.parametrize("value", ["", "2", "yes", "TRUE", "-1", "null"])
def test_a_switch_is_0_or_1(client: FlaskClient, name: str, value: str) -> None:
    words = f"“{name}” must be 0 or 1."
    check_refusal(post_file(client, FILM, query=f"{name}={value}"), 400, "bad_option", words)
    check_refusal(post_file(client, FILM, **{name: value}), 400, "bad_option", words)
    overruled = post_file(client, FILM, query=f"{name}={value}", **{name: "1"})
    check_refusal(overruled, 400, "bad_option", words)
    check_refusal(post_batch(client, FILM, **{name: value}), 400, "bad_option", words)


@pytest.mark.parametrize("value", [None, [], {}, "x", 2, 0.5, float("nan")])
def test_a_switch_in_json_is_false_or_true(client: FlaskClient, value: object) -> None:
    body = json.dumps({"image": base64.b64encode(FILM).decode(), "explain": value})
    response = client.post("/predict", data=body, content_type="application/json")
    check_refusal(response, 400, "bad_option", "“explain” must be 0 or 1.")


@pytest.mark.parametrize("value", [5, ["Normal"], True])
def test_a_class_is_a_name(client: FlaskClient, value: object) -> None:
    body = json.dumps({"image": base64.b64encode(FILM).decode(), "class": value})
    response = client.post("/predict", data=body, content_type="application/json")
    check_refusal(response, 400, "bad_option", "“class” must be the name of a class.")


@pytest.mark.parametrize("name", ["", "covid", "Lung Opacity", "0"])
def test_an_unknown_class_is_refused_with_those_there_are(client: FlaskClient, name: str) -> None:
    for response in (
        post_file(client, FILM, explain="1", **{"class": name}),
        post_file(client, FILM, query=f"class={name}"),
        post_batch(client, FILM, explain="1", **{"class": name}),
    ):
        check_refusal(response, 400, "unknown_class", f"It knows: {NAMES}.")


@pytest.mark.parametrize("name", [None, "Lung_Opacity", "Viral Pneumonia"])
def test_the_evidence_for_a_class_is_a_transparent_picture_of_the_previews_size(
    client: FlaskClient, tiny_checkpoint: Path, name: str | None
) -> None:
    data = encode(700)
    fields = {"class": name} if name else {}
    answer = post_file(client, data, explain="1", **fields).get_json()
    assert list(answer["explanation"]) == ["class", "image", "lungs"]
    assert answer["explanation"]["lungs"] == []  # the network does not look for them
    wanted = name or answer["prediction"]["predicted_class"]
    assert answer["explanation"]["class"] == wanted
    picture = base64.b64decode(answer["explanation"]["image"], validate=True)
    predictor = Predictor.from_file(tiny_checkpoint, "cpu")
    evidence = evidence_map(predictor, decode_image(data), wanted)
    assert picture == encode_overlay(evidence, (512, 512))
    with Image.open(io.BytesIO(picture)) as opened:
        assert (opened.format, opened.mode, opened.size) == ("PNG", "RGBA", (512, 512))


def test_the_picture_of_the_evidence_fits_the_preview_of_a_film_that_is_not_square(
    client: FlaskClient,
) -> None:
    buffer = io.BytesIO()
    Image.fromarray(decode_image(encode(900))[:613]).save(buffer, "PNG")
    answer = post_file(client, buffer.getvalue(), explain="1").get_json()
    sizes = []
    for picture in (answer["image"], answer["explanation"]["image"]):
        with Image.open(io.BytesIO(base64.b64decode(picture))) as opened:
            sizes.append(opened.size)
    assert sizes == [(512, 349), (512, 349)]


def test_the_evidence_is_not_computed_unless_it_is_asked_for(tiny_checkpoint: Path) -> None:
    asked: list[str] = []

    class Watched(ModelService):
        def explain(self, pixels: NDArray[np.uint8], class_name: str, *, max_side: int) -> bytes:
            asked.append(class_name)
            return super().explain(pixels, class_name, max_side=max_side)

    service = Watched(tiny_checkpoint, "cpu")
    service.load()
    client = create_app(WebConfig(), service).test_client()
    assert "explanation" not in post_file(client, FILM).get_json()
    assert "explanation" not in post_file(client, FILM, query="class=Normal").get_json()
    assert asked == []
    post_file(client, FILM, query="class=Normal&explain=1")
    assert asked == ["Normal"]
