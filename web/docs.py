"""The page of the API: the OpenAPI document in words, and programs to copy."""

from __future__ import annotations

import json
import re
from typing import Any

from markupsafe import Markup, escape

from web.config import PAGES
from web.errors import CODES
from web.openapi import README_ADDRESS

_CODE = re.compile(r"`([^`]+)`")
_SAMPLES = PAGES / "templates" / "samples"
_TASKS = {
    "one": ("One film", "Classified, or refused with a reason."),
    "batch": (
        "A batch",
        "Several films in one request; each result says whose it is, by index and name.",
    ),
    "folder": (
        "A folder of hundreds",
        "Four requests at a time, so that one is on its way while others are in work. A film that "
        "is refused (4xx) spoils no other; where the server is busy or limits its clients (503, "
        "429), the program tries again after the number of seconds that `Retry-After` names.",
    ),
}
_LANGUAGES = {"py": "Python", "mjs": "JavaScript", "sh": "curl"}


def list_samples(address: str) -> list[dict[str, Any]]:
    """Return programs for each task in each language, with the server's own address in them."""
    return [
        {
            "name": name,
            "title": title,
            "note": _in_words(note),
            "programs": [
                (kind, language, _read_sample(f"{name}.{kind}", address))
                for kind, language in _LANGUAGES.items()
            ],
        }
        for name, (title, note) in _TASKS.items()
    ]


def _read_sample(name: str, address: str) -> str:
    text = (_SAMPLES / name).read_text(encoding="utf-8")
    return text.replace(README_ADDRESS, address).rstrip()


def view_document(document: dict[str, Any]) -> dict[str, Any]:
    """Return what the page of the API shows: references followed, types in words."""
    schemas = document["components"]["schemas"]
    bases = {f"File{name}": name for name in schemas}  # one file of a batch is answered alike
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
                "base": bases.get(name),
                "rows": [
                    row
                    for row in _rows(schema, schemas)
                    if row[0] not in schemas.get(bases.get(name), {}).get("properties", {})
                ],
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
        if name == "Code":
            return Markup('<a href="#refusals">a code</a>')
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
