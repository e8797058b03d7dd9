"""Uploads are read in memory and forgotten: none of their bytes reaches a disk."""

from __future__ import annotations

import io
from typing import Any

from flask import Request, request
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import RequestEntityTooLarge

from web.errors import ApiError, upload_too_large
from web.json_image import read_json_image

FILE_FIELD = "file"
BATCH_FIELD = "files"
RAW_TYPES = ("application/dicom", "application/octet-stream")
MAX_FORM_PARTS = 16


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


def read_upload(max_bytes: int) -> tuple[bytes, dict[str, Any]]:
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
        data, fields = read_json_image(request.get_data(cache=False), max_bytes)
        return _checked(data, max_bytes), fields
    if not kind or kind.startswith("image/") or kind in RAW_TYPES:
        data = request.get_data(cache=False)
        if not (kind or data):
            raise _no_file(FILE_FIELD)
        return _checked(data, max_bytes), {}
    raise ApiError(
        415,
        "unsupported_media_type",
        f"Send the image in a form (multipart/form-data) as “{FILE_FIELD}”, as the body with a "
        "content type such as image/png or application/dicom, or in JSON as “image”.",
    )


def read_batch(max_files: int) -> tuple[list[FileStorage], dict[str, Any]]:
    """Return the files of the current request in their order, and the fields beside them.

    Raises:
        ApiError: if there are none or more than `max_files`, or if the request is no form.
    """
    if request.mimetype not in ("multipart/form-data", ""):
        raise ApiError(
            415,
            "unsupported_media_type",
            f"Send the images in a form (multipart/form-data), each as “{BATCH_FIELD}”.",
        )
    request.max_form_parts = max_files + MAX_FORM_PARTS
    try:
        files = request.files.getlist(BATCH_FIELD)
    except RequestEntityTooLarge:
        if (request.content_length or 0) > (request.max_content_length or 0):
            raise
        raise _too_many_files(max_files) from None
    if len(files) > max_files:
        raise _too_many_files(max_files)
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


def _checked(data: bytes, max_bytes: int) -> bytes:
    if not data:
        raise ApiError(400, "empty_file", "The file is empty. Choose another one.")
    if len(data) > max_bytes:
        raise upload_too_large(max_bytes)
    return data


def _no_file(field: str) -> ApiError:
    return ApiError(400, "no_file", f"No file came with the request: send it as “{field}”.")


def _too_many_files(max_files: int) -> ApiError:
    return ApiError(
        413,
        "too_many_files",
        f"Too many files: up to {max_files} can be sent at once.",
    )
