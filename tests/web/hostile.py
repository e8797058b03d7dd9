"""Good files of every format to be spoilt, and what any answer to a spoilt one must be."""

from __future__ import annotations

import base64
import functools
from typing import Any

from flask.testing import FlaskClient
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)
from werkzeug.test import TestResponse

from tests.dicom_files import jpeg, radiograph, write, write_frame
from tests.image_files import png, tiff
from tests.phantom import draw_chest_phantom
from tests.web.conftest import encode
from tests.web.posting import CONTENT_TYPE, multipart

GREY = draw_chest_phantom(40)
VALUES = GREY.astype("u2") * 16
FILES = {
    **{kind: encode(40, kind) for kind in ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")},
    "PNG 16": png(VALUES),
    "TIFF 16": tiff(VALUES),
    **{
        syntax.name: write(radiograph(VALUES, bits_stored=12), syntax)
        for syntax in (
            ImplicitVRLittleEndian,
            ExplicitVRLittleEndian,
            ExplicitVRBigEndian,
            DeflatedExplicitVRLittleEndian,
            RLELossless,
            JPEG2000Lossless,
        )
    },
    "DICOM JPEG": write_frame(radiograph(GREY), JPEGBaseline8Bit, jpeg(GREY)),
}
# A decoder of its own process, which takes its time.
FILES_OF_GDCM = {"DICOM JPEG-LS": write(radiograph(VALUES, bits_stored=12), JPEGLSLossless)}


@functools.cache
def documented(client: FlaskClient, address: str) -> dict[int, set[str]]:
    """The codes of every refusal that an address may answer with, by the API's own document."""
    document = client.get("/openapi.json").get_json()
    answers = document["components"]["responses"]
    codes = {}
    for status, reference in document["paths"][address]["post"]["responses"].items():
        if status != "200":
            answer = answers[reference["$ref"].rpartition("/")[2]]
            schema = answer["content"]["application/json"]["schema"]
            while "$ref" in schema:
                schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
            codes[int(status)] = set(schema["properties"]["code"]["enum"])
    return codes


def check(response: TestResponse, client: FlaskClient, address: str = "/predict") -> int:
    """An answer is either a full one or one of the documented refusals; its status."""
    answer: dict[str, Any] = response.get_json()
    if response.status_code == 200:
        assert answer["success"] is True
        return 200
    assert 400 <= response.status_code < 500
    assert answer["success"] is False
    assert answer["error"]
    assert answer["code"] in documented(client, address)[response.status_code]
    return response.status_code


def send(client: FlaskClient, data: bytes, kind: str) -> TestResponse:
    """Send a file in one of the three ways."""
    if kind == "form":
        return client.post(
            "/predict", data=multipart(data, "film.png", "file"), content_type=CONTENT_TYPE
        )
    if kind == "JSON":
        return client.post("/predict", json={"image": base64.b64encode(data).decode()})
    return client.post("/predict", data=data, content_type="application/octet-stream")
