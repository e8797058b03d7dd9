"""`POST /predict`: what a good request gets, exactly."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from flask.testing import FlaskClient
from PIL import Image

import resformer
from resformer.checkpoint import Checkpoint, save_checkpoint
from resformer.images import decode_image
from resformer.model import IdentityMappingResFormer, ResFormerConfig
from resformer.predict import Predictor
from resformer.transforms import InputSpec
from tests.web.conftest import encode
from tests.web.posting import post_file
from web import WebConfig, create_app


def test_answer_holds_the_prediction_of_the_model_and_nothing_else(
    client: FlaskClient, phantom_png: bytes, tiny_checkpoint: Path
) -> None:
    response = post_file(client, phantom_png)
    expected = Predictor.from_file(tiny_checkpoint, "cpu").predict([decode_image(phantom_png)])[0]
    assert response.status_code == 200
    assert response.mimetype == "application/json"
    answer = response.get_json()
    assert list(answer) == ["success", "prediction", "model", "gate", "warnings", "image"]
    assert answer["success"] is True
    assert answer["model"] == {
        "name": "Identity-Mapping ResFormer",
        "version": resformer.__version__,
        "sha256": hashlib.sha256(tiny_checkpoint.read_bytes()).hexdigest(),
    }
    assert answer["gate"] is None
    assert answer["warnings"] == []
    assert list(answer["prediction"]) == [
        *("predicted_class", "confidence", "abstained", "all_probabilities")
    ]
    assert answer["prediction"]["abstained"] is False
    assert answer["prediction"]["predicted_class"] == expected.predicted_class
    assert answer["prediction"]["confidence"] == expected.confidence
    assert answer["prediction"]["all_probabilities"] == expected.probabilities
    assert sum(expected.probabilities.values()) == pytest.approx(1.0, abs=1e-9)


def test_a_retrained_model_with_other_classes_is_served_in_its_own_order(
    tiny_config: ResFormerConfig, tmp_path: Path, phantom_png: bytes
) -> None:
    config = dataclasses.replace(tiny_config, num_classes=3)
    torch.manual_seed(1)
    weights = IdentityMappingResFormer(config).state_dict()
    names = ("Zebra_stripe", "Apple", "Mango")
    path = tmp_path / "retrained.pth"
    save_checkpoint(Checkpoint(config, names, InputSpec(size=64), weights), path)
    client = create_app(WebConfig(path, "cpu")).test_client()
    answer = post_file(client, phantom_png).get_json()
    assert list(answer["prediction"]["all_probabilities"]) == list(names)
    page = client.get("/").get_data(as_text=True)
    positions = [page.index(text) for text in ("Zebra stripe", "Apple", "Mango")]
    assert positions == sorted(positions)
    assert "COVID" not in page


@pytest.mark.parametrize(("side", "preview_side"), [(700, 512), (96, 96)])
def test_preview_is_the_decoded_image_of_at_most_512_pixels(
    client: FlaskClient, side: int, preview_side: int
) -> None:
    data = encode(side)
    answer = post_file(client, data).get_json()
    with Image.open(io.BytesIO(base64.b64decode(answer["image"], validate=True))) as preview:
        assert preview.format == "PNG"
        assert preview.size == (preview_side, preview_side)
        wanted = Image.fromarray(decode_image(data))
        wanted.thumbnail((512, 512), Image.Resampling.HAMMING)
        difference = np.asarray(preview, dtype=int) - np.asarray(wanted, dtype=int)
    assert np.abs(difference).max() <= 2


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "WebP", "TIFF"])
def test_every_format_is_taken_by_content_whatever_its_name(client: FlaskClient, kind: str) -> None:
    response = post_file(client, encode(kind=kind), name="film.docx")
    assert response.status_code == 200, response.get_data(as_text=True)


def test_requests_do_not_influence_each_other(client: FlaskClient, phantom_png: bytes) -> None:
    first = post_file(client, phantom_png).get_json()
    assert post_file(client, b"not an image").status_code == 415
    assert post_file(client, encode(200)).get_json()["image"] != first["image"]
    assert post_file(client, phantom_png).get_json() == first
