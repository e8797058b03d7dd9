"""``python -m resformer report``: all that is measured of a model, as one JSON and a model card."""

from __future__ import annotations

import argparse
import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resformer.cli.options import add_model_option, add_runtime_options

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from resformer.predict import Predictor

logger = logging.getLogger(__name__)

CARD_NAME, JSON_NAME, PLOTS_FOLDER = "MODEL_CARD.md", "docs/report.json", "docs/card"
README_NAME, FIGURES_MARK = "README.md", "figures"
_DOTS_PER_INCH = 80


def add_parser(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "report",
        help="measure a checkpoint in every way and write its model card",
        description="Classify the test split once, and again under every control; classify the "
        f"films of other hospitals; write {JSON_NAME}, {CARD_NAME} and its plots, and put the "
        "figures into README.md (where there is one, between its two marks) and into the "
        "checkpoint.",
    )
    add_model_option(parser)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder or .zip, laid out as for train"
    )
    parser.add_argument("--manifest", type=Path, required=True, help="CSV of the split")
    parser.add_argument(
        "--external", type=Path, help="folder of films of other hospitals and of labels.csv"
    )
    parser.add_argument(
        "--ablations", type=Path, help="folder that python -m benchmarks.ablations wrote"
    )
    parser.add_argument(
        "--seed-models",
        type=Path,
        nargs="+",
        default=[],
        metavar="PATH",
        help="checkpoints of the same recipe and other seeds, whose own test reports are compared",
    )
    parser.add_argument(
        "--outliner",
        type=Path,
        help="checkpoint with a lung head that says where the lungs are (default: the model, "
        "where it has one; else the controls that need lungs are left out)",
    )
    parser.add_argument(
        "--out", type=Path, default=Path(), help="folder to write into (default: this one)"
    )
    parser.add_argument(
        "--bootstrap", type=int, default=1000, help="samples of the intervals (default: 1000)"
    )
    parser.add_argument(
        "--no-store", action="store_true", help="leave the checkpoint as it is, without the report"
    )
    add_runtime_options(parser)


def run(options: argparse.Namespace) -> int:
    """Measure and write; the exit status."""
    from dataclasses import replace

    from resformer.checkpoint import save_checkpoint
    from resformer.evaluation.card import render_card, render_figures, replace_block
    from resformer.evaluation.report import keep_in, list_stages, save_figures, write_json
    from resformer.predict import Predictor

    readme = options.out / README_NAME
    text = readme.read_text(encoding="utf-8") if readme.is_file() else None
    if text is not None:
        replace_block(text, FIGURES_MARK, "")  # refuses a text without marks before the work
    predictor = Predictor.from_file(options.model, options.device, options.backend)
    stages = list_stages(predictor.checkpoint.training)
    if not any(stage.get("history") for stage in stages):
        raise ValueError(f"{options.model} does not tell how it was trained: train it again")
    report, figures = _measure(options, predictor)
    (options.out / PLOTS_FOLDER).mkdir(parents=True, exist_ok=True)
    write_json(report, options.out / JSON_NAME, sort_keys=True)
    (options.out / CARD_NAME).write_text(render_card(report), encoding="utf-8")
    save_figures(figures, options.out / PLOTS_FOLDER, dots_per_inch=_DOTS_PER_INCH)
    if text is not None:
        block = replace_block(text, FIGURES_MARK, render_figures(report))
        readme.write_text(block, encoding="utf-8")
    if not options.no_store:
        checkpoint = predictor.checkpoint
        metrics = keep_in(checkpoint.metrics, report)
        save_checkpoint(replace(checkpoint, metrics=metrics), options.model)
    for name in ("accuracy", "macro_f1"):
        logger.info("test %s: %.4f", name, report["test"][name]["value"])
    logger.info("wrote %s and %s", options.out / CARD_NAME, options.out / JSON_NAME)
    return 0


def _measure(
    options: argparse.Namespace, predictor: Predictor
) -> tuple[dict[str, Any], dict[str, Figure]]:
    from resformer.data.find import open_dataset
    from resformer.data.manifest import read_manifest
    from resformer.evaluation.external import examine_folder
    from resformer.evaluation.report import (
        assemble,
        compare_seeds,
        measure_controls,
        measure_split,
        read_ablations,
    )

    seeds = compare_seeds(options.seed_models)
    ablations = read_ablations(options.ablations) if options.ablations else None
    outliner = _find_outliner(options, predictor)
    how = {"bootstrap": options.bootstrap, "progress": True}
    with open_dataset(options.data) as root, tempfile.TemporaryDirectory() as folder:
        manifest = read_manifest(options.manifest, root)
        measured, figures = measure_split(predictor, root, manifest, **how)
        controls = measure_controls(predictor, outliner, root, manifest, Path(folder), **how)
    external = examine_folder(predictor, options.external, **how) if options.external else None
    report = assemble(
        *(predictor.checkpoint, manifest, measured),
        controls=controls,
        external=external,
        seeds=seeds,
        ablations=ablations,
    )
    return report, figures


def _find_outliner(options: argparse.Namespace, predictor: Predictor) -> Predictor | None:
    from resformer.predict import Predictor

    if options.outliner:
        return Predictor.from_file(options.outliner, options.device)
    return predictor if predictor.checkpoint.model_config.lung_head else None
