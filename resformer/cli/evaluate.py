"""``python -m resformer evaluate``, ``controls`` and ``external``: measure a checkpoint.

On labelled films, on the same films changed on purpose, and on films of other hospitals.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from pathlib import Path

from resformer.cli.options import Commands, add_command, add_path, add_shared

logger = logging.getLogger(__name__)


def add_evaluate(commands: Commands) -> None:
    """Add ``evaluate`` and its options."""
    parser = add_command(
        commands,
        "evaluate",
        _evaluate,
        "measure a checkpoint on labelled images",
        "Classify every image of a data set, or of one split of it if a manifest is given, and "
        "write metrics.json with 95 % intervals, the confusion matrix and the ROC curves.",
    )
    add_shared(parser, "model", "data", "device", "backend", split="test", out="runs/evaluation")
    add_path(parser, "--manifest", "CSV of a split (default: measure all images)")


def _evaluate(options: argparse.Namespace) -> int:
    from resformer.data.find import find_images
    from resformer.data.manifest import read_manifest
    from resformer.data.unpack import open_data_roots
    from resformer.evaluation.metrics import evaluate_predictions
    from resformer.evaluation.predictions import classify_films
    from resformer.evaluation.report import write_evaluation
    from resformer.evaluation.tables import format_estimate
    from resformer.predict import Predictor

    predictor = Predictor.from_file(options.model, options.device, options.backend)
    with open_data_roots(options.data) as root:
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


def add_controls(commands: Commands) -> None:
    """Add ``controls`` and its options."""
    parser = add_command(
        commands,
        "controls",
        _controls,
        "measure a checkpoint on altered films: lungs blacked out, other surroundings and more",
        "Classify the films of a split as they are, and altered in ways to which a network that "
        "looks at the lungs must react, or must not; write controls.json.",
    )
    shared = ("model", "data", "lung-model", "device")
    add_shared(parser, *shared, split="validation", out="runs/controls")
    add_path(parser, "--manifest", "CSV of a split", required=True)


def _controls(options: argparse.Namespace) -> int:
    from resformer.data.dataset import class_indices
    from resformer.data.manifest import read_manifest
    from resformer.data.masks import cache_films
    from resformer.data.unpack import open_data_roots
    from resformer.evaluation.controls import outline_lungs, run_controls
    from resformer.evaluation.report import check_classes, write_json
    from resformer.evaluation.tables import render_controls
    from resformer.predict import Predictor

    predictor = Predictor.from_file(options.model, options.device)
    lung_model = Predictor.from_file(options.lung_model or options.model, options.device)
    with open_data_roots(options.data) as root, tempfile.TemporaryDirectory() as folder:
        manifest = read_manifest(options.manifest, root)
        check_classes(predictor, manifest)
        rows = manifest.subset(options.split)
        labels = class_indices(rows, predictor.class_names)
        size = predictor.checkpoint.input_spec.size
        films = cache_films(root, rows, size, Path(folder), progress=True)
        outlines = outline_lungs(lung_model, films)
        reports = run_controls(predictor, films, labels, outlines, progress=True)
    options.out.mkdir(parents=True, exist_ok=True)
    path = write_json(reports, options.out / "controls.json")
    named = [{"name": name, **report} for name, report in reports.items()]
    logger.info("\n%s\n", render_controls(named))
    logger.info("wrote %s", path)
    return 0


def add_external(commands: Commands) -> None:
    """Add ``external`` and its options."""
    parser = add_command(
        commands,
        "external",
        _external,
        "measure a checkpoint on films of other hospitals, listed with their findings",
        "Classify the films that labels.csv lists (columns set, file, finding; a film lies at "
        "<set>/<file>); write external.json, and the same as tables in external.md. Meant for the "
        "end of a training, and never for choosing an epoch or a model.",
    )
    add_path(parser, "--data", "folder with the sets and labels.csv", required=True, metavar="DIR")
    add_shared(parser, "model", "device", out="runs/external")


def _external(options: argparse.Namespace) -> int:
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
