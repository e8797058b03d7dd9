"""Uploads are read in memory and forgotten: none of their bytes reaches a disk."""

from __future__ import annotations

import io

from flask import Request, request

from web.errors import ApiError, upload_too_large

FILE_FIELD = "file"
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


def read_upload(max_bytes: int) -> bytes:
    """Return the bytes of the file that came with the current request.

    Raises:
        ApiError: if there is none, if it is empty, or if it is larger than `max_bytes`.
    """
    uploaded = request.files.get(FILE_FIELD)
    data = uploaded.stream.read() if uploaded else b""
    if data:
        if len(data) > max_bytes:
            raise upload_too_large(max_bytes)
        return data
    if uploaded and uploaded.filename:
        raise ApiError(400, "empty_file", "The file is empty. Choose another one.")
    raise ApiError(400, "no_file", f"No file came with the request: send it as “{FILE_FIELD}”.")
