"""The shapes of what `/predict` and `/predict/batch` answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from web.contract.building import object_of, reference
from web.contract.errors import CODES, error_schema

_PROBABILITY = {"type": "number", "minimum": 0, "maximum": 1}
_PICTURE = {"type": "string", "contentEncoding": "base64", "contentMediaType": "image/png"}
MODEL = {
    "name": {"type": "string"},
    "version": {"type": "string", "description": "Of the package that trained it."},
    "sha256": {
        "type": "string",
        "pattern": "^[0-9a-f]{64}$",
        "description": "Of the checkpoint file.",
    },
}


def answer_schemas(class_names: Sequence[str]) -> dict[str, Any]:
    """Return the schema of an answer and of its parts, by name."""
    return {
        "Answer": _answer(class_names),
        "Prediction": _prediction(class_names),
        "Model": object_of(MODEL, description="Which model answered."),
        "Gate": _gate(),
        "Warning": _warning(),
        "Explanation": _explanation(),
        "Refusal": _refusal(),
        "BatchAnswer": _batch_answer(),
    }


def _answer(class_names: Sequence[str]) -> dict[str, Any]:
    return object_of(
        {
            "success": {"const": True},
            "prediction": reference("Prediction"),
            "model": reference("Model"),
            "gate": {
                "anyOf": [reference("Gate"), {"type": "null"}],
                "description": "Null where the model has no gate.",
            },
            "warnings": {"type": "array", "items": reference("Warning")},
            "image": _PICTURE | {"description": "The decoded image, at most 512 pixels a side."},
            "explanation": reference("Explanation"),
        },
        optional=("image", "explanation"),
        description="What the model makes of an image.",
        example=_example(class_names) if class_names else None,
    )


def _prediction(class_names: Sequence[str]) -> dict[str, Any]:
    shares: dict[str, Any] = {"type": "object", "description": "By class; they sum to 1."}
    if class_names:
        shares |= {
            "properties": {name: _PROBABILITY for name in class_names},
            "required": list(class_names),
            "additionalProperties": False,
        }
    return object_of(
        {
            "predicted_class": reference("ClassName") | {"description": "The most probable class."},
            "confidence": _PROBABILITY | {"description": "Its probability by the model."},
            "abstained": {
                "type": "boolean",
                "description": "Whether the model has seen too few films like this one: then its "
                "probabilities are not to be relied on. False where the model has no abstention.",
            },
            "all_probabilities": shares,
        },
        description="The model's estimate; not the chance that a person is ill.",
    )


def _gate() -> dict[str, Any]:
    return object_of(
        {
            "accepted": {
                "type": "boolean",
                "description": "Whether the image looks like a frontal chest X-ray.",
            },
            "score": {
                **_PROBABILITY,
                "description": "How much the image is like an upright frontal chest X-ray.",
            },
            "threshold": _PROBABILITY | {"description": "The lowest score that is accepted."},
        },
        description="Does the image look like a frontal chest X-ray?",
    )


def _warning() -> dict[str, Any]:
    return object_of(
        {
            "code": {"enum": ["not_a_chest_xray", "uncertain"]},
            "message": {"type": "string", "description": "For people."},
        },
        description="Why to trust the answer less.",
    )


def _explanation() -> dict[str, Any]:
    return object_of(
        {
            "class": reference("ClassName") | {"description": "The class that is explained."},
            "image": _PICTURE
            | {"description": "A transparent picture of the preview's size, to lay over it."},
            "lungs": {
                "type": "array",
                "items": {
                    "type": "array",
                    "items": {"type": "array", "items": _PROBABILITY, "minItems": 2, "maxItems": 2},
                },
                "description": "Outlines of the lungs that the model found, each a closed polygon "
                "of points x, y in shares of the image's width and height. Empty where it found "
                "none, or does not look for them.",
            },
        },
        description="Where the evidence for a class lies.",
    )


def _refusal() -> dict[str, Any]:
    schema = error_schema(list(CODES[422]))
    gate = _gate()["properties"]
    schema["properties"] |= {
        "reason": {"type": "string", "description": "Why, for people."},
        "score": gate["score"],
        "threshold": gate["threshold"],
        "image": _PICTURE | {"description": "The decoded image, unless `preview=0`."},
    }
    schema["required"] += ["reason", "score", "threshold"]
    return schema


def _batch_answer() -> dict[str, Any]:
    return object_of(
        {
            "success": {"const": True},
            "results": {
                "type": "array",
                "description": "One for each file, in their order.",
                "items": {
                    "anyOf": [reference(name) for name in ("Answer", "Refusal", "Error")],
                },
            },
        },
    )


def _example(class_names: Sequence[str]) -> dict[str, Any]:
    first, *others = class_names
    rest = round(0.08 / len(others), 3)
    return {
        "success": True,
        "prediction": {
            "predicted_class": first,
            "confidence": round(1 - rest * len(others), 3),
            "abstained": False,
            "all_probabilities": {first: round(1 - rest * len(others), 3)}
            | dict.fromkeys(others, rest),
        },
        "model": {"name": "Identity-Mapping ResFormer", "version": "1.0.0", "sha256": "0" * 64},
        "gate": {"accepted": True, "score": 0.98, "threshold": 0.5},
        "warnings": [],
        "image": "iVBORw0KGgo=",
    }
