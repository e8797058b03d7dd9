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
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from flask import Request, request
from pydantic import BaseModel, ValidationError
from werkzeug.datastructures import FileStorage, MultiDict
from werkzeug.exceptions import RequestEntityTooLarge

from resformer.images import MAX_PREVIEW_SIDE
from web.errors import ApiError, file_too_large

Choices = TypeVar("Choices", bound=BaseModel)

FILE_FIELD = "file"
BATCH_FIELD = "files"
IMAGE_FIELD = "image"
RAW_TYPES = ("application/dicom", "application/octet-stream")
MAX_FORM_PARTS = 16
_MAX_JSON_PARTS = 100
_DATA_URL = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)
_POSSIBLE = {
    "class": "the name of a class",
    "preview": f"0, 1 or a number of pixels up to {MAX_PREVIEW_SIDE}",
    "rotate": "0, 90, 180 or 270",
    "window_center": "a number from -1e9 to 1e9",
    "window_width": "a number above 0 and up to 1e9",
}
# What scripts escape in a data URL, as bytes of base64.
_ESCAPED = {b"%2B": b"+", b"%2F": b"/", b"%3D": b"=", b"%0D": b"", b"%0A": b"", b"%20": b""}
_URL_SAFE = bytes.maketrans(b"-_", b"+/")


class InMemoryRequest(Request):
    """A request whose files stay in memory; ``MAX_CONTENT_LENGTH`` bounds them.

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
        ApiError: if there is none, if it is empty, if it is larger than ``max_bytes``, or if the
            request is of a kind that holds no image.
    """
    kind = request.mimetype
    if kind == "multipart/form-data":
        uploaded = request.files.get(FILE_FIELD)
        if uploaded is None:
            raise _no_file(FILE_FIELD)
        if sum(len(files) for _, files in request.files.lists()) > 1:
            raise ApiError(
                "too_many_files",
                f"One image is classified at a time: send several to /predict/batch, each as "
                f"“{BATCH_FIELD}”.",
            )
        return read_file(uploaded, max_bytes), _fields(request.form)
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
        ApiError: if there are none or more than ``max_files``, or if the request is no form.
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
    if stray := set(request.files) - {BATCH_FIELD}:
        raise _no_option(sorted(stray)[0], (BATCH_FIELD,))
    return files, _fields(request.form)


def read_file(uploaded: FileStorage, max_bytes: int) -> bytes:
    """Return the bytes of one file of a form, and free the form's own copy.

    Raises:
        ApiError: if it is empty or larger than ``max_bytes``.
    """
    with uploaded.stream as stream:
        data = stream.read()
    if not (data or uploaded.filename):
        raise _no_file(FILE_FIELD)
    return _checked(data, max_bytes)


def read_options(fields: Mapping[str, Any], kind: type[Choices]) -> tuple[Choices, Choices]:
    """Return the options of the query, and those that hold: fields of the body win.

    Raises:
        ApiError: ``bad_option`` if there is none of a name, if one comes twice or if one cannot be
            read, naming it and what is possible.
    """
    query = _fields(request.args)
    try:
        return kind.model_validate(query), kind.model_validate({**query, **fields})
    except ValidationError as error:
        found = error.errors()[0]
        name = str(found["loc"][0])
        if found["type"] == "extra_forbidden":
            known = (field.validation_alias or n for n, field in kind.model_fields.items())
            raise _no_option(name, map(str, known)) from None
        possible = _POSSIBLE.get(name, "0 or 1")
        raise ApiError("bad_option", f"“{name}” must be {possible}.") from None


def _fields(given: MultiDict[str, str]) -> dict[str, Any]:
    for name, values in given.lists():
        if len(set(values)) > 1:
            raise ApiError("bad_option", f"“{_short(name)}” has more than one value.")
    return given.to_dict()


def _no_option(name: str, known: Iterable[str]) -> ApiError:
    names = ", ".join(f"“{one}”" for one in known)
    return ApiError("bad_option", f"There is no option “{_short(name)}”. There are: {names}.")


def _short(name: str) -> str:
    return textwrap.shorten(name, 40, placeholder="…")


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
    text = text.lstrip()
    try:
        encoded = text.encode("ascii")
    except ValueError:
        raise _bad_base64() from None
    if start := _DATA_URL.match(text):
        encoded = encoded[start.end() :]
        for escape, meant in _ESCAPED.items():
            encoded = encoded.replace(escape, meant).replace(escape.lower(), meant)
    encoded = encoded.translate(_URL_SAFE, b" \t\r\n").rstrip(b"=")
    if len(encoded) > 4 * (max_bytes // 3 + 1):
        raise file_too_large(max_bytes)
    try:
        return base64.b64decode(encoded + b"=" * (-len(encoded) % 4), validate=True), fields
    except ValueError:
        raise _bad_base64() from None


def _checked(data: bytes, max_bytes: int) -> bytes:
    if not data:
        raise ApiError("empty_file")
    if len(data) > max_bytes:
        raise file_too_large(max_bytes)
    return data


def _no_file(field: str) -> ApiError:
    return ApiError("no_file", f"No image came with the request: send it as “{field}”.")


def _bad_base64() -> ApiError:
    return ApiError(
        "bad_base64",
        f"“{IMAGE_FIELD}” must be base64 (RFC 4648) or a data URL of it.",
    )
