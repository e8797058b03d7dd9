"""`POST /feedback`: what is kept, under which class, and what is refused."""

from __future__ import annotations

import base64
import dataclasses
from pathlib import Path

import numpy as np
import pytest
from flask.testing import FlaskClient

from resformer.data.find import open_datasets
from resformer.data.manifest import build_manifest
from resformer.images import decode_image
from tests.data_sets import draw_texture, write_data_set
from tests.data_sets import encode as encode_pixels
from tests.web.conftest import encode
from tests.web.giving import give, kept, refusal
from tests.web.posting import post_file
from web import WebConfig, create_app
from web.service import ModelService, StartError


def test_the_decoded_image_is_kept_under_its_class(
    giver: FlaskClient, giving_config: WebConfig
) -> None:
    response = give(giver, encode(200, "JPEG"), "Viral Pneumonia")
    assert response.status_code == 200
    assert response.get_json() == {"success": True, "class": "Viral Pneumonia"}
    (path,) = kept(giving_config.uploads_path)
    assert path.parent == giving_config.uploads_path / "Viral Pneumonia"
    np.testing.assert_array_equal(
        decode_image(path.read_bytes()), decode_image(encode(200, "JPEG"))
    )


def test_every_way_of_sending_keeps_the_same_file(
    giver: FlaskClient, giving_config: WebConfig
) -> None:
    data = encode()
    document = {"image": base64.b64encode(data).decode(), "class": "Lung_Opacity"}
    answers = [
        give(giver, data, "COVID"),
        giver.post("/feedback?class=Normal", data=data, content_type="image/png"),
        giver.post("/feedback", json=document),
        give(giver, encode(kind="BMP"), "Lung_Opacity"),
    ]
    assert [answer.status_code for answer in answers] == [200] * 4
    (path,) = kept(giving_config.uploads_path)
    assert path.parent.name == "Lung_Opacity"


def test_the_class_must_be_one_of_the_model(giver: FlaskClient, giving_config: WebConfig) -> None:
    for name in ("covid", "../Normal", "", None):
        response = give(giver, encode(), name)
        assert refusal(response) == (400, "unknown_class")
        assert "COVID, Lung_Opacity, Normal, Viral Pneumonia" in response.get_json()["error"]
    document = {"image": base64.b64encode(encode()).decode(), "class": ["COVID"]}
    assert refusal(giver.post("/feedback", json=document)) == (400, "bad_option")
    assert kept(giving_config.uploads_path) == []


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", (400, "empty_file")),
        (encode()[:200], (400, "unreadable_image")),
        (b"hello", (415, "unsupported_format")),
        (encode(1001), (413, "image_too_large")),
        (bytes(2**20 + 1), (413, "upload_too_large")),
        (bytes(2**21), (413, "upload_too_large")),
    ],
    ids=["empty", "truncated", "text", "pixels", "bytes", "body"],
)
def test_an_image_that_predict_refuses_is_refused(
    giver: FlaskClient, giving_config: WebConfig, data: bytes, expected: tuple[int, str]
) -> None:
    assert refusal(give(giver, data, "COVID")) == expected
    assert refusal(post_file(giver, data)) == expected
    assert kept(giving_config.uploads_path) == []


def test_a_request_without_an_image_or_of_another_kind_is_refused(giver: FlaskClient) -> None:
    assert refusal(giver.post("/feedback?class=COVID")) == (400, "no_file")
    response = giver.post("/feedback?class=COVID", data=b"x", content_type="text/plain")
    assert refusal(response) == (415, "unsupported_media_type")
    response = giver.get("/feedback")
    assert refusal(response) == (405, "method_not_allowed")


def test_a_full_folder_is_a_clear_refusal(giving_config: WebConfig) -> None:
    giving_config = dataclasses.replace(giving_config, feedback_max_bytes=100)
    response = give(create_app(giving_config).test_client(), encode(), "COVID")
    assert refusal(response) == (507, "storage_full")
    assert "no room for another image" in response.get_json()["error"]
    assert kept(giving_config.uploads_path) == []


def test_without_a_model_nothing_is_kept(giving_config: WebConfig) -> None:
    client = create_app(giving_config, ModelService(Path("none.pth"))).test_client()
    assert refusal(give(client, encode(), "COVID")) == (503, "model_not_ready")
    assert kept(giving_config.uploads_path) == []


def test_the_key_and_the_rate_limit_hold_here_too(giving_config: WebConfig) -> None:
    client = create_app(dataclasses.replace(giving_config, api_key="secret")).test_client()
    assert refusal(give(client, encode(), "COVID")) == (401, "unauthorized")
    client = create_app(dataclasses.replace(giving_config, rate_limit="1/hour")).test_client()
    assert post_file(client, encode()).status_code == 200
    assert refusal(give(client, encode(), "COVID")) == (429, "rate_limited")
    assert kept(giving_config.uploads_path) == []


def test_a_folder_that_cannot_be_used_ends_the_start(giving_config: WebConfig) -> None:
    giving_config.uploads_path.touch()
    with pytest.raises(StartError, match="cannot keep feedback in"):
        create_app(giving_config)


def test_what_was_given_is_trained_on_with_the_rest(
    giver: FlaskClient, giving_config: WebConfig, tmp_path: Path
) -> None:
    films = write_data_set(tmp_path / "films", {"COVID": 5, "Normal": 5})
    for seed, name in ((700, "COVID"), (701, "Normal"), (702, "Normal")):
        assert give(giver, encode_pixels(draw_texture(seed)), name).status_code == 200
    with open_datasets([films, giving_config.uploads_path]) as root:
        manifest = build_manifest(root)
        given = [row for row in manifest.rows if row.path.startswith("data-2/")]
        assert sorted(row.class_name for row in given) == ["COVID", "Normal", "Normal"]
        read = {decode_image((root / row.path).read_bytes()).tobytes() for row in given}
    assert read == {draw_texture(seed).tobytes() for seed in (700, 701, 702)}
    assert len(manifest.rows) == 13
