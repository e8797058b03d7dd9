"""``python -m resformer external``: a checkpoint on films of other hospitals."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

from resformer.cli.options import add_device_option, add_model_option, add_report_option

logger = logging.getLogger(__name__)


def add_parser(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "external",
        help="measure a checkpoint on films of other hospitals, listed with their findings",
        description="Classify the films that labels.csv lists (columns set, file, finding; a film "
        "lies at <set>/<file>), and write external.json and the same as tables, external.md. To be "
        "read at the end of a training, never to choose an epoch or a model by.",
    )
    add_model_option(parser)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder of the sets and of labels.csv"
    )
    add_report_option(parser, "runs/external")
    add_device_option(parser)


def run(options: argparse.Namespace) -> int:
    """Evaluate; the exit status."""
    from resformer.evaluation.external import examine_folder
    from resformer.evaluation.report import write_json
    from resformer.evaluation.tables import render_areas, render_sets
    from resformer.predict import Predictor

    predictor = Predictor.from_file(options.model, options.device)
    report = examine_folder(predictor, options.data, progress=True)
    text = f"{render_sets(report, predictor.class_names)}\n\n{render_areas(report)}\n"
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(report, options.out / "external.json")
    (options.out / "external.md").write_text(text, encoding="utf-8")
    logger.info("\n%s", text)
    logger.info("wrote %s and external.md", options.out / "external.json")
    return 0
