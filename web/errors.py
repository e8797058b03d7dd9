"""Every error as JSON for programs and as a small page for people."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping
from typing import Any

from flask import Flask, Response, g, json, render_template, request
from werkzeug.exceptions import ClientDisconnected, HTTPException, RequestEntityTooLarge

from resformer.images import ImageError
from web.config import WebConfig
from web.service import ModelNotReadyError
from web.work_queue import BusyError, TimeLimitError

API_PREFIXES = ("/predict", "/feedback")
_FOR_PROGRAMS = (*API_PREFIXES, "/model", "/openapi.json", "/healthz", "/readyz", "/metrics")
_IMAGE_STATUS = {
    "unreadable_image": 400,
    "image_too_large": 413,
    "unsupported_format": 415,
    "unsupported_dicom": 415,
}
# The answers that ask to come again, and after how many seconds.
_OVERLOADS: dict[type[Exception], tuple[str, str, int]] = {
    ModelNotReadyError: (
        "model_not_ready",
        "The model is not ready yet. Try again in a moment.",
        5,
    ),
    BusyError: (
        "busy",
        "The server is busy: too many images are waiting. Try again in a moment.",
        1,
    ),
    TimeLimitError: (
        "timeout",
        "The image took too long. Try again in a moment, or scale it down first.",
        5,
    ),
}
_HTTP_CODES = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    413: "upload_too_large",
    415: "unsupported_format",
    500: "internal_error",
}

_UNEXPECTED = "Something went wrong on the server. Try again, or try another image."

_logger = logging.getLogger(__name__)


class ApiError(Exception):
    """A request that is refused, with its status, a code for programs and a text for people.

    `details` are further fields of the answer.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        headers: Mapping[str, str] | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """Keep what the answer will hold."""
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.headers = headers or {}
        self.details = details or {}

    @property
    def body(self) -> dict[str, Any]:
        """What the answer says, as plain data."""
        return {"success": False, "error": self.message, "code": self.code, **self.details}


def upload_too_large(max_bytes: int) -> ApiError:
    """Refuse a request with too many bytes."""
    limit = max_bytes / 1024**2
    return ApiError(
        413,
        "upload_too_large",
        f"The upload is too large: a file may have up to {limit:.3g} MB, and all that is sent at "
        "once a third more.",
    )


def error_body(code: str, message: str) -> str:
    """Return the JSON that an error answers with where there is no application."""
    return json.dumps(ApiError(0, code, message).body, sort_keys=False)


def as_api_error(error: Exception) -> ApiError:
    """Turn whatever went wrong with an image into one of the documented refusals."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, ImageError):
        return ApiError(_IMAGE_STATUS.get(error.code, 400), error.code, str(error))
    if type(error) in _OVERLOADS:
        code, message, seconds = _OVERLOADS[type(error)]
        return ApiError(503, code, message, {"Retry-After": str(seconds)})
    # Only the place is logged: the words of an exception may quote the upload.
    place = "".join(traceback.format_tb(error.__traceback__))
    _logger.error("unexpected %s in %s\n%s", type(error).__name__, request.endpoint, place)
    return ApiError(500, "internal_error", _UNEXPECTED)


def register(app: Flask, config: WebConfig) -> None:
    """Let every kind of failure end in one of the documented answers."""

    def refuse_body(_: RequestEntityTooLarge) -> Response:
        return _answer(upload_too_large(config.max_bytes))

    for kind in (ApiError, ImageError, *_OVERLOADS):
        app.register_error_handler(kind, _answer)
    app.register_error_handler(RequestEntityTooLarge, refuse_body)
    app.register_error_handler(ClientDisconnected, _answer_broken_upload)
    app.register_error_handler(HTTPException, _answer_http_error)
    app.register_error_handler(Exception, _answer_unexpected)


def _answer(error: Exception) -> Response:
    refusal = as_api_error(error)
    g.error_code = refusal.code  # for the log and the metrics
    body = json.dumps(refusal.body, sort_keys=False)
    answer = Response(body, refusal.status, mimetype="application/json")
    answer.headers.update(refusal.headers)
    return answer


def _answer_broken_upload(_: ClientDisconnected) -> Response:
    return _answer(ApiError(400, "bad_request", "The upload did not arrive in full. Try again."))


def _answer_http_error(error: HTTPException) -> Response:
    status = error.code or 500
    message = {404: "There is nothing at this address."}.get(status, error.description or "")
    headers = {name: value for name, value in error.get_headers() if name != "Content-Type"}
    if _wants_json():
        return _answer(ApiError(status, _HTTP_CODES.get(status, "http_error"), message, headers))
    page = render_template("error.html", title=error.name, message=message)
    return Response(page, status, headers)


def _answer_unexpected(error: Exception) -> Response:
    refusal = as_api_error(error)
    if _wants_json():
        return _answer(refusal)
    page = render_template("error.html", title="Something went wrong", message=refusal.message)
    return Response(page, refusal.status)


def _wants_json() -> bool:
    kinds = ("text/html", "application/json")
    asked = request.accept_mimetypes.best_match(kinds, default="text/html")
    return request.path.startswith(_FOR_PROGRAMS) or asked == "application/json"
