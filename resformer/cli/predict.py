"""``python -m resformer predict``: class probabilities of image files and of whole folders."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resformer.cli.options import add_model_option, add_runtime_options

if TYPE_CHECKING:
    from resformer.predict import Predictor

logger = logging.getLogger(__name__)


def add_parser(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "predict",
        help="classify image files, or a folder of them",
        description="Write one line for each file to standard output: the class, its probability "
        "and those of all classes, after the word uncertain where the model has seen too few such "
        "films. Files that cannot be read are named on standard error, and the "
        "exit status is then 1. With --out, classify every image and DICOM file below a folder "
        "into a CSV file; run again, it goes on where it was stopped.",
    )
    parser.add_argument(
        "files", type=Path, nargs="+", metavar="FILE", help="an image, or a folder with --out"
    )
    parser.add_argument("--out", type=Path, help="CSV file for the films of one folder")
    add_model_option(parser)
    parser.add_argument("--json", action="store_true", help="write one JSON object a line")
    add_runtime_options(parser)


def run(options: argparse.Namespace) -> int:
    """Classify; the exit status, 1 if a file could not be read.

    Raises:
        ValueError: if --out is given with anything but one folder, or a folder without --out.
    """
    from resformer.predict import Predictor

    folders = [path for path in options.files if path.is_dir()]
    if options.out and (len(options.files) != 1 or not folders):
        raise ValueError("--out takes one folder: name the folder of your films")
    if folders and not options.out:
        raise ValueError(f"{folders[0]} is a folder: name a CSV file for its films with --out")
    predictor = Predictor.from_file(options.model, options.device, options.backend)
    if options.out:
        return _predict_folder(predictor, folders[0], options.out)
    return _predict_files(predictor, options)


def _predict_folder(predictor: Predictor, folder: Path, out: Path) -> int:
    from resformer.folders import predict_folder

    summary = predict_folder(predictor, folder, out, progress=True)
    logger.info(
        "classified %d films, could not read %d, found %d done before; wrote %s",
        *(summary.classified, summary.failed, summary.skipped, out),
    )
    return 1 if summary.failed else 0


def _predict_files(predictor: Predictor, options: argparse.Namespace) -> int:
    from resformer.images import decode_image

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
            "abstained": prediction.abstained,
            "all_probabilities": prediction.probabilities,
        }
        sys.stdout.write((json.dumps(shown) if options.json else _line(shown)) + "\n")
    return 1 if failures else 0


def _line(shown: dict[str, Any]) -> str:
    others = ", ".join(f"{name} {p:.3f}" for name, p in shown["all_probabilities"].items())
    doubt = "uncertain, " if shown["abstained"] else ""
    return (
        f"{shown['file']}: {doubt}{shown['predicted_class']} {shown['confidence']:.3f} ({others})"
    )
