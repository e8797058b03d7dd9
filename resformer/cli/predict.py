"""``python -m resformer predict``: class probabilities of image files."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path
from typing import Any

from resformer.cli.options import DEFAULT_MODEL

logger = logging.getLogger(__name__)


def add_parser(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "predict",
        help="classify image files",
        description="Write one line for each file to standard output: the class, its probability "
        "and those of all classes. Files that cannot be read are named on standard error, and the "
        "exit status is then 1.",
    )
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="an image")
    parser.add_argument(
        "--model",
        type=Path,
        default=Path(DEFAULT_MODEL),
        help="checkpoint (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="write one JSON object a line")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")


def run(options: argparse.Namespace) -> int:
    """Classify; the exit status, 1 if a file could not be read."""
    from resformer.images import decode_image
    from resformer.inference import Predictor

    predictor = Predictor.from_file(options.model, options.device)
    failures = 0
    for path in options.files:
        try:
            (prediction,) = predictor.predict([decode_image(path.read_bytes())])
        except (OSError, ValueError) as error:
            logger.error("%s: %s", path, error)
            failures += 1
            continue
        shown = {
            "file": str(path),
            "predicted_class": prediction.predicted_class,
            "confidence": prediction.confidence,
            "all_probabilities": prediction.probabilities,
        }
        sys.stdout.write((json.dumps(shown) if options.json else _line(shown)) + "\n")
    return 1 if failures else 0


def _line(shown: dict[str, Any]) -> str:
    others = ", ".join(f"{name} {p:.3f}" for name, p in shown["all_probabilities"].items())
    return f"{shown['file']}: {shown['predicted_class']} {shown['confidence']:.3f} ({others})"
