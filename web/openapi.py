"""The OpenAPI 3.1 document, with the classes and limits of the application that serves it.

The shapes come from `web.schemas` and the errors from `web.errors`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, models_json_schema
from pydantic_core.core_schema import WithDefaultSchema

from resformer import __version__
from web import schemas
from web.config import WebConfig
from web.errors import CODES, ErrorCode
from web.requests import RAW_TYPES

_RAW_IMAGE_TYPES = (
    *(f"image/{kind}" for kind in ("png", "jpeg", "bmp", "gif", "webp", "tiff")),
    *RAW_TYPES,
)
_HOST = "http://localhost:5000"
_TEXT = {"schema": {"type": "string"}}
_PAGE = {"description": "A page.", "content": {"text/html": _TEXT}}
# What any address may answer with; these are no answers of an operation that is documented.
_EVERYWHERE = (404, 405)
_HEADERS = {
    "Retry-After": {
        "description": "Seconds after which to try again.",
        "schema": {"type": "integer", "minimum": 1},
    },
    "WWW-Authenticate": {
        "description": "The scheme to authenticate with.",
        "schema": {"type": "string"},
    },
}
_HEADERS_OF = {401: "WWW-Authenticate", 429: "Retry-After", 503: "Retry-After"}
_INPUTS = (schemas.PredictForm, schemas.PredictJson, schemas.BatchForm)
_FEEDBACK_INPUTS = (schemas.FeedbackForm, schemas.FeedbackJson)
_OUTPUTS = (schemas.Answer, schemas.BatchAnswer, schemas.ModelCard, schemas.Status)


def build_document(class_names: Sequence[str], config: WebConfig) -> dict[str, Any]:
    """Return the OpenAPI document as plain data.

    Args:
        class_names: of the model, in its order; empty while none is loaded.
        config: limits, whether a key is asked for, and whether images may be kept.
    """
    paths = _paths(config)
    operations = [operation for methods in paths.values() for operation in methods.values()]
    used = {int(status) for operation in operations for status in operation["responses"]}
    stored = (
        ", except the pixels of images that are sent to `/feedback` to be kept"
        if config.keep_feedback
        else ""
    )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ResFormer",
            "summary": "Chest X-ray classifier",
            "description": "Estimates how well a frontal chest X-ray fits each of a few patterns. "
            "A research tool, not a medical device. Images are read in memory, and neither they "
            f"nor their names are stored or logged{stored}. Every failure is answered with "
            "`success: false`, an `error` for people and a `code` for programs.",
            "version": __version__,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [
            {"name": "Classify", "description": "Images in, probabilities out."},
            {"name": "Model", "description": "What answers, and this description."},
            {"name": "Operations", "description": "For those who run the service."},
        ],
        "paths": paths,
        "components": {
            "schemas": _schemas(class_names, config, used),
            "responses": {f"Error{status}": _error(status) for status in sorted(used - {200})},
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


def documented_codes(document: Mapping[str, Any]) -> dict[str, ErrorCode]:
    """Return the errors that the application of a document may answer with."""
    statuses = {int(name.removeprefix("Error")) for name in document["components"]["responses"]}
    return {c: entry for c, entry in CODES.items() if entry.status in (*statuses, *_EVERYWHERE)}


class _GenerateSchema(GenerateJsonSchema):
    """Without titles, which say a name again, and without null for what is left out."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def default_schema(self, schema: WithDefaultSchema) -> JsonSchemaValue:
        found = super().default_schema(schema)
        if found.get("default") is None:
            found.pop("default", None)
        return found


def _schemas(class_names: Sequence[str], config: WebConfig, statuses: set[int]) -> dict[str, Any]:
    feedback = config.keep_feedback
    inputs = (*_INPUTS, *(_FEEDBACK_INPUTS if feedback else ()))
    outputs = (*_OUTPUTS, *((schemas.FeedbackAnswer,) if feedback else ()))
    _, generated = models_json_schema(
        [
            *((model, "validation") for model in inputs),
            *((model, "serialization") for model in outputs),
        ],
        ref_template="#/components/schemas/{model}",
        schema_generator=_GenerateSchema,
    )
    found: dict[str, Any] = generated["$defs"]
    codes = [c for c, e in CODES.items() if e.status in (*statuses, *_EVERYWHERE)]
    found["Error"]["properties"]["code"]["enum"] = codes
    found["BatchForm"]["properties"]["files"]["maxItems"] = config.max_files
    image = found["Answer"]["properties"]["image"]
    image["description"] = f"The decoded image, at most {config.preview_side} pixels a side."
    if class_names:
        found["ClassName"]["enum"] = list(class_names)
        found["Prediction"]["properties"]["all_probabilities"] |= {
            "properties": {
                name: {"type": "number", "minimum": 0, "maximum": 1} for name in class_names
            },
            "required": list(class_names),
            "additionalProperties": False,
        }
        found["Answer"]["examples"] = [_example(class_names)]
    return found


def _example(class_names: Sequence[str]) -> dict[str, Any]:
    first, *others = class_names
    rest = round(0.08 / max(1, len(others)), 3)
    shares = {first: round(1 - rest * len(others), 3)} | dict.fromkeys(others, rest)
    return {
        "success": True,
        "prediction": {
            "predicted_class": first,
            "confidence": shares[first],
            "abstained": False,
            "all_probabilities": shares,
        },
        "model": {"name": "Identity-Mapping ResFormer", "version": "1.0.0", "sha256": "0" * 64},
        "gate": {"accepted": True, "score": 0.98, "threshold": 0.5},
        "warnings": [],
        "image": "iVBORw0KGgo=",
    }


def _reference(model: type[BaseModel]) -> dict[str, Any]:
    return {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}


def _json(description: str, model: type[BaseModel]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": _reference(model)}}


def _error(status: int) -> dict[str, Any]:
    codes = {code: entry.meaning for code, entry in CODES.items() if entry.status == status}
    code, meaning = next(iter(codes.items()))
    example: dict[str, Any] = {"success": False, "error": meaning, "code": code}
    if status == 422:
        example |= {"reason": meaning, "score": 0.02, "threshold": 0.5}
    content = _reference(schemas.Refusal if status == 422 else schemas.Error)
    header = _HEADERS_OF.get(status)
    return {
        "description": "; ".join(f"`{code}`: {meaning}" for code, meaning in codes.items()),
        **({"headers": {header: _HEADERS[header]}} if header else {}),
        "content": {"application/json": {**content, "example": example}},
    }


def _operation(
    tag: str,
    identifier: str,
    summary: str,
    answer: dict[str, Any],
    *errors: int,
    **more: Any,
) -> dict[str, Any]:
    refusals = {
        str(status): {"$ref": f"#/components/responses/Error{status}"} for status in (*errors, 500)
    }
    return {
        "tags": [tag],
        "operationId": identifier,
        "summary": summary,
        **more,
        "responses": {"200": answer, **dict(sorted(refusals.items()))},
    }


def _page(identifier: str, summary: str, *problems: str) -> dict[str, Any]:
    problem = {
        "description": "A page, or JSON where that is asked for, that says what is wrong.",
        "content": {"text/html": _TEXT, "application/json": _reference(schemas.Error)},
    }
    operation = _operation("Model", identifier, summary, _PAGE)
    return operation | {"responses": {"200": _PAGE, **dict.fromkeys((*problems, "500"), problem)}}


def _paths(config: WebConfig) -> dict[str, Any]:
    key: list[dict[str, list[str]]] = [{"bearer": []}, {"key": []}]
    security = {"security": key if config.api_key else [{}, *key]}
    figures = {
        "description": "Requests, latencies, batches, answered classes and refusals.",
        "content": {"text/plain": _TEXT},
    }
    gets = {
        "/model": _operation(
            "Model",
            "model",
            "What the model is, as data",
            _json("The model card.", schemas.ModelCard),
            503,
        ),
        "/about": _page("about", "What the model is, with plots", "503"),
        "/openapi.json": _operation(
            "Model",
            "openapi",
            "This description",
            {
                "description": "This document.",
                "content": {"application/json": {"schema": {"type": "object"}}},
            },
        ),
        "/docs": _page("docs", "This description for people"),
        "/": _page("index", "The page to classify an image by hand"),
        "/healthz": _operation(
            "Operations", "healthz", "Is the process alive?", _json("It is.", schemas.Status)
        ),
        "/readyz": _operation(
            "Operations", "readyz", "Does the model answer?", _json("It does.", schemas.Status), 503
        ),
        "/metrics": _operation(
            "Operations", "metrics", "Figures for Prometheus", figures, 401, **security
        ),
    }
    posts = {"/predict": _predict(config), "/predict/batch": _predict_batch(config)}
    if config.keep_feedback:
        posts["/feedback"] = _feedback()
    return {
        **{path: {"post": operation | security} for path, operation in posts.items()},
        **{path: {"get": operation} for path, operation in gets.items()},
    }


def _parameters(model: type[BaseModel]) -> list[dict[str, Any]]:
    """Return the fields of a model as query parameters."""
    schema = model.model_json_schema(
        ref_template="#/components/schemas/{model}", schema_generator=_GenerateSchema
    )
    return [
        {
            "name": name,
            "in": "query",
            "description": field["description"],
            "schema": {"$ref": field["$ref"]},
        }
        for name, field in schema["properties"].items()
    ]


def _body(*models: type[BaseModel], raw: bool = True) -> dict[str, Any]:
    """Describe a body: a form, perhaps JSON, and perhaps the bare image."""
    kinds = ("multipart/form-data", "application/json")
    content = {kind: _reference(model) for kind, model in zip(kinds, models, strict=False)}
    if raw:
        content |= {kind: {"schema": schemas.BINARY} for kind in _RAW_IMAGE_TYPES}
    return {"required": True, "content": content}


def _samples(sources: Mapping[str, str]) -> list[dict[str, str]]:
    return [
        {"lang": "Shell", "label": label, "source": source} for label, source in sources.items()
    ]


_REFUSALS = (400, 401, 408, 413, 415, 429, 431, 503)


def _predict(config: WebConfig) -> dict[str, Any]:
    samples = {
        "Form": f"curl -F file=@film.png {_HOST}/predict",
        "Body": "curl -H 'Content-Type: application/dicom' --data-binary @film.dcm \\\n"
        f"  '{_HOST}/predict?preview=0'",
        "JSON": 'printf \'{"image": "%s", "explain": true}\' "$(base64 -w0 film.png)" |\n'
        f"  curl --json @- {_HOST}/predict",
    }
    return _operation(
        "Classify",
        "predict",
        "Classify one image",
        _json("The model's estimate.", schemas.Answer),
        *_REFUSALS,
        422,
        description="PNG, JPEG, BMP, GIF, WebP, TIFF (8 or 16 bit) and DICOM, recognised by "
        f"content. Up to {config.max_bytes:,} bytes and {config.max_pixels:,} pixels. Options are "
        "query parameters, or fields of the form or of the JSON, which win. An image that does "
        "not look like a frontal chest X-ray is refused with 422 where the model has a gate; "
        "`force=1` answers nevertheless, with a warning.",
        parameters=_parameters(schemas.Options),
        requestBody=_body(schemas.PredictForm, schemas.PredictJson),
        **{"x-codeSamples": _samples(samples)},
    )


def _predict_batch(config: WebConfig) -> dict[str, Any]:
    sample = (
        f"curl -F files=@first.png -F files=@second.dcm \\\n  '{_HOST}/predict/batch?preview=0'"
    )
    return _operation(
        "Classify",
        "predictBatch",
        "Classify several images",
        _json("A result or an error for each file.", schemas.BatchAnswer),
        *_REFUSALS,
        description=f"Up to {config.max_files} files and {config.max_request_bytes:,} bytes in "
        "all. One result or error for each file, in their order; a bad file spoils no other. The "
        "options are those of `/predict` and hold for all files. The batch is answered within "
        f"{config.time_limit:g} seconds: a file that found no time in them has the error "
        "`timeout`, and may be sent again.",
        parameters=_parameters(schemas.Options),
        requestBody=_body(schemas.BatchForm, raw=False),
        **{"x-codeSamples": _samples({"Form": sample})},
    )


def _feedback() -> dict[str, Any]:
    return _operation(
        "Classify",
        "feedback",
        "Give an image with its right class, to be kept for training",
        _json("It is kept.", schemas.FeedbackAnswer),
        *_REFUSALS,
        403,
        507,
        description="The decoded pixels are kept on the server under the class, and nothing else "
        "of the file. The same image is kept once, under the class that was given last. The class "
        "is a query parameter, or a field of the form or of the JSON, which wins.",
        parameters=_parameters(schemas.FeedbackClass),
        requestBody=_body(schemas.FeedbackForm, schemas.FeedbackJson),
    )
