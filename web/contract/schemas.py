"""The shapes of what goes in and out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from web.contract.answers import MODEL, answer_schemas
from web.contract.building import object_of
from web.contract.errors import error_schema

_FLAG_VALUES = ["0", "1", "false", "true"]


def build_schemas(
    class_names: Sequence[str], errors: Mapping[int, Mapping[str, str]]
) -> dict[str, Any]:
    """Return every schema by its name; the errors are codes and meanings by status."""
    class_name: dict[str, Any] = {"type": "string", "description": "A class of the model."}
    if class_names:
        class_name["enum"] = list(class_names)
    codes = [code for status in errors for code in errors[status] if status != 422]
    return {
        **answer_schemas(class_names),
        "Error": error_schema(list(dict.fromkeys(codes))),
        "ClassName": class_name,
        "Flag": {"title": "0 or 1", "enum": _FLAG_VALUES},
        "JsonFlag": {"title": "false or true", "enum": [False, True, 0, 1, *_FLAG_VALUES]},
        "ModelCard": _model_card(),
    }


def _model_card() -> dict[str, Any]:
    """Return the parts that are always there; what a training wrote is described in words."""
    return object_of(
        {
            **MODEL,
            "classes": {"type": "array", "items": {"type": "string"}},
            "parameters": {"type": "integer", "description": "Weights that were learned."},
            "input": {"type": "object", "description": "Size and normalisation of the input."},
            "network": {"type": "object", "description": "Everything that describes the network."},
            "temperature": {"type": "number", "description": "Divides the logits (calibration)."},
            "gate": {"type": ["object", "null"], "description": "What decides on refusal."},
            "abstention": {
                "type": ["object", "null"],
                "description": "The thresholds that decide whether a film is abstained on.",
            },
            "metrics": {
                "type": "object",
                "description": "Reports by split: estimates with 95 % bootstrap intervals; "
                "under report, those of other hospitals, controls and sources.",
            },
            "training": {
                "type": "object",
                "description": "Films by split, configuration, best epoch and history.",
            },
            "earlier_trainings": {
                "type": "array",
                "items": {"type": "object"},
                "description": "Those whose weights it started from, oldest first, told alike; "
                "averaged is true where their mean was taken.",
            },
            "versions": {"type": "object", "description": "Of the libraries that trained it."},
            "intended_use": {"type": "string"},
            "limitations": {"type": "array", "items": {"type": "string"}},
            "limits": {"type": "object", "description": "What a request may hold."},
        },
    )
