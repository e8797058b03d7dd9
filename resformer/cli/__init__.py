"""The command line: ``python -m resformer COMMAND``, see ``--help`` for the commands.

Each command lives in a module of its own with ``add_parser`` and ``run``; heavy libraries are
imported by ``run``, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from typing import Any

from resformer import __version__
from resformer.cli import (
    controls,
    evaluate,
    export,
    external,
    fit_gate,
    predict,
    report,
    score,
    train,
)

logger = logging.getLogger(__name__)

_INTERRUPTED = 130


def _commands() -> dict[str, Any]:
    """Return the modules of the commands by the names that these have on the command line."""
    modules = (train, evaluate, controls, external, report, predict, score, fit_gate, export)
    return {module.__name__.rsplit(".", 1)[1].replace("_", "-"): module for module in modules}


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="python -m resformer",
        description="Train, evaluate and use a chest X-ray classifier. "
        "A research tool, not a medical device.",
    )
    parser.add_argument("--version", action="version", version=f"resformer {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in _commands().values():
        command.add_parser(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    options = build_parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        return int(_commands()[options.command].run(options))
    except KeyboardInterrupt:
        logger.warning("interrupted")
        return _INTERRUPTED
    except (ValueError, OSError, FloatingPointError) as error:
        logger.error("error: %s", error)
        return 1
