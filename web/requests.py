"""What a request holds: one image or several, in a form, in JSON or as the body; and options.

Uploads are read in memory and forgotten: none of their bytes reaches a disk. JSON is bounded in
its structure, not only in its bytes: as Python objects, millions of empty lists take many times
the memory of their text.
"""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Mapping
from typing import Any

from flask import Request, request
from pydantic import ValidationError
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import RequestEntityTooLarge

from web.errors import ApiError, upload_too_large
from web.schemas import Options

FILE_FIELD = "file"
BATCH_FIELD = "files"
IMAGE_FIELD = "image"
RAW_TYPES = ("application/dicom", "application/octet-stream")
MAX_FORM_PARTS = 16
_MAX_JSON_PARTS = 100
_DATA_URL = re.compile(r"data:[\w.+/;=-]{0,100};base64,", re.ASCII)


class InMemoryRequest(Request):
    """A request whose files stay in memory; `MAX_CONTENT_LENGTH` bounds them.

    Werkzeug would otherwise write files above 500 kB into the temporary folder.
    """

    def _get_file_stream(
        self,
        total_content_length: int | None,
        content_type: str | None,
        filename: str | None = None,
        content_length: int | None = None,
    ) -> io.BytesIO:
        return io.BytesIO()


def read_image(max_bytes: int) -> tuple[bytes, dict[str, Any]]:
    """Return the one image that came with the current request, and the fields beside it.

    Raises:
        ApiError: if there is none, if it is empty, if it is larger than `max_bytes`, or if the
            request is of a kind that holds no image.
    """
    kind = request.mimetype
    if kind == "multipart/form-data":
        uploaded = request.files.get(FILE_FIELD)
        if uploaded is None:
            raise _no_file(FILE_FIELD)
        return read_file(uploaded, max_bytes), request.form.to_dict()
    if kind == "application/json":
        data, fields = _read_json(request.get_data(cache=False), max_bytes)
        return _checked(data, max_bytes), fields
    if not kind or kind.startswith("image/") or kind in RAW_TYPES:
        data = request.get_data(cache=False)
        if not (kind or data):
            raise _no_file(FILE_FIELD)
        return _checked(data, max_bytes), {}
    raise ApiError(
        "unsupported_media_type",
        f"Send the image in a form (multipart/form-data) as “{FILE_FIELD}”, as the body with a "
        f"content type such as image/png or application/dicom, or in JSON as “{IMAGE_FIELD}”.",
    )


def read_batch(max_files: int) -> tuple[list[FileStorage], dict[str, Any]]:
    """Return the files of the current request in their order, and the fields beside them.

    Raises:
        ApiError: if there are none or more than `max_files`, or if the request is no form.
    """
    if request.mimetype not in ("multipart/form-data", ""):
        raise ApiError(
            "unsupported_media_type",
            f"Send the images in a form (multipart/form-data), each as “{BATCH_FIELD}”.",
        )
    too_many = ApiError("too_many_files", f"Up to {max_files} files can be sent at once.")
    request.max_form_parts = max_files + MAX_FORM_PARTS
    try:
        files = request.files.getlist(BATCH_FIELD)
    except RequestEntityTooLarge:
        if (request.content_length or 0) > (request.max_content_length or 0):
            raise
        raise too_many from None
    if len(files) > max_files:
        raise too_many
    if not files:
        raise _no_file(BATCH_FIELD)
    return files, request.form.to_dict()


def read_file(uploaded: FileStorage, max_bytes: int) -> bytes:
    """Return the bytes of one file of a form, and free the form's own copy.

    Raises:
        ApiError: if it is empty or larger than `max_bytes`.
    """
    with uploaded.stream as stream:
        data = stream.read()
    if not (data or uploaded.filename):
        raise _no_file(FILE_FIELD)
    return _checked(data, max_bytes)


def read_options(fields: Mapping[str, Any]) -> tuple[Options, Options]:
    """Return the options of the query, and those that hold: fields of the body win.

    Raises:
        ApiError: `bad_option` if one cannot be read, naming it and what is possible.
    """
    query = request.args.to_dict()
    try:
        return Options.model_validate(query), Options.model_validate({**query, **fields})
    except ValidationError as error:
        name = error.errors()[0]["loc"][0]
        possible = "the name of a class" if name == "class" else "0 or 1"
        raise ApiError("bad_option", f"“{name}” must be {possible}.") from None


def _read_json(body: bytes, max_bytes: int) -> tuple[bytes, dict[str, Any]]:
    """Return the image in a JSON body, and the fields beside it."""
    parts = sum(map(body.count, (b",", b"[", b"{")))
    try:
        fields = json.loads(body) if parts <= _MAX_JSON_PARTS else None
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise ApiError(
            "bad_request",
            f"The body is not a small JSON object such as {{“{IMAGE_FIELD}”: “<base64>”}}.",
        )
    text = fields.pop(IMAGE_FIELD, None)
    if text is None or text == "":
        raise _no_file(IMAGE_FIELD)
    if not isinstance(text, str):
        raise _bad_base64()
    start = _DATA_URL.match(text)
    encoded = text[start.end() :] if start else text
    if len(encoded) > 4 * (max_bytes // 3 + 1):
        raise upload_too_large(max_bytes)
    try:
        return base64.b64decode(encoded, validate=True), fields
    except ValueError:
        raise _bad_base64() from None


def _checked(data: bytes, max_bytes: int) -> bytes:
    if not data:
        raise ApiError("empty_file")
    if len(data) > max_bytes:
        raise upload_too_large(max_bytes)
    return data


def _no_file(field: str) -> ApiError:
    return ApiError("no_file", f"No image came with the request: send it as “{field}”.")


def _bad_base64() -> ApiError:
    return ApiError(
        "bad_base64",
        f"“{IMAGE_FIELD}” must be base64 (RFC 4648, padded, without line breaks) or a data URL "
        "of it.",
    )
