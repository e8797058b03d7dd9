"""Options that several commands have, and how a command is added."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from resformer import find_shipped_model

Commands: TypeAlias = "argparse._SubParsersAction[Any]"

_SHARED: dict[str, dict[str, Any]] = {
    "model": {"type": Path, "help": "checkpoint"},
    "data": {
        "type": Path,
        "required": True,
        "action": "append",
        "metavar": "DIR",
        "help": "folder or .zip of films, laid out as for train; may be given more than once",
    },
    "split": {"choices": ("train", "validation", "test"), "help": "split of the manifest"},
    "out": {"type": Path, "help": "folder to write the report to"},
    "lung-model": {
        "type": Path,
        "help": "checkpoint with a lung head, which outlines the lungs (default: the model, if it "
        "has one)",
    },
    "outliers": {
        "type": Path,
        "metavar": "DIR",
        "help": "folder of pictures that the gate is to refuse because they are no chest X-rays, a "
        "subfolder for each kind; others are drawn in any case",
    },
    "overwrite": {"action": "store_true", "help": "replace the output file if it exists"},
    "device": {"default": "auto", "help": "auto, cpu, cuda, cuda:1 or mps"},
    "backend": {
        "default": "auto",
        "help": "what runs the network: torch, onnxruntime, or auto for the faster of the two; the "
        "results are the same",
    },
}


def add_command(
    commands: Commands,
    name: str,
    run: Callable[[argparse.Namespace], int],
    text: str,
    description: str,
) -> argparse.ArgumentParser:
    """Add a command, with a line of help and what it does in full; ``run`` is called for it."""
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=description)
    parser.set_defaults(run=run)
    return parser


def add_shared(parser: argparse._ActionsContainer, *names: str, **defaults: str) -> None:
    """Add options of these names, and others with the defaults that they have in this command."""
    for name in (*names, *defaults):
        how = dict(_SHARED[name])
        if name == "model":
            how["default"] = find_shipped_model()
        if name in defaults:
            how["default"] = defaults[name]
        if "default" in how:
            how["help"] += " (default: %(default)s)"
        parser.add_argument(f"--{name}", **how)


def add_path(parser: argparse._ActionsContainer, flag: str, text: str, **how: Any) -> None:
    """Add an option that takes a path."""
    parser.add_argument(flag, type=Path, help=text, **how)


def check_out(out: Path, *, overwrite: bool) -> None:
    """Make sure before the work that a checkpoint can be written, and replaces nothing unasked.

    Raises:
        OSError: if it cannot, or there is a file and ``overwrite`` is not given.
    """
    from resformer.training.state import CHECKPOINT_BYTES, check_space

    if out.is_dir():
        raise IsADirectoryError(f"{out} is a folder: name a file")
    if out.exists() and not overwrite:
        raise FileExistsError(f"{out} is there already: pass --overwrite, or name another file")
    check_space(out.parent, CHECKPOINT_BYTES)


def add_flag(parser: argparse._ActionsContainer, flag: str, text: str) -> None:
    """Add an option that is there or not."""
    parser.add_argument(flag, action="store_true", help=text)
