"""The pages that people see, and the descriptions of model and API that programs read."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
from flask import Blueprint, Response, jsonify, render_template, request
from markupsafe import Markup, escape

from resformer import __version__
from resformer.images import IMAGE_SUFFIXES
from web.config import WebConfig
from web.errors import CODES
from web.model_card import build_card, view_card
from web.openapi import build_document
from web.service import ModelService

# A browser offers only these; files of other names can be dropped.
_DICOM_SUFFIXES = (".dcm", ".dicom", "application/dicom")
_CODE = re.compile(r"`([^`]+)`")


def display_name(name: str) -> str:
    """Return a class, a set or a setting as people read it: Lung_Opacity as Lung opacity.

    The words after the first lose their capital, where that is all that they have: COVID keeps its.
    """
    first, *others = name.replace("_", " ").split() or [""]
    return " ".join([first, *(word.lower() if word.istitle() else word for word in others)])


def percent(share: float | None) -> str:
    """Return a share as a percentage with one decimal; a dash where it does not exist."""
    return "\N{EN DASH}" if share is None else f"{100 * share:.1f}%"


def create_blueprint(config: WebConfig, service: ModelService) -> Blueprint:
    """Return the pages."""
    blueprint = Blueprint("pages", __name__)
    blueprint.add_app_template_filter(display_name)
    blueprint.add_app_template_filter(percent)

    @blueprint.app_context_processor
    def share_version() -> dict[str, str]:
        return {"version": __version__}

    @blueprint.get("/")
    def index() -> str:
        return render_template(
            "index.html",
            class_names=service.class_names,
            names={name: display_name(name) for name in service.class_names},
            has_gate=bool(service.class_names and service.checkpoint.gate),
            can_abstain=bool(service.class_names and service.checkpoint.abstention),
            accept=",".join([*sorted(IMAGE_SUFFIXES), *_DICOM_SUFFIXES]),
            max_bytes=config.max_bytes,
            keeps_images=config.keep_feedback,
            scale=_colour_scale(),
        )

    @blueprint.get("/about")
    def about() -> Response | str:
        if not service.class_names:
            page = render_template(
                "error.html",
                title="The model is still loading",
                message="Come back in a moment.",
            )
            return Response(page, 503, {"Retry-After": "5"})
        return render_template("about.html", **view_card(build_card(service, config)))

    @blueprint.get("/docs")
    def docs() -> str:
        document = build_document(service.class_names, config)
        return render_template("docs.html", **_view_document(document))

    return blueprint


def create_description(config: WebConfig, service: ModelService) -> Blueprint:
    """Return what programs read of the model and of the API: `/model` and `/openapi.json`."""
    blueprint = Blueprint("description", __name__)

    @blueprint.get("/model")
    def model() -> Response:
        return jsonify(build_card(service, config))

    @blueprint.get("/openapi.json")
    def openapi() -> Response:
        return jsonify(build_document(service.class_names, config, request.root_path))

    return blueprint


def _colour_scale() -> list[str]:
    """Return colours along the map of evidence, from the least to the most."""
    # With the package comes PyTorch, which a forking server does without.
    from resformer.explanation import inferno

    levels = np.linspace(0, 255, 9).astype(np.uint8)[None]
    return [f"#{bytes(colour).hex()}" for colour in inferno(levels)[0]]


def _view_document(document: dict[str, Any]) -> dict[str, Any]:
    """Return what the page of the API shows: references followed, types in words."""
    schemas = document["components"]["schemas"]
    return {
        "info": document["info"] | {"description": _in_words(document["info"]["description"])},
        "tags": document["tags"],
        "operations": [
            _operation(path, method, operation, schemas)
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
        ],
        "refusals": [
            (CODES[code].status, code, CODES[code].meaning) for code in schemas["Code"]["enum"]
        ],
        "schemas": [
            {
                "name": name,
                "description": _in_words(schema.get("description", "")),
                "rows": _rows(schema, schemas),
                "example": json.dumps(schema["examples"][0], indent=2, ensure_ascii=False)
                if "examples" in schema
                else "",
            }
            for name, schema in schemas.items()
            if "properties" in schema
        ],
    }


def _in_words(text: str) -> Markup:
    """Return text with what stands between backticks as code."""
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(text))))


def _type_in_words(schema: dict[str, Any], schemas: dict[str, Any]) -> Markup:
    """Return the type of a value, with a link to the object that it refers to."""
    if name := _target(schema):
        if "properties" not in schemas[name]:
            return _type_in_words(schemas[name], schemas)
        return Markup('<a href="#schema-{0}">{0}</a>').format(name)
    if "title" in schema:
        return escape(schema["title"])
    if "const" in schema or "enum" in schema:
        values = schema.get("enum") or [schema["const"]]
        return Markup(", ").join(Markup("<code>{}</code>").format(json.dumps(v)) for v in values)
    if "anyOf" in schema:
        return Markup(" or ").join(_type_in_words(part, schemas) for part in schema["anyOf"])
    kind = schema.get("format") or schema.get("contentEncoding") or schema.get("type", "any value")
    if kind == "array":
        return Markup("list of ") + _type_in_words(schema["items"], schemas)
    return escape(kind)


def _operation(
    path: str, method: str, operation: dict[str, Any], schemas: dict[str, Any]
) -> dict[str, Any]:
    bodies = operation.get("requestBody", {}).get("content", {})
    shown = {
        kind: schemas[_target(b["schema"])] for kind, b in bodies.items() if _target(b["schema"])
    }
    responses = operation["responses"]
    kind, content = next(iter(responses["200"]["content"].items()))
    options = {parameter["name"] for parameter in operation.get("parameters", [])}
    return {
        "tag": operation["tags"][0],
        "id": operation["operationId"],
        "method": method.upper(),
        "path": path,
        "summary": operation["summary"],
        "description": _in_words(operation.get("description", "")),
        "parameters": [
            (p["name"], _type_in_words(p["schema"], schemas), _in_words(p["description"]))
            for p in operation.get("parameters", [])
        ],
        "bodies": [
            (kind, [row for row in _rows(schema, schemas) if row[0] not in options])
            for kind, schema in shown.items()
        ],
        "raw_types": [kind for kind in bodies if kind not in shown],
        "answer": (
            _type_in_words(content["schema"], schemas) if "$ref" in content["schema"] else "",
            kind,
        ),
        "meaning": _in_words(responses["200"]["description"]),
        "refusals": sorted(status for status in responses if status != "200"),
        "samples": operation.get("x-codeSamples", []),
    }


def _rows(
    schema: dict[str, Any], schemas: dict[str, Any]
) -> list[tuple[str, bool, Markup, Markup]]:
    """Return name, necessity, type and meaning of every property."""
    needed = schema.get("required", [])
    return [
        (name, name in needed, _type_in_words(part, schemas), _meaning(part, schemas))
        for name, part in schema.get("properties", {}).items()
    ]


def _meaning(schema: dict[str, Any], schemas: dict[str, Any]) -> Markup:
    target = schemas.get(_target(schema), {})
    return _in_words(schema.get("description") or target.get("description", ""))


def _target(schema: dict[str, Any]) -> str:
    """Return the name of the schema that another one refers to; empty if it refers to none."""
    return str(schema.get("$ref", "")).rpartition("/")[2]
