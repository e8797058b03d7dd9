"""The command line: ``python -m resformer COMMAND``, see ``--help`` for the commands.

Each module adds one command or a few of a kind; heavy libraries are imported when a command runs,
so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from resformer import __version__
from resformer.cli import checkpoint, evaluate, predict, report, score, train
from resformer.image_errors import DecoderUnavailableError

logger = logging.getLogger(__name__)

_INTERRUPTED = 130


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="python -m resformer",
        description="Train, evaluate and use a chest X-ray classifier. "
        "A research tool, not a medical device.",
    )
    parser.add_argument("--version", action="version", version=f"resformer {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add_command in (
        train.add_parser,
        evaluate.add_evaluate,
        evaluate.add_controls,
        evaluate.add_external,
        report.add_parser,
        predict.add_parser,
        score.add_parser,
        checkpoint.add_fit_gate,
        checkpoint.add_export,
    ):
        add_command(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Return the exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    options = build_parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        return int(options.run(options))
    except KeyboardInterrupt:
        logger.warning("interrupted")
        return _INTERRUPTED
    except (ValueError, OSError, FloatingPointError, DecoderUnavailableError) as error:
        logger.error("error: %s", error)
        return 1
