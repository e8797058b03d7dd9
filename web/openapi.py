"""The OpenAPI 3.1 document, with the classes and limits of the application that serves it.

The shapes come from ``web.schemas`` and the errors from ``web.errors``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, models_json_schema
from pydantic_core.core_schema import WithDefaultSchema

from resformer import __version__
from web import schemas
from web.config import WebConfig
from web.errors import API_VERSION, CODES
from web.requests import RAW_TYPES

IMAGES = ("png", "jpeg", "bmp", "gif", "webp", "tiff")
README_ADDRESS = "http://localhost:5000"  # in every sample, until a server puts its own there
_REFERENCE = "#/components/schemas/{model}"
_TEXT = {"schema": {"type": "string"}}
_INPUTS = (schemas.PredictForm, schemas.PredictJson, schemas.BatchForm)
_OUTPUTS = (
    schemas.Answer,
    schemas.BatchAnswer,
    schemas.Error,
    schemas.Refusal,
    schemas.ModelCard,
    schemas.Status,
)
_REFUSALS = (400, 401, 408, 413, 415, 429, 431, 500, 503)
# What any address may answer with, and no operation that is documented does.
_EVERYWHERE = {404, 405, 421}
_RETRY_AFTER = {
    "Retry-After": {
        "description": "Seconds after which to try again.",
        "schema": {"type": "integer", "minimum": 1},
    }
}
_AUTHENTICATE = {
    "WWW-Authenticate": {"description": "The scheme to authenticate with.", **_TEXT},
}
_HEADERS = {401: _AUTHENTICATE, 429: _RETRY_AFTER, 503: _RETRY_AFTER}
_DESCRIPTION = (
    "Estimates how well a frontal chest X-ray fits each of a few patterns. A research tool, not a "
    "medical device. Images are read in memory, and neither they nor their names are stored or "
    "logged{}. Every failure is answered with `success: false`, an `error` for people and a `code` "
    "for programs."
)
_TAGS = {
    "Classify": "Images in, probabilities out.",
    "Model": "Which model answers, and this description.",
    "Operations": "For those who run the service.",
}
_SECURITY = {
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
}
_SAMPLES = {
    "Form": f"curl -F file=@film.png {README_ADDRESS}/v1/predict",
    "Body": "curl -H 'Content-Type: application/dicom' --data-binary @film.dcm \\\n"
    f"  '{README_ADDRESS}/v1/predict?preview=0'",
    "JSON": 'printf \'{"image": "%s", "explain": true}\' "$(base64 -w0 film.png)" |\n'
    f"  curl --json @- {README_ADDRESS}/v1/predict",
}
_BATCH_SAMPLES = {
    "Form": "curl -F files=@first.png -F files=@second.dcm \\\n"
    f"  '{README_ADDRESS}/v1/predict/batch?preview=0'"
}


def build_document(
    class_names: Sequence[str], config: WebConfig, address: str = README_ADDRESS
) -> dict[str, Any]:
    """Return the OpenAPI document as plain data.

    Args:
        class_names: of the model, in its order; empty while none is loaded.
        config: limits, whether a key is asked for, and whether images may be kept.
        address: by which the server was asked, with the path that a proxy serves it under.
    """
    paths = _paths(config, address)
    operations = [operation for methods in paths.values() for operation in methods.values()]
    used = {int(status) for operation in operations for status in operation["responses"]}
    kept = ", except the pixels of images that are sent to `/feedback` to be kept"
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ResFormer",
            "summary": "Chest X-ray classifier",
            "description": _DESCRIPTION.format(kept if config.keep_feedback else ""),
            "version": __version__,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": urlsplit(address).path or "/"}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": _schemas(class_names, config, used | _EVERYWHERE),
            "responses": {f"Error{status}": _error(status) for status in sorted(used - {200})},
            "securitySchemes": _SECURITY,
        },
    }


class _GenerateSchema(GenerateJsonSchema):
    """Without titles, which say a name again, and without null for what is left out."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def default_schema(self, schema: WithDefaultSchema) -> JsonSchemaValue:
        found = super().default_schema(schema)
        return {name: part for name, part in found.items() if (name, part) != ("default", None)}


def _schemas(class_names: Sequence[str], config: WebConfig, statuses: set[int]) -> dict[str, Any]:
    inputs: list[type[BaseModel]] = [*_INPUTS]
    outputs: list[type[BaseModel]] = [*_OUTPUTS]
    if config.keep_feedback:
        inputs += [schemas.FeedbackForm, schemas.FeedbackJson]
        outputs += [schemas.FeedbackAnswer]
    _, generated = models_json_schema(
        [
            *((model, "validation") for model in inputs),
            *((model, "serialization") for model in outputs),
        ],
        ref_template=_REFERENCE,
        schema_generator=_GenerateSchema,
    )
    found: dict[str, Any] = generated["$defs"]
    codes = [code for code, entry in CODES.items() if entry.status in statuses]
    found["Code"]["enum"] = codes
    found["BatchForm"]["properties"]["files"]["maxItems"] = config.max_files
    preview = (
        f"The decoded image, at most {config.preview_side} pixels a side, or as `preview` says."
    )
    for name in ("Answer", "FileAnswer"):
        found[name]["properties"]["image"]["description"] = preview
    if class_names:
        found["ClassName"]["enum"] = list(class_names)
        probabilities = found["Prediction"]["properties"]["all_probabilities"]
        one = probabilities.pop("additionalProperties")
        probabilities["additionalProperties"] = False
        probabilities["properties"] = {name: one for name in class_names}
        probabilities["required"] = list(class_names)
        found["Answer"]["examples"] = [_example(class_names)]
    return found


def _example(class_names: Sequence[str]) -> dict[str, Any]:
    first, *others = class_names
    no_orientation = {"orientation": None, "correction": None}
    rest = round(0.08 / max(1, len(others)), 3)
    shares = {first: round(1 - rest * len(others), 3)} | dict.fromkeys(others, rest)
    return {
        "success": True,
        "api_version": API_VERSION,
        "prediction": {
            "predicted_class": first,
            "confidence": shares[first],
            "abstained": False,
            "reason": None,
            "all_probabilities": shares,
            "track_record": {"called": 200, "right": 184},
        },
        "model": {"name": "Identity-Mapping ResFormer", "version": "0" * 12, "sha256": "0" * 64},
        "gate": {"accepted": True, "score": 0.98, "threshold": 0.5} | no_orientation,
        "warnings": [],
        "dicom": None,
        "image": "iVBORw0KGgo=",
    }


def _reference(model: type[BaseModel]) -> dict[str, Any]:
    return {"schema": {"$ref": _REFERENCE.format(model=model.__name__)}}


def _json(description: str, model: type[BaseModel]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": _reference(model)}}


def _error(status: int) -> dict[str, Any]:
    codes = {code: entry.meaning for code, entry in CODES.items() if entry.status == status}
    code, meaning = next(iter(codes.items()))
    meanings = "; ".join(f"`{code}`: {meaning}" for code, meaning in codes.items())
    example: dict[str, Any] = {"success": False, "error": meaning, "code": code}
    if status == 422:
        example |= {
            "reason": meaning,
            "score": 0.02,
            "threshold": 0.5,
            "orientation": "upside_down",
            "correction": {"invert": False, "rotate": 180},
            "dicom": None,
        }
    answer = _json(meanings, schemas.Refusal if status == 422 else schemas.Error)
    answer["content"]["application/json"]["example"] = example
    return answer | ({"headers": _HEADERS[status]} if status in _HEADERS else {})


def _operation(
    tag: str, identifier: str, summary: str, answer: dict[str, Any], *errors: int
) -> dict[str, Any]:
    responses = {"200": answer}
    for status in sorted({*errors, 500}):
        responses[str(status)] = {"$ref": f"#/components/responses/Error{status}"}
    return {"tags": [tag], "operationId": identifier, "summary": summary, "responses": responses}


def _paths(config: WebConfig, address: str) -> dict[str, Any]:
    key: list[dict[str, list[str]]] = [{"bearer": []}, {"key": []}]
    security = {"security": key if config.api_key else [{}, *key]}
    card = _json("The model card.", schemas.ModelCard)
    document = {
        "description": "This document.",
        "content": {"application/json": {"schema": {"type": "object"}}},
    }
    figures = {
        "description": "Requests, latencies, batches, answered classes and refusals.",
        "content": {"text/plain": _TEXT},
    }
    alive, ready = (_json(text, schemas.Status) for text in ("It is alive.", "It is ready."))
    root = f"/v{API_VERSION}"
    classify = {
        f"{root}/predict": _predict(config, address),
        f"{root}/predict/batch": _predict_batch(config, address),
    }
    if config.keep_feedback:
        classify[f"{root}/feedback"] = _feedback()
    operations = "Operations"
    described = {
        f"{root}/model": _operation("Model", "model", "What the model is, as data", card, 503),
        f"{root}/openapi.json": _operation("Model", "openapi", "This description", document),
        "/healthz": _operation(operations, "healthz", "Is the process alive?", alive),
        "/readyz": _operation(operations, "readyz", "Does the model answer?", ready, 503),
        "/metrics": _operation(operations, "metrics", "Figures for Prometheus", figures, 401)
        | security,
    }
    return {path: {"post": operation | security} for path, operation in classify.items()} | {
        path: {"get": operation} for path, operation in described.items()
    }


def _parameters(model: type[BaseModel]) -> list[dict[str, Any]]:
    """Return the fields of a model as query parameters."""
    schema = model.model_json_schema(ref_template=_REFERENCE, schema_generator=_GenerateSchema)
    return [
        {
            "name": name,
            "in": "query",
            "description": field["description"],
            "schema": {"$ref": field["$ref"]},
        }
        for name, field in schema["properties"].items()
    ]


def _body(form: type[BaseModel], document: type[BaseModel] | None = None) -> dict[str, Any]:
    """Describe a body: a form; where there is a document, also JSON or the bare image."""
    content = {"multipart/form-data": _reference(form)}
    if document:
        content["application/json"] = _reference(document)
        for kind in (*(f"image/{name}" for name in IMAGES), *RAW_TYPES):
            content[kind] = {"schema": schemas.BINARY}
    return {"required": True, "content": content}


def _samples(sources: Mapping[str, str], address: str) -> list[dict[str, str]]:
    return [
        {"lang": "Shell", "label": label, "source": source.replace(README_ADDRESS, address)}
        for label, source in sources.items()
    ]


def _predict(config: WebConfig, address: str) -> dict[str, Any]:
    answer = _json("The model's estimate.", schemas.Answer)
    return _operation("Classify", "predict", "Classify one image", answer, *_REFUSALS, 422) | {
        "description": (
            "PNG, JPEG, BMP, GIF, WebP, TIFF (8 or 16 bit) and DICOM, recognised by content. "
            f"Up to {config.max_bytes:,} bytes and {config.max_pixels:,} pixels. Options are "
            "query parameters, or fields of the form or of the JSON, which have precedence. Where "
            "the model has a gate, an image that does not look like a frontal chest X-ray is "
            "refused with 422; `force=1` answers nevertheless, with a warning. A film that is "
            "refused because it is inverted or not upright comes with the `correction`: the "
            "options `invert` and `rotate` with which to send it again."
        ),
        "parameters": _parameters(schemas.Options),
        "requestBody": _body(schemas.PredictForm, schemas.PredictJson),
        "x-codeSamples": _samples(_SAMPLES, address),
    }


def _predict_batch(config: WebConfig, address: str) -> dict[str, Any]:
    answer = _json("A result or an error for each file.", schemas.BatchAnswer)
    summary = "Classify several images"
    return _operation("Classify", "predictBatch", summary, answer, *_REFUSALS) | {
        "description": (
            f"Up to {config.max_files} files and {config.max_request_bytes:,} bytes in all. "
            "One result or error for each file, in their order; a bad file spoils no other. "
            "The options are those of `/predict` and hold for all files. The batch is answered "
            f"within {config.time_limit:g} seconds: a file that found no time in them has the "
            "error `timeout`, and may be sent again."
        ),
        "parameters": _parameters(schemas.Options),
        "requestBody": _body(schemas.BatchForm),
        "x-codeSamples": _samples(_BATCH_SAMPLES, address),
    }


def _feedback() -> dict[str, Any]:
    answer = _json("It is kept.", schemas.FeedbackAnswer)
    summary = "Give an image with its right class, to be kept for training"
    return _operation("Classify", "feedback", summary, answer, *_REFUSALS, 403, 422, 507) | {
        "description": (
            "The decoded pixels are kept, upright, on the server under the class, and nothing else "
            "of the file. The same image is kept once, under the class that was given last. What "
            "the gate of the model refuses is not kept. The class is a query parameter, or a field "
            "of the form or of the JSON, which has precedence."
        ),
        "parameters": _parameters(schemas.FeedbackClass),
        "requestBody": _body(schemas.FeedbackForm, schemas.FeedbackJson),
    }
