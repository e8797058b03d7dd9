"""``python -m resformer controls``: a checkpoint on films that were changed on purpose."""

from __future__ import annotations

import argparse
import logging
import tempfile
from pathlib import Path
from typing import Any

from resformer.cli.options import (
    add_datasets_option,
    add_device_option,
    add_model_option,
    add_report_option,
    add_split_option,
)

logger = logging.getLogger(__name__)


def add_parser(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "controls",
        help="measure a checkpoint on films with the lungs blacked out, other surroundings, ...",
        description="Classify the films of a split as they are and changed in ways that a network "
        "which looks at the lungs must react to, or must not, and write controls.json.",
    )
    add_model_option(parser)
    add_datasets_option(parser)
    parser.add_argument("--manifest", type=Path, required=True, help="CSV of a split")
    add_split_option(parser, "validation")
    parser.add_argument(
        "--outliner",
        type=Path,
        help="checkpoint with a lung head that says where the lungs are (default: the model)",
    )
    add_report_option(parser, "runs/controls")
    add_device_option(parser)


def run(options: argparse.Namespace) -> int:
    """Examine; the exit status."""
    from resformer.data.dataset import class_indices
    from resformer.data.find import open_datasets
    from resformer.data.manifest import read_manifest
    from resformer.data.masks import cache_films
    from resformer.evaluation.controls import outline_lungs, run_controls
    from resformer.evaluation.report import check_classes, write_json
    from resformer.evaluation.tables import render_controls
    from resformer.predict import Predictor

    predictor = Predictor.from_file(options.model, options.device)
    outliner = Predictor.from_file(options.outliner or options.model, options.device)
    with open_datasets(options.data) as root, tempfile.TemporaryDirectory() as folder:
        manifest = read_manifest(options.manifest, root)
        check_classes(predictor, manifest)
        rows = manifest.subset(options.split)
        labels = class_indices(rows, predictor.class_names)
        size = predictor.checkpoint.input_spec.size
        films = cache_films(root, rows, size, Path(folder), progress=True)
        outlines = outline_lungs(outliner, films)
        reports = run_controls(predictor, films, labels, outlines, progress=True)
    options.out.mkdir(parents=True, exist_ok=True)
    path = write_json(reports, options.out / "controls.json")
    named = [{"name": name, **report} for name, report in reports.items()]
    logger.info("\n%s\n", render_controls(named))
    logger.info("wrote %s", path)
    return 0
