"""What schemas and operations are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def reference(name: str) -> dict[str, Any]:
    """Return a reference to a schema of the document."""
    return {"$ref": f"#/components/schemas/{name}"}


def json_content(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    """Return an answer of JSON."""
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def object_of(
    properties: dict[str, Any],
    *,
    optional: Sequence[str] = (),
    description: str = "",
    example: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the schema of an object whose properties are required, but for the optional ones."""
    return {
        "type": "object",
        **({"description": description} if description else {}),
        "required": [name for name in properties if name not in optional],
        "properties": properties,
        **({"examples": [example]} if example else {}),
    }
