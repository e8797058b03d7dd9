"""Every way in which a request fails: one table, answered as JSON or as a page for people."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flask import Flask, Response, g, render_template, request
from werkzeug.exceptions import (
    ClientDisconnected,
    HTTPException,
    MethodNotAllowed,
    RequestEntityTooLarge,
)

from resformer.image_errors import DecoderUnavailableError
from resformer.images import ImageError
from web.config import WebConfig

API_VERSION = "1"
# The API lies under its version, and under the addresses that it had before it had one.
API_ROOTS = (f"/v{API_VERSION}", "")
API_PREFIXES = tuple(root + path for root in API_ROOTS for path in ("/predict", "/feedback"))
_FOR_PROGRAMS = (
    *API_PREFIXES,
    *(f"/v{API_VERSION}/", "/model", "/openapi.json", "/healthz", "/readyz", "/metrics"),
)

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ErrorCode:
    """What a code means.

    Attributes:
        status: of the answer.
        meaning: a sentence; the answer's text where nothing better is known.
        retry_after: seconds after which the request may be sent again, if that helps.
    """

    status: int
    meaning: str
    retry_after: int | None = None


# The first code of a status is also what that status alone means.
CODES = {
    "bad_request": ErrorCode(400, "The request cannot be read."),
    "no_file": ErrorCode(400, "No image came with the request."),
    "empty_file": ErrorCode(400, "The file is empty. Choose another one."),
    "unreadable_image": ErrorCode(400, "The image is damaged, or too small to be a film."),
    "bad_base64": ErrorCode(400, "The image in JSON is not base64."),
    "bad_option": ErrorCode(400, "There is no such option, or its value is not possible."),
    "unknown_class": ErrorCode(400, "The model does not know this class."),
    "unauthorized": ErrorCode(401, "The server asks for a key, and none or a wrong one came."),
    "cross_origin": ErrorCode(403, "Images are taken from this server's own page only."),
    "not_found": ErrorCode(404, "There is nothing at this address."),
    "method_not_allowed": ErrorCode(405, "This address does not take this method."),
    "request_timeout": ErrorCode(408, "The request took too long to arrive."),
    "upload_too_large": ErrorCode(413, "The file or the request has too many bytes."),
    "image_too_large": ErrorCode(413, "The image has too many pixels."),
    "too_many_files": ErrorCode(413, "There are too many files."),
    "unsupported_format": ErrorCode(415, "The data is not an image of a supported format."),
    "unsupported_dicom": ErrorCode(
        415, "The DICOM file is not a single grey radiograph, or cannot be read."
    ),
    "unsupported_media_type": ErrorCode(415, "The content type holds no image."),
    "unknown_host": ErrorCode(421, "The server does not answer to this host name."),
    "not_a_chest_xray": ErrorCode(422, "The image does not look like a frontal chest X-ray."),
    "rate_limited": ErrorCode(429, "The client sends more than the operator allows."),
    "headers_too_long": ErrorCode(431, "The headers of the request are too long."),
    "internal_error": ErrorCode(
        500, "Something went wrong on the server. Try again, or try another image."
    ),
    "busy": ErrorCode(503, "Too many images are waiting. Try again in a moment.", 1),
    "timeout": ErrorCode(
        503, "The image took too long. Try again in a moment, or scale it down first.", 5
    ),
    "decoder_unavailable": ErrorCode(
        503, "Images of this kind cannot be decoded here at the moment. The log says why.", 60
    ),
    "model_not_ready": ErrorCode(503, "The model is not ready yet. Try again in a moment.", 5),
    "storage_full": ErrorCode(507, "This server has no room for another image. Tell its operator."),
}


# What a person can do, on a page.
_ADVICE = {
    404: "The address may be mistyped or out of date. The pages of this server are named above.",
    500: "Try again in a moment. If it stays so, tell the operator of this server.",
}


def code_of_status(status: int) -> str:
    """Return the code of an error of which only the status is known."""
    return next(
        (code for code, entry in CODES.items() if entry.status == status),
        "bad_request" if status < 500 else "internal_error",
    )


class ApiError(Exception):
    """A request that fails in a documented way.

    Args:
        code: for programs, one of ``CODES``.
        message: for people; by default the meaning of the code.
        headers: of the answer.
        details: further fields of the answer.
    """

    def __init__(
        self,
        code: str,
        message: str = "",
        *,
        headers: Mapping[str, str] | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        entry = CODES[code]
        self.code, self.status = code, entry.status
        self.message = message or entry.meaning
        retry = {"Retry-After": str(entry.retry_after)} if entry.retry_after else {}
        self.headers = {**retry, **(headers or {})}
        self.details = details or {}
        super().__init__(self.message)

    @property
    def body(self) -> dict[str, Any]:
        """The answer as plain data."""
        return {"success": False, "error": self.message, "code": self.code, **self.details}

    @property
    def text(self) -> str:
        """The answer as JSON; also for where there is no application."""
        return json.dumps(self.body)


def file_too_large(max_bytes: int) -> ApiError:
    """Return the refusal of a file of too many bytes."""
    return ApiError(
        "upload_too_large", f"The file is too large: it may have up to {_megabytes(max_bytes)}."
    )


def _megabytes(size: int) -> str:
    return f"{size / 1024**2:.3g} MB"


def as_api_error(error: Exception) -> ApiError:
    """Turn whatever went wrong with an image into one of the documented errors."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, ImageError):
        return ApiError(error.code, str(error))
    if isinstance(error, DecoderUnavailableError):
        return ApiError("decoder_unavailable", str(error))
    # Only the place is logged: the words of an exception may quote the upload.
    place = "".join(traceback.format_tb(error.__traceback__))
    _logger.error("unexpected %s in %s\n%s", type(error).__name__, request.endpoint, place)
    return ApiError("internal_error")


def register(app: Flask, config: WebConfig) -> None:
    """Let every kind of failure end in one of the documented answers."""

    @app.errorhandler(ApiError)
    @app.errorhandler(ImageError)
    @app.errorhandler(DecoderUnavailableError)
    def answer_known(error: Exception) -> Response:
        return _answer(as_api_error(error))

    @app.errorhandler(RequestEntityTooLarge)
    def answer_large_body(_: Exception) -> Response:
        bounds = map(_megabytes, (config.max_request_bytes, config.max_bytes))
        message = "The request is too large: it may have up to {}, a file up to {}."
        return _answer(ApiError("upload_too_large", message.format(*bounds)))

    @app.errorhandler(ClientDisconnected)
    def answer_broken_upload(_: Exception) -> Response:
        return _answer(ApiError("bad_request", "The upload did not arrive in full. Try again."))

    @app.errorhandler(HTTPException)
    def answer_http_error(error: HTTPException) -> Response:
        code = code_of_status(error.code or 500)
        message = "" if error.code == 404 else error.description or ""
        if isinstance(error, MethodNotAllowed):
            methods = sorted(set(error.valid_methods or ()) - {"HEAD", "OPTIONS"})
            message = f"Use {' or '.join(methods)} at this address."
        headers = {name: value for name, value in error.get_headers() if name != "Content-Type"}
        return _answer_anyone(ApiError(code, message, headers=headers))

    @app.errorhandler(Exception)
    def answer_unexpected(error: Exception) -> Response:
        return _answer_anyone(as_api_error(error))


def _answer(error: ApiError) -> Response:
    g.error_code = error.code  # for the log and the metrics
    return Response(error.text, error.status, error.headers, mimetype="application/json")


def _answer_anyone(error: ApiError) -> Response:
    """Answer a person, whose browser asks for HTML, with a page, and a program with JSON."""
    accepted = request.accept_mimetypes
    is_person = accepted["text/html"] > accepted["application/json"]
    if request.path.startswith(_FOR_PROGRAMS) or not is_person:
        return _answer(error)
    title, _, advice = error.message.partition(".")
    message = _ADVICE.get(error.status, advice.strip())
    page = render_template("error.html", title=title, message=message)
    return Response(page, error.status, error.headers)
