"""What a notebook must not be published with, and its removal."""

from __future__ import annotations

import re
from collections.abc import Iterator

from nbformat import NotebookNode

FILMS_TAG = "films"
# An absolute path of Unix or Windows; not an address on the web, a closing tag or "images/s".
_MACHINE_PATH = re.compile(r"(?<![\w.</:])/[\w.-]+/[\w.-]+|file://|\b[A-Za-z]:\\|(?<!\w)~/\w")


def cells_tagged(notebook: NotebookNode, tag: str) -> list[NotebookNode]:
    """Return the cells that carry a tag."""
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


def remove_films(notebook: NotebookNode) -> None:
    """Take the pictures out of the outputs of the cells tagged ``films``."""
    for cell in cells_tagged(notebook, FILMS_TAG):
        for output in cell.outputs:
            for kind in _pictures(output):
                del output.data[kind]
                output.metadata.pop(kind, None)


def find_private(notebook: NotebookNode) -> list[str]:
    """Name paths of the machine, films and errors, each with the number of its cell."""
    found = []
    for number, cell in enumerate(notebook.cells):
        outputs = cell.get("outputs", [])
        texts = [cell.source, *(text for output in outputs for text in _texts(output))]
        for text in texts:
            paths = _MACHINE_PATH.finditer(text)
            found += [f"cell {number} tells the path {path.group()}" for path in paths]
        if any(output.output_type == "error" for output in outputs):
            found.append(f"cell {number} ended in an error")
        if FILMS_TAG in cell.metadata.get("tags", []) and any(map(_pictures, outputs)):
            found.append(f"cell {number} shows films")
    return found


def _pictures(output: NotebookNode) -> list[str]:
    return [kind for kind in output.get("data", {}) if kind.startswith("image/")]


def _texts(output: NotebookNode) -> Iterator[str]:
    """Yield what a reader sees of an output besides pictures."""
    yield output.get("text", "")
    pictures = _pictures(output)
    yield from (str(v) for kind, v in output.get("data", {}).items() if kind not in pictures)
