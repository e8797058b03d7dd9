"""``python -m resformer evaluate``: a checkpoint's figures on a data set, as JSON and pictures."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

from resformer.cli.options import (
    add_datasets_option,
    add_model_option,
    add_report_option,
    add_runtime_options,
    add_split_option,
)

logger = logging.getLogger(__name__)


def add_parser(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "evaluate",
        help="measure a checkpoint on labelled images",
        description="Classify every image of a data set, or of one split of it where a manifest "
        "is given, and write metrics.json with 95 % intervals, the confusion matrix and the ROC "
        "curves.",
    )
    add_model_option(parser)
    add_datasets_option(parser)
    parser.add_argument("--manifest", type=Path, help="CSV of a split; without it all is measured")
    add_split_option(parser, "test")
    add_report_option(parser, "runs/evaluation")
    add_runtime_options(parser)


def run(options: argparse.Namespace) -> int:
    """Evaluate; the exit status."""
    from resformer.data.find import find_images, open_datasets
    from resformer.data.manifest import read_manifest
    from resformer.evaluation.metrics import evaluate_predictions
    from resformer.evaluation.predictions import classify_films
    from resformer.evaluation.report import write_evaluation
    from resformer.evaluation.tables import format_estimate
    from resformer.predict import Predictor

    predictor = Predictor.from_file(options.model, options.device, options.backend)
    with open_datasets(options.data) as root:
        if options.manifest is not None:
            rows = read_manifest(options.manifest, root).subset(options.split)
            items = [(row.path, row.class_name) for row in rows]
        else:
            items = list(find_images(root).items)
        labels, predictions = classify_films(predictor, root, items, progress=True)
    probabilities = predictions.probabilities
    report = evaluate_predictions(labels, probabilities, predictor.class_names)
    write_evaluation(report, labels, probabilities, options.out)
    for name in ("accuracy", "macro_f1"):
        logger.info("%s %s", name, format_estimate(report[name]))
    logger.info("wrote %s", options.out)
    return 0
