"""Every error as JSON for programs and as a small page for people."""

from __future__ import annotations

import logging
import traceback

from flask import Flask, Response, json, render_template, request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from resformer.images import ImageError
from web.config import WebConfig
from web.service import ModelNotReadyError

API_PREFIX = "/predict"
_IMAGE_STATUS = {"unreadable_image": 400, "image_too_large": 413, "unsupported_format": 415}
_HTTP_CODES = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    413: "upload_too_large",
    415: "unsupported_format",
    500: "internal_error",
}

_logger = logging.getLogger(__name__)


class ApiError(Exception):
    """A request that is refused, with its status, a code for programs and a text for people."""

    def __init__(self, status: int, code: str, message: str) -> None:
        """Keep what the answer will hold."""
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


def upload_too_large(max_bytes: int) -> ApiError:
    """Refuse a request with too many bytes."""
    limit = max_bytes / 1024**2
    return ApiError(
        413,
        "upload_too_large",
        f"The upload is too large: a file may have up to {limit:.3g} MB.",
    )


def error_body(code: str, message: str) -> str:
    """Return the JSON that every error answers with."""
    return json.dumps({"success": False, "error": message, "code": code}, sort_keys=False)


def register(app: Flask, config: WebConfig) -> None:
    """Let every kind of failure end in one of the documented answers."""

    def refuse_body(_: RequestEntityTooLarge) -> Response:
        return _answer_api_error(upload_too_large(config.max_bytes))

    app.register_error_handler(ApiError, _answer_api_error)
    app.register_error_handler(ImageError, _answer_image_error)
    app.register_error_handler(ModelNotReadyError, _answer_not_ready)
    app.register_error_handler(RequestEntityTooLarge, refuse_body)
    app.register_error_handler(HTTPException, _answer_http_error)
    app.register_error_handler(Exception, _answer_unexpected)


def _json(status: int, code: str, message: str) -> Response:
    return Response(error_body(code, message), status, mimetype="application/json")


def _answer_api_error(error: ApiError) -> Response:
    return _json(error.status, error.code, error.message)


def _answer_image_error(error: ImageError) -> Response:
    return _json(_IMAGE_STATUS.get(error.code, 400), error.code, str(error))


def _answer_not_ready(_: ModelNotReadyError) -> Response:
    answer = _json(503, "model_not_ready", "The model is not ready yet. Try again in a moment.")
    answer.headers["Retry-After"] = "5"
    return answer


def _answer_http_error(error: HTTPException) -> Response:
    status = error.code or 500
    message = {404: "There is nothing at this address."}.get(status, error.description or "")
    answer = Response(status=status)
    if _wants_json():
        answer = _json(status, _HTTP_CODES.get(status, "http_error"), message)
    else:
        answer.set_data(render_template("error.html", title=error.name, message=message))
    for name, value in error.get_headers():
        if name != "Content-Type":
            answer.headers[name] = value
    return answer


def _answer_unexpected(error: Exception) -> Response:
    # Only the place is logged: the words of an exception may quote the upload.
    place = "".join(traceback.format_tb(error.__traceback__))
    _logger.error("unexpected %s in %s\n%s", type(error).__name__, request.endpoint, place)
    message = "Something went wrong on the server. Try again, or try another image."
    if _wants_json():
        return _json(500, "internal_error", message)
    return Response(
        render_template("error.html", title="Something went wrong", message=message), 500
    )


def _wants_json() -> bool:
    kinds = ("text/html", "application/json")
    asked = request.accept_mimetypes.best_match(kinds, default="text/html")
    return request.path.startswith(API_PREFIX) or asked == "application/json"
