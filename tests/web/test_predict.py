"""``POST /predict``: what a good request gets, however it is sent and whatever it asks for."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
import torch
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.test import TestResponse

from resformer.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from resformer.explanation import encode_overlay, evidence_map
from resformer.images import decode_image
from resformer.model import IdentityMappingResFormer, ResFormerConfig
from resformer.phantom import draw_chest_phantom
from resformer.predict import Predictor
from resformer.transforms import InputSpec
from tests import data_sets
from tests.dicom_files import radiograph, write
from tests.web.checkpoints import client_of
from tests.web.posting import CONTENT_TYPE, check_refusal, encode, form, post_batch, post_file

FILM = encode(96)
TEXT = base64.b64encode(FILM).decode()
NAMES = "COVID, Lung_Opacity, Normal, Viral Pneumonia"


def post_json(client: FlaskClient, content: object) -> TestResponse:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return client.post("/predict", data=body, content_type="application/json")


def open_picture(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text, validate=True)))


@pytest.fixture
def expected(client: FlaskClient) -> Any:
    return post_file(client, FILM).get_json()


def test_answer_holds_the_prediction_of_the_model_and_nothing_else(
    client: FlaskClient, phantom_png: bytes, tiny_checkpoint: Path
) -> None:
    response = post_file(client, phantom_png)
    predictor = Predictor.from_file(tiny_checkpoint, "cpu")
    (film,) = predictor.predict([decode_image(phantom_png)])
    assert (response.status_code, response.mimetype) == (200, "application/json")
    answer = response.get_json()
    parts = ["success", "api_version", "prediction", "model", "gate", "warnings", "dicom", "image"]
    assert list(answer) == parts
    del answer["image"]
    assert answer == {
        "success": True,
        "api_version": "1",
        "prediction": {
            "predicted_class": film.predicted_class,
            "confidence": film.confidence,
            "abstained": False,
            "reason": None,
            "all_probabilities": film.probabilities,
            "track_record": None,
        },
        "model": {
            "name": "Identity-Mapping ResFormer",
            "version": predictor.checkpoint.source[:12],
            "sha256": hashlib.sha256(tiny_checkpoint.read_bytes()).hexdigest(),
        },
        "gate": None,
        "warnings": [],
        "dicom": None,
    }
    assert sum(film.probabilities.values()) == pytest.approx(1.0, abs=1e-9)


def test_a_retrained_model_with_other_classes_is_served_in_its_own_order(
    tiny_config: ResFormerConfig, tmp_path: Path, phantom_png: bytes
) -> None:
    config = dataclasses.replace(tiny_config, num_classes=3)
    torch.manual_seed(1)
    weights = IdentityMappingResFormer(config).state_dict()
    names = ("Zebra_stripe", "Apple", "Mango")
    path = tmp_path / "retrained.pth"
    save_checkpoint(Checkpoint(config, names, InputSpec(size=64), weights), path)
    client = client_of(path)
    answer = post_file(client, phantom_png).get_json()
    assert list(answer["prediction"]["all_probabilities"]) == list(names)
    page = client.get("/").get_data(as_text=True)
    bars = page[page.index('id="bars"') :]
    positions = [bars.index(text) for text in ("Zebra stripe", "Apple", "Mango")]
    assert positions == sorted(positions)
    assert "COVID" not in page


@pytest.mark.parametrize(("side", "preview_side"), [(700, 512), (96, 96)])
def test_the_preview_is_the_decoded_image_scaled_down(
    client: FlaskClient, side: int, preview_side: int
) -> None:
    data = encode(side)
    with open_picture(post_file(client, data).get_json()["image"]) as preview:
        assert preview.format == "PNG"
        assert preview.size == (preview_side, preview_side)
        wanted = Image.fromarray(decode_image(data))
        wanted.thumbnail((512, 512), Image.Resampling.HAMMING)
        difference = np.asarray(preview, dtype=int) - np.asarray(wanted, dtype=int)
    assert np.abs(difference).mean() < 2


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "WebP", "TIFF"])
def test_every_format_is_taken_by_content_whatever_its_name(client: FlaskClient, kind: str) -> None:
    response = post_file(client, encode(kind=kind), name="film.docx")
    assert response.status_code == 200, response.get_data(as_text=True)


def test_requests_do_not_influence_each_other(client: FlaskClient, phantom_png: bytes) -> None:
    first = post_file(client, phantom_png).get_json()
    assert post_file(client, b"not an image").status_code == 415
    assert post_file(client, encode(200)).get_json()["image"] != first["image"]
    assert post_file(client, phantom_png).get_json() == first


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
    with open_picture(response.get_json()["image"]) as preview:
        assert np.array_equal(np.asarray(preview), film)
    assert b"Mustermann" not in response.data


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        TEXT.rstrip("="),
        base64.urlsafe_b64encode(FILM).decode(),
        base64.encodebytes(FILM).decode(),
        TEXT.replace("A", "A\r\n\t "),
        f"data:image/png;base64,{TEXT}",
        f"data:;base64,{TEXT}",
        f"\n data:image/png;base64,\n{TEXT}\n",
        f"DATA:Image/PNG;name=a%20film.png;BASE64,{TEXT}",
        f"data:image/png;base64,{quote(TEXT, safe='')}",
        f"data:image/png;base64,{quote(base64.encodebytes(FILM), safe='')}",
        "data:image/png;base64," + TEXT.replace("+", "%2b").replace("/", "%2f"),
    ],
)
def test_json_may_hold_the_image_as_base64_or_data_url(
    client: FlaskClient, expected: Any, text: str
) -> None:
    response = post_json(client, {"image": text})
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
        ({"image": TEXT[:41].rstrip("=")}, 400, "bad_base64", "RFC 4648"),
        ({"image": TEXT + "é"}, 400, "bad_base64", "RFC 4648"),
        ({"image": "data:image/png;base64," + TEXT[:40] + "%41"}, 400, "bad_base64", "RFC 4648"),
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


@pytest.mark.parametrize("value", ["0", "False", "off", "No"])
def test_the_preview_can_be_left_out(client: FlaskClient, expected: Any, value: str) -> None:
    del expected["image"]
    assert post_file(client, FILM, query=f"preview={value}").get_json() == expected
    assert post_file(client, FILM, preview=value).get_json() == expected
    raw = client.post(f"/predict?preview={value}", data=FILM, content_type="image/png")
    assert raw.get_json() == expected


@pytest.mark.parametrize(
    ("value", "is_there"),
    [(False, False), (0, False), ("0", False), (True, True), (1, True), ("On", True), (None, True)],
)
def test_json_takes_options_as_true_and_false(
    client: FlaskClient, value: object, is_there: bool
) -> None:
    answer = post_json(client, {"image": TEXT, "preview": value}).get_json()
    assert answer["success"] is True
    assert ("image" in answer) is is_there


def test_a_field_wins_over_the_query(client: FlaskClient) -> None:
    assert "image" in post_file(client, FILM, query="preview=0", preview="1").get_json()
    assert "image" not in post_file(client, FILM, query="preview=1", preview="0").get_json()


@pytest.mark.parametrize("name", ["explain", "force", "invert"])
@pytest.mark.parametrize("value", ["", "2", "yess", "-1"])
def test_a_switch_is_0_or_1(client: FlaskClient, name: str, value: str) -> None:
    for response in (
        post_file(client, FILM, query=f"{name}={value}"),
        post_file(client, FILM, **{name: value}),
        post_file(client, FILM, query=f"{name}={value}", **{name: "1"}),
        post_batch(client, FILM, **{name: value}),
    ):
        check_refusal(response, 400, "bad_option", f"“{name}” must be 0 or 1.")


def test_a_preview_is_as_large_as_asked_for(client: FlaskClient, phantom_png: bytes) -> None:
    for asked, side in (("1", 512), ("300", 300), ("2048", 700)):
        answer = post_file(client, phantom_png, preview=asked).get_json()
        with Image.open(io.BytesIO(base64.b64decode(answer["image"]))) as picture:
            assert picture.size == (side, side)
    for impossible in ("", "-1", "4097", "large", "²"):
        refused = post_file(client, phantom_png, preview=impossible)
        words = "“preview” must be 0, 1 or a number of pixels up to 4096."
        check_refusal(refused, 400, "bad_option", words)


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("explain", [[], {}, "x", 2, 0.5, float("nan")], "must be 0 or 1."),
        ("class", [5, ["Normal"], True], "must be the name of a class."),
        ("rotate", [True, 45, "left", -90, [90]], "must be 0, 90, 180 or 270."),
    ],
)
def test_an_option_in_json_is_of_its_type(
    client: FlaskClient, name: str, values: list[object], words: str
) -> None:
    for value in values:
        response = post_json(client, {"image": TEXT, name: value})
        check_refusal(response, 400, "bad_option", f"“{name}” {words}")


def test_what_would_be_ignored_is_refused(client: FlaskClient) -> None:
    """Whoever misspells an option, or sends a second film, must not take the answer for theirs."""
    document = {"image": TEXT, "explian": True}
    for refused in (
        post_file(client, FILM, query="explian=1"),
        post_file(client, FILM, explian="1"),
        post_batch(client, FILM, explian="1"),
        post_json(client, document),
    ):
        check_refusal(refused, 400, "bad_option", "There is no option “explian”. There are: “inv")
    twice = post_file(client, FILM, query="explain=1&explain=0")
    check_refusal(twice, 400, "bad_option", "“explain” has more than one value")
    assert post_file(client, FILM, query="preview=0&preview=0").status_code == 200
    for name in ("file", "mask"):
        body = form([("file", "a.png", FILM), (name, "b.png", FILM)])
        refused = client.post("/predict", data=body, content_type=CONTENT_TYPE)
        check_refusal(refused, 413, "too_many_files", "/predict/batch")
    body = form([("files", "a.png", FILM), ("file", "b.png", FILM)])
    refused = client.post("/predict/batch", data=body, content_type=CONTENT_TYPE)
    check_refusal(refused, 400, "bad_option", "There is no option “file”. There are: “files”.")


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
    explanation = answer["explanation"]
    assert list(explanation) == ["class", "image", "lungs"]
    assert explanation["lungs"] == []  # the network does not look for them
    assert explanation["class"] == (name or answer["prediction"]["predicted_class"])
    predictor = Predictor.from_file(tiny_checkpoint, "cpu")
    evidence = evidence_map(predictor, decode_image(data), explanation["class"])
    assert base64.b64decode(explanation["image"]) == encode_overlay(evidence, (512, 512))
    with open_picture(explanation["image"]) as opened:
        assert (opened.format, opened.mode, opened.size) == ("PNG", "RGBA", (512, 512))


def test_the_picture_of_the_evidence_fits_the_preview_of_a_film_that_is_not_square(
    client: FlaskClient,
) -> None:
    film = data_sets.encode(decode_image(encode(900))[:613])
    answer = post_file(client, film, explain="1").get_json()
    for picture in (answer["image"], answer["explanation"]["image"]):
        with open_picture(picture) as opened:
            assert opened.size == (512, 349)


def test_a_class_alone_asks_for_no_evidence(client: FlaskClient) -> None:
    assert "explanation" not in post_file(client, FILM, query="class=Normal").get_json()


def test_the_answer_says_which_interface_and_which_weights_gave_it(
    client: FlaskClient, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    retold, other = tmp_path / "retold.pth", tmp_path / "other.pth"
    save_checkpoint(dataclasses.replace(checkpoint, training={"best_epoch": 1}), retold)
    spec = dataclasses.replace(checkpoint.input_spec, mean=0.4)
    save_checkpoint(dataclasses.replace(checkpoint, input_spec=spec, graph=None), other)
    first, again, third = (
        post_file(one, encode(), address="/v1/predict").get_json()
        for one in (client, client_of(retold), client_of(other))
    )
    assert first["api_version"] == post_file(client, encode()).get_json()["api_version"] == "1"
    assert first["model"]["version"] == again["model"]["version"] != third["model"]["version"]
    assert first["model"]["sha256"] != again["model"]["sha256"]
