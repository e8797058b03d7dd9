"""Every status that refuses a request, with its codes and what they mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from web.config import WebConfig

CODES: dict[int, dict[str, str]] = {
    400: {
        "no_file": "No image came with the request.",
        "empty_file": "The image has 0 bytes.",
        "unreadable_image": "The image is damaged, or too small to be a film.",
        "bad_base64": "The image in JSON is not strict base64.",
        "bad_option": "An option has a value that it cannot have.",
        "unknown_class": "The model does not know the class to explain.",
        "bad_request": "The request cannot be read.",
    },
    401: {"unauthorized": "The server asks for a key, and none or a wrong one came."},
    408: {"request_timeout": "The request took too long to arrive."},
    413: {
        "upload_too_large": "The file or the request has too many bytes.",
        "image_too_large": "The image has too many pixels.",
        "too_many_files": "The batch has too many files.",
    },
    415: {
        "unsupported_format": "The data is not an image of a supported format.",
        "unsupported_dicom": "The DICOM file is no single grey radiograph, or cannot be read.",
        "unsupported_media_type": "The request has a content type that holds no image.",
    },
    422: {"not_a_chest_xray": "The image does not look like a frontal chest X-ray."},
    429: {"rate_limited": "The client sends more than the operator allows."},
    431: {"bad_request": "The headers of the request are too long."},
    500: {"internal_error": "Something went wrong on the server."},
    503: {
        "model_not_ready": "The model is still loading.",
        "busy": "Too many images are waiting.",
        "timeout": "The image took too long.",
    },
}
_FEEDBACK_CODES: dict[int, dict[str, str]] = {
    403: {"cross_origin": "The request comes from a page of another site."},
    507: {"storage_full": "There is no room for another image."},
}
_RETRY = {
    "Retry-After": {
        "description": "Seconds after which to try again.",
        "schema": {"type": "integer", "minimum": 1},
    }
}
_HEADERS: dict[int, dict[str, Any]] = {
    401: {
        "WWW-Authenticate": {
            "description": "The scheme to authenticate with.",
            "schema": {"type": "string"},
        }
    },
    429: _RETRY,
    503: _RETRY,
}


def documented_codes(config: WebConfig) -> dict[int, dict[str, str]]:
    """Return the codes that an application with these settings refuses with, by status."""
    return dict(sorted((CODES | (_FEEDBACK_CODES if config.keep_feedback else {})).items()))


def name_of(status: int) -> str:
    """Return the name of a status in the document's components."""
    return f"Error{status}"


def refer_to(*statuses: int) -> dict[str, Any]:
    """Return references to the answers with these statuses, for an operation."""
    return {
        str(status): {"$ref": f"#/components/responses/{name_of(status)}"} for status in statuses
    }


def error_responses(codes: Mapping[int, dict[str, str]]) -> dict[str, Any]:
    """Return the answer of every status, by name."""
    return {name_of(status): _response(status, codes[status]) for status in codes}


def error_schema(codes: list[str]) -> dict[str, Any]:
    """Return the schema of an error with one of these codes."""
    return {
        "type": "object",
        "required": ["success", "error", "code"],
        "properties": {
            "success": {"const": False},
            "error": {"type": "string", "description": "What is wrong, for people."},
            "code": {"enum": codes, "description": "What is wrong, for programs."},
        },
    }


def _response(status: int, codes: dict[str, str]) -> dict[str, Any]:
    schema = error_schema(list(codes))
    if status == 422:
        schema = {"$ref": "#/components/schemas/Refusal"}
    code, meaning = next(iter(codes.items()))
    example: dict[str, Any] = {"success": False, "error": meaning, "code": code}
    if status == 422:
        example |= {"reason": meaning, "score": 0.02, "threshold": 0.5}
    return {
        "description": "; ".join(f"`{code}`: {meaning}" for code, meaning in codes.items()),
        **({"headers": _HEADERS[status]} if status in _HEADERS else {}),
        "content": {"application/json": {"schema": schema, "example": example}},
    }
