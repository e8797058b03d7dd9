"""The whole document, with the classes and limits of the application that serves it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from resformer import __version__
from web.config import WebConfig
from web.contract.errors import documented_codes, error_responses
from web.contract.paths import build_paths
from web.contract.schemas import build_schemas

_DESCRIPTION = (
    "Estimates how well a frontal chest X-ray fits each of a few patterns. "
    "A research tool, not a medical device. {} Every failure is answered with `success: false`, "
    "an `error` for people and a `code` for programs."
)
_NOT_STORED = "Images are read in memory, and neither they nor their names are stored or logged."
_STORED = (
    "Images are read in memory, and neither they nor their names are stored or logged, except "
    "the pixels of images that are sent to `/feedback` to be kept."
)


def build_document(class_names: Sequence[str], config: WebConfig) -> dict[str, Any]:
    """Return the OpenAPI document as plain data.

    Args:
        class_names: of the model, in its order; empty while none is loaded.
        config: limits, whether a key is asked for, and whether images may be kept.
    """
    codes = documented_codes(config)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ResFormer",
            "summary": "Chest X-ray classifier",
            "description": _DESCRIPTION.format(_STORED if config.keep_feedback else _NOT_STORED),
            "version": __version__,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [
            {"name": "Classify", "description": "Images in, probabilities out."},
            {"name": "Model", "description": "What answers, and this description."},
            {"name": "Operations", "description": "For those who run the service."},
        ],
        "paths": build_paths(config),
        "components": {
            "schemas": build_schemas(class_names, codes),
            "responses": error_responses(codes),
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The operator's key, where the server asks for one.",
                },
                "key": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "X-API-Key",
                    "description": "The same key, for clients without bearer tokens.",
                },
            },
        },
    }
