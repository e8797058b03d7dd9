"""Run the notebook with other parameters and keep only what may be published.

``python -m tests.notebook_runner --data DIR --run-dir RUN`` fills ``notebook.ipynb`` with the
outputs of a real run. Parameters follow the convention of papermill: a cell tagged ``parameters``
holds the defaults and a cell after it, which the result does not keep, overrides them. Pictures of
cells tagged ``films`` are taken out, and a result that tells a path of this machine is refused.
"""

from __future__ import annotations

import argparse
import ast
import copy
import json
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "notebook.ipynb"
PARAMETERS_TAG = "parameters"
_INJECTED_ID = "injected-parameters"
FILMS_TAG = "films"
# An absolute path of Unix or Windows; not an address on the web, a closing tag or "images/s".
_MACHINE_PATH = re.compile(r"(?<![\w.</:])/[\w.-]+/[\w.-]+|file://|\b[A-Za-z]:\\|(?<!\w)~/\w")


def read_notebook(path: Path = NOTEBOOK) -> NotebookNode:
    """Read a notebook."""
    notebook: NotebookNode = nbformat.read(path, as_version=4)
    return notebook


def run_notebook(
    path: Path, parameters: Mapping[str, Any], *, timeout: int | None = None
) -> NotebookNode:
    """Run a notebook in the folder of the repository; the result is not written.

    Args:
        path: of the notebook.
        parameters: values by name, whose ``repr`` is their source.
        timeout: seconds that a cell may take; none for no limit.

    Returns:
        the notebook with its outputs, its own parameters, and without pictures of films.

    Raises:
        CellExecutionError: if a cell fails.
        ValueError: if the notebook has no such parameter.
    """
    notebook = read_notebook(path)
    metadata = copy.deepcopy(notebook.metadata)
    _inject(notebook, parameters)
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        resources={"metadata": {"path": str(ROOT)}},
        record_timing=False,
        coalesce_streams=True,
    )
    client.execute()
    notebook.metadata = metadata
    notebook.cells = [cell for cell in notebook.cells if cell.id != _INJECTED_ID]
    _renumber(notebook)
    remove_films(notebook)
    return notebook


def main(arguments: Sequence[str] | None = None) -> int:
    """Fill a notebook with the outputs of a run; the exit status."""
    options = _parse(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    with tempfile.TemporaryDirectory() as scratch:
        parameters = {
            "dataset_path": str(options.data.resolve()),
            "run_folder": str((options.run_dir or Path(scratch) / "run").resolve()),
            "external_path": str(options.external.resolve()) if options.external else "",
            "changes": options.changes,
            "progress": False,
        }
        try:
            notebook = run_notebook(options.notebook, parameters)
        except (CellExecutionError, ValueError) as error:
            logger.error("error: %s", error)
            return 1
    private = find_private(notebook)
    if private:
        logger.error("not written: %s", "; ".join(private))
        return 1
    _write(notebook, options.notebook)
    logger.info("wrote %s", options.notebook)
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.notebook_runner",
        description="Run the notebook and write it back with its outputs, without films.",
    )
    parser.add_argument("--data", type=Path, required=True, help="folder or .zip of the films")
    parser.add_argument(
        "--run-dir",
        type=Path,
        help="folder of a training with the notebook's options, done or stopped (default: train "
        "anew in a temporary folder)",
    )
    parser.add_argument(
        "--changes",
        type=json.loads,
        default={},
        help="options of the recipe, as '{\"workers\": 0}'",
    )
    parser.add_argument("--external", type=Path, help="folder of films of other hospitals")
    parser.add_argument("--notebook", type=Path, default=NOTEBOOK, help="default: %(default)s")
    return parser.parse_args(arguments)


def _inject(notebook: NotebookNode, parameters: Mapping[str, Any]) -> None:
    """Put a cell with the values after the one that is tagged ``parameters``."""
    (defaults,) = cells_tagged(notebook, PARAMETERS_TAG)
    unknown = sorted(set(parameters) - set(_assigned(defaults.source)))
    if unknown:
        raise ValueError(f"the notebook has no parameter {', '.join(unknown)}")
    lines = [f"{name} = {value!r}" for name, value in parameters.items()]
    cell = nbformat.v4.new_code_cell("\n".join(lines), id=_INJECTED_ID)
    notebook.cells.insert(notebook.cells.index(defaults) + 1, cell)


def _assigned(source: str) -> Iterator[str]:
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))


def _renumber(notebook: NotebookNode) -> None:
    """Count the cells as if the injected one had not been run."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for count, cell in enumerate(code, start=1):
        cell.execution_count = count
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = count


def _write(notebook: NotebookNode, path: Path) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".ipynb")
    os.close(handle)
    try:
        nbformat.write(notebook, temporary)
        Path(temporary).chmod(0o644)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


# What a notebook must not be published with


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


if __name__ == "__main__":
    sys.exit(main())
