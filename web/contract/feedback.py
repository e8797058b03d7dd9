"""The operation that gives an image for training; there only where the operator wants it."""

from __future__ import annotations

from typing import Any

from web.contract.building import json_content, object_of, reference
from web.contract.classify import BASE64, BINARY, RAW_IMAGE_TYPES
from web.contract.errors import refer_to
from web.json_image import IMAGE_FIELD
from web.uploads import FILE_FIELD

_CLASS = "The class that the image shows."


def feedback_operation() -> dict[str, Any]:
    """Describe `POST /feedback`."""
    named = {"class": reference("ClassName") | {"description": _CLASS}}
    form = object_of({FILE_FIELD: BINARY} | named, optional=["class"])
    document = object_of({IMAGE_FIELD: BASE64} | named, optional=["class"])
    return {
        "tags": ["Classify"],
        "operationId": "feedback",
        "summary": "Give an image with its right class, to be kept for training",
        "description": (
            "The decoded pixels are kept on the server under the class, and nothing else of the "
            "file. The same image is kept once, under the class that was given last. The class "
            "is a query parameter, or a field of the form or of the JSON, which wins."
        ),
        "parameters": [
            {
                "name": "class",
                "in": "query",
                "description": _CLASS,
                "schema": reference("ClassName"),
            }
        ],
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {"schema": form},
                "application/json": {"schema": document},
                **{kind: {} for kind in RAW_IMAGE_TYPES},
            },
        },
        "responses": {
            "200": json_content(
                "It is kept.",
                object_of({"success": {"const": True}, "class": reference("ClassName")}),
            ),
            **refer_to(400, 401, 403, 408, 413, 415, 429, 431, 500, 503, 507),
        },
    }
