"""Every address of the application, with what it takes and answers."""

from __future__ import annotations

from typing import Any

from web.config import WebConfig
from web.contract.building import json_content, reference
from web.contract.classify import batch_operation, predict_operation
from web.contract.errors import refer_to
from web.contract.feedback import feedback_operation

_TEXT = {"schema": {"type": "string"}}
_PAGE = {"description": "A page.", "content": {"text/html": _TEXT}}
_PROBLEM = {
    "description": "A page, or JSON where that is asked for, that says what is wrong.",
    "content": {"text/html": _TEXT, "application/json": {"schema": reference("Error")}},
}
_FIGURES = {
    "description": "Requests, latencies, answered classes and refusals.",
    "content": {"text/plain": _TEXT},
}


def build_paths(config: WebConfig) -> dict[str, Any]:
    """Return the operations by path and method."""
    key: list[dict[str, list[str]]] = [{"bearer": []}, {"key": []}]
    security = {"security": key if config.api_key else [{}, *key]}
    return {
        "/predict": {"post": predict_operation(config) | security},
        "/predict/batch": {"post": batch_operation(config) | security},
        **(
            {"/feedback": {"post": feedback_operation() | security}} if config.keep_feedback else {}
        ),
        **{path: {"get": operation} for path, operation in _model_operations().items()},
        "/healthz": {
            "get": _operation(
                "Operations", "healthz", "Is the process alive?", _status("alive", "ok")
            )
        },
        "/readyz": {
            "get": _operation(
                "Operations", "readyz", "Does the model answer?", _status("ready", "ready"), 503
            )
        },
        "/metrics": {
            "get": _operation("Operations", "metrics", "Figures for Prometheus", _FIGURES, 401)
            | security
        },
    }


def _model_operations() -> dict[str, Any]:
    card = json_content("The model card.", reference("ModelCard"))
    document = json_content("This document.", {"type": "object"})
    return {
        "/model": _operation("Model", "model", "What the model is, as data", card, 503),
        "/about": _page("about", "What the model is, with plots", "503"),
        "/openapi.json": _operation("Model", "openapi", "This description", document),
        "/docs": _page("docs", "This description for people"),
        "/": _page("index", "The page to classify an image by hand"),
    }


def _page(identifier: str, summary: str, *problems: str) -> dict[str, Any]:
    responses = {"200": _PAGE, **dict.fromkeys((*problems, "500"), _PROBLEM)}
    return _operation("Model", identifier, summary, _PAGE) | {"responses": responses}


def _operation(
    tag: str, identifier: str, summary: str, answer: dict[str, Any], *errors: int
) -> dict[str, Any]:
    return {
        "tags": [tag],
        "operationId": identifier,
        "summary": summary,
        "responses": {"200": answer, **refer_to(*errors, 500)},
    }


def _status(meaning: str, word: str) -> dict[str, Any]:
    schema = {
        "type": "object",
        "required": ["status"],
        "properties": {"status": {"const": word}},
    }
    return json_content(f"It is {meaning}.", schema)
