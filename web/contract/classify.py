"""The two operations that take images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from web.config import WebConfig
from web.contract.building import json_content, reference
from web.contract.errors import refer_to
from web.json_image import IMAGE_FIELD
from web.uploads import BATCH_FIELD, FILE_FIELD, RAW_TYPES

RAW_IMAGE_TYPES = (
    *(f"image/{kind}" for kind in ("png", "jpeg", "bmp", "gif", "webp", "tiff")),
    *RAW_TYPES,
)
_OPTIONS = {
    "preview": "0 leaves the picture of the decoded image out.",
    "explain": "1 adds a picture of where the evidence for a class lies.",
    "class": "The class to explain; without it, the predicted one.",
    "force": "1 answers although the image does not look like a chest X-ray.",
}
BINARY = {
    "title": "file",
    "type": "string",
    "contentMediaType": "application/octet-stream",
    "description": "A file, whatever its name.",
}
BASE64 = {
    "title": "base64",
    "type": "string",
    "contentEncoding": "base64",
    "description": "Padded, without line breaks; a data URL (`data:image/png;base64,…`) too.",
}
_HOST = "http://localhost:5000"


def predict_operation(config: WebConfig) -> dict[str, Any]:
    """Describe `POST /predict`."""
    return {
        "tags": ["Classify"],
        "operationId": "predict",
        "summary": "Classify one image",
        "description": (
            "PNG, JPEG, BMP, GIF, WebP, TIFF (8 or 16 bit) and DICOM, recognised by content. "
            f"Up to {config.max_bytes:,} bytes and {config.max_pixels:,} pixels. Options are "
            "query parameters, or fields of the form or of the JSON, which win. "
            "An image that does not look like a frontal chest X-ray is refused with 422; "
            "`force=1` answers nevertheless, with a warning."
        ),
        "parameters": _parameters(),
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {"schema": _body({FILE_FIELD: BINARY}, "Flag")},
                "application/json": {"schema": _body({IMAGE_FIELD: BASE64}, "JsonFlag")},
                **{kind: {} for kind in RAW_IMAGE_TYPES},
            },
        },
        "responses": {
            "200": json_content("The model's estimate.", reference("Answer")),
            **refer_to(400, 401, 408, 413, 415, 422, 429, 431, 500, 503),
        },
        "x-codeSamples": _samples(
            {
                "Form": f"curl -F file=@film.png {_HOST}/predict",
                "Body": "curl -H 'Content-Type: application/dicom' --data-binary @film.dcm \\\n"
                f"  '{_HOST}/predict?preview=0'",
                "JSON": 'printf \'{"image": "%s", "explain": true}\' "$(base64 -w0 film.png)" |\n'
                f"  curl --json @- {_HOST}/predict",
            }
        ),
    }


def batch_operation(config: WebConfig) -> dict[str, Any]:
    """Describe `POST /predict/batch`."""
    files = {
        "type": "array",
        "items": BINARY,
        "minItems": 1,
        "maxItems": config.max_files,
        "description": "Files, whatever their names.",
    }
    return {
        "tags": ["Classify"],
        "operationId": "predictBatch",
        "summary": "Classify several images",
        "description": (
            f"Up to {config.max_files} files and {config.max_request_bytes:,} bytes in all. "
            "One result or error for each file, in their order; a bad file spoils no other. "
            "The options are those of `/predict` and hold for all files. The batch is answered "
            f"within {config.time_limit:g} seconds: a file that found no time or place in them "
            "has the error `timeout` or `busy`, and may be sent again."
        ),
        "parameters": _parameters(),
        "requestBody": {
            "required": True,
            "content": {"multipart/form-data": {"schema": _body({BATCH_FIELD: files}, "Flag")}},
        },
        "responses": {
            "200": json_content("A result or an error for each file.", reference("BatchAnswer")),
            **refer_to(400, 401, 408, 413, 415, 429, 431, 500, 503),
        },
        "x-codeSamples": _samples(
            {
                "Form": "curl -F files=@first.png -F files=@second.dcm \\\n"
                f"  '{_HOST}/predict/batch?preview=0'"
            }
        ),
    }


def _parameters() -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "query", "description": meaning, "schema": _option(name, "Flag")}
        for name, meaning in _OPTIONS.items()
    ]


def _body(image: Mapping[str, Any], flag: str) -> dict[str, Any]:
    options = {
        name: _option(name, flag) | {"description": meaning} for name, meaning in _OPTIONS.items()
    }
    return {"type": "object", "required": list(image), "properties": {**image, **options}}


def _option(name: str, flag: str) -> dict[str, Any]:
    return reference("ClassName" if name == "class" else flag)


def _samples(sources: Mapping[str, str]) -> list[dict[str, str]]:
    return [
        {"lang": "Shell", "label": label, "source": source} for label, source in sources.items()
    ]
