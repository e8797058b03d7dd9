"""An image inside a JSON document: `{"image": "<base64 or data URL>"}`.

The document is bounded in its structure, not only in its bytes: as Python objects, millions of
empty lists take many times the memory of their text.
"""

from __future__ import annotations

import base64
import json
import re
from typing import Any

from web.errors import ApiError, upload_too_large

IMAGE_FIELD = "image"
_MAX_PARTS = 100
_DATA_URL = re.compile(r"data:[\w.+/;=-]{0,100};base64,", re.ASCII)


def read_json_image(body: bytes, max_bytes: int) -> tuple[bytes, dict[str, Any]]:
    """Return the image in a JSON body, and the fields beside it.

    Raises:
        ApiError: if the body is no such JSON, or if the image is missing, not strict base64, or
            longer than `max_bytes` by more than the padding hides.
    """
    fields = _parse(body)
    text = fields.pop(IMAGE_FIELD, None)
    if text is None or text == "":
        raise ApiError(
            400, "no_file", f"No image came with the request: send it as “{IMAGE_FIELD}”."
        )
    if not isinstance(text, str):
        raise _bad_base64()
    start = _DATA_URL.match(text)
    return _decode(text[start.end() :] if start else text, max_bytes), fields


def _parse(body: bytes) -> dict[str, Any]:
    parts = sum(map(body.count, (b",", b"[", b"{")))
    try:
        fields = json.loads(body) if parts <= _MAX_PARTS else None
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise ApiError(
            400,
            "bad_request",
            f"The body is not a small JSON object such as {{“{IMAGE_FIELD}”: “<base64>”}}.",
        )
    return fields


def _decode(text: str, max_bytes: int) -> bytes:
    if len(text) > 4 * (max_bytes // 3 + 1):
        raise upload_too_large(max_bytes)
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise _bad_base64() from None


def _bad_base64() -> ApiError:
    return ApiError(
        400,
        "bad_base64",
        f"“{IMAGE_FIELD}” must be base64 (RFC 4648, padded, without line breaks) or a data URL "
        "of it.",
    )
