"""The document as a page shows it: references followed, types in words."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup, escape

_CODE = re.compile(r"`([^`]+)`")


def read_document(
    document: dict[str, Any], codes: Mapping[int, Mapping[str, str]]
) -> dict[str, Any]:
    """Return what the template needs of an OpenAPI document and of the codes of its refusals."""
    schemas = document["components"]["schemas"]
    return {
        "info": document["info"] | {"description": in_words(document["info"]["description"])},
        "tags": document["tags"],
        "operations": [
            _operation(path, method, operation, schemas)
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
        ],
        "refusals": [
            (status, code, meaning) for status in codes for code, meaning in codes[status].items()
        ],
        "schemas": [
            {
                "name": name,
                "description": in_words(schema.get("description", "")),
                "rows": _rows(schema, schemas),
                "example": _pretty(schema),
            }
            for name, schema in schemas.items()
            if "properties" in schema
        ],
    }


def in_words(text: str) -> Markup:
    """Return text with what stands between backticks as code."""
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(text))))


def type_in_words(schema: dict[str, Any], schemas: dict[str, Any]) -> Markup:
    """Return the type of a value, with a link to the object that it refers to."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        if "properties" not in schemas[name]:
            return type_in_words(schemas[name], schemas)
        return Markup('<a href="#schema-{0}">{0}</a>').format(name)
    if "title" in schema:
        return escape(schema["title"])
    if "const" in schema or "enum" in schema:
        values = schema.get("enum") or [schema["const"]]
        return Markup(", ").join(Markup("<code>{}</code>").format(json.dumps(v)) for v in values)
    if "anyOf" in schema:
        return Markup(" or ").join(type_in_words(part, schemas) for part in schema["anyOf"])
    kind = schema.get("type", "any value")
    if kind == "array":
        return Markup("list of ") + type_in_words(schema["items"], schemas)
    return escape(" or ".join(kind) if isinstance(kind, list) else kind)


def _operation(
    path: str, method: str, operation: dict[str, Any], schemas: dict[str, Any]
) -> dict[str, Any]:
    bodies = operation.get("requestBody", {}).get("content", {})
    responses = operation["responses"]
    kind, content = next(iter(responses["200"]["content"].items()))
    options = {parameter["name"] for parameter in operation.get("parameters", [])}
    return {
        "tag": operation["tags"][0],
        "id": operation["operationId"],
        "method": method.upper(),
        "path": path,
        "summary": operation["summary"],
        "description": in_words(operation.get("description", "")),
        "parameters": [
            (p["name"], type_in_words(p["schema"], schemas), in_words(p["description"]))
            for p in operation.get("parameters", [])
        ],
        "bodies": [
            (kind, [row for row in _rows(body["schema"], schemas) if row[0] not in options])
            for kind, body in bodies.items()
            if body
        ],
        "raw_types": [kind for kind, body in bodies.items() if not body],
        "answer": (
            type_in_words(content["schema"], schemas) if "$ref" in content["schema"] else "",
            kind,
        ),
        "meaning": in_words(responses["200"]["description"]),
        "refusals": sorted(status for status in responses if status != "200"),
        "samples": operation.get("x-codeSamples", []),
    }


def _rows(
    schema: dict[str, Any], schemas: dict[str, Any]
) -> list[tuple[str, bool, Markup, Markup]]:
    """Return name, necessity, type and meaning of every property."""
    needed = schema.get("required", [])
    return [
        (name, name in needed, type_in_words(part, schemas), _meaning(part, schemas))
        for name, part in schema.get("properties", {}).items()
    ]


def _meaning(schema: dict[str, Any], schemas: dict[str, Any]) -> Markup:
    target = schemas.get(schema.get("$ref", "").rpartition("/")[2], {})
    return in_words(schema.get("description") or target.get("description", ""))


def _pretty(schema: dict[str, Any]) -> str:
    examples = schema.get("examples")
    return json.dumps(examples[0], indent=2, ensure_ascii=False) if examples else ""
