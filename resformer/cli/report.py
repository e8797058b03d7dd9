"""``python -m resformer report``: all that is measured of a model, as one JSON and a model card."""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resformer.cli.options import Commands, add_command, add_flag, add_path, add_shared

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from resformer.predict import Predictor

logger = logging.getLogger(__name__)

CARD_NAME, JSON_NAME = "MODEL_CARD.md", "report.json"
README_NAME, FIGURES_MARK = "README.md", "figures"
DOCS_FOLDER, PICTURES_FOLDER = "docs", "card"
_DOTS_PER_INCH = 80


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = add_command(
        commands,
        "report",
        run,
        "measure a checkpoint in every way and write its model card",
        "Classify the test split once, and again under every control; classify the films of other "
        f"hospitals; write {JSON_NAME}, {CARD_NAME} and its plots into a folder. Nothing else is "
        "changed without --store or --publish.",
    )
    add_shared(parser, "model", "data", "device", "backend", out="runs/report")
    add_path(parser, "--manifest", "CSV of the split", required=True)
    more = parser.add_argument_group("what else to measure or to tell")
    add_path(more, "--external", "folder with the films of other hospitals and labels.csv")
    before = (
        "earlier checkpoint, in whose features the sources of the films are looked for too; or "
        f"a {JSON_NAME} that tells what was found there, its own or an older one of this model"
    )
    add_path(more, "--before", before)
    add_path(more, "--ablations", "folder written by python -m benchmarks.ablations")
    seeds = "checkpoints of the same recipe with other seeds, to compare (also with --external)"
    add_path(more, "--seed-models", seeds, nargs="+", default=[], metavar="PATH")
    add_shared(more, "lung-model")
    about = (
        "TOML file of what cannot be measured: [statements] on where the films come from and how "
        "the model was chosen, [terms] that explain sets and sources, [goals] to compare it with"
    )
    add_path(more, "--about", about)
    samples = "bootstrap samples of the intervals (default: %(default)s)"
    more.add_argument("--bootstrap", type=int, default=1000, help=samples)
    where = parser.add_argument_group("where else to put it")
    add_flag(where, "--store", "also into the checkpoint, for /about to show")
    project = (
        f"also into the checkpoint and a project's {CARD_NAME}, {README_NAME} (between its two "
        f"marks) and {DOCS_FOLDER}, replacing what is there (default: the current folder)"
    )
    add_path(where, "--publish", project, nargs="?", const=Path(), metavar="PROJECT")


def run(options: argparse.Namespace) -> int:
    """Measure and write. Return the exit status."""
    from resformer.checkpoint import save_checkpoint
    from resformer.evaluation.card import render_card
    from resformer.evaluation.lineage import list_stages
    from resformer.evaluation.report import keep_in, save_figures, write_json
    from resformer.evaluation.tables import format_estimate
    from resformer.predict import Predictor

    if options.publish is not None:
        _read_readme(options.publish)  # refuses a text without marks before the work
    predictor = Predictor.from_file(options.model, options.device, options.backend)
    stages = list_stages(predictor.checkpoint.training)
    if not any(stage.get("history") for stage in stages):
        raise ValueError(f"{options.model} does not tell how it was trained: train it again")
    report, figures = _measure(options, predictor)
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(report, options.out / JSON_NAME, sort_keys=True)
    (options.out / CARD_NAME).write_text(render_card(report), encoding="utf-8")
    save_figures(figures, options.out, dots_per_inch=_DOTS_PER_INCH)
    logger.info("wrote %s and %s", options.out / CARD_NAME, JSON_NAME)
    if options.publish is not None:
        publish(report, figures, options.publish)
    if options.store or options.publish is not None:
        checkpoint = predictor.checkpoint
        metrics = keep_in(checkpoint.metrics, report)
        save_checkpoint(replace(checkpoint, metrics=metrics), options.model)
        logger.info("put the report into %s", options.model)
    for name in ("accuracy", "macro_f1"):
        logger.info("test %s: %s", name, format_estimate(report["test"][name]))
    return 0


def publish(report: dict[str, Any], figures: dict[str, Figure], project: Path) -> None:
    """Write the report into the project's documents, card and README, whose marks it needs."""
    from resformer.evaluation.card import render_card, render_figures
    from resformer.evaluation.report import save_figures, write_json
    from resformer.evaluation.tables import replace_block

    readme, docs = _read_readme(project), project / DOCS_FOLDER
    (docs / PICTURES_FOLDER).mkdir(parents=True, exist_ok=True)
    write_json(report, docs / JSON_NAME, sort_keys=True)
    save_figures(figures, docs / PICTURES_FOLDER, dots_per_inch=_DOTS_PER_INCH)
    (project / CARD_NAME).write_text(render_card(report, published=True), encoding="utf-8")
    block = replace_block(readme, FIGURES_MARK, render_figures(report))
    (project / README_NAME).write_text(block, encoding="utf-8")
    logger.info("published it in %s, %s and %s", CARD_NAME, README_NAME, docs / JSON_NAME)


def _read_readme(project: Path) -> str:
    """Return the text of a README that has the marks of the figures.

    Raises:
        ValueError: if it has no such marks.
        OSError: if there is none.
    """
    from resformer.evaluation.tables import replace_block

    text = (project / README_NAME).read_text(encoding="utf-8")
    replace_block(text, FIGURES_MARK, "")
    return text


def _measure(
    options: argparse.Namespace, predictor: Predictor
) -> tuple[dict[str, Any], dict[str, Figure]]:
    from resformer.data.manifest import read_manifest
    from resformer.data.unpack import open_data_roots
    from resformer.evaluation.external import examine_folder
    from resformer.evaluation.report import (
        assemble,
        compare_seeds,
        measure,
        quote_traces,
        read_ablations,
        read_about,
    )
    from resformer.predict import Predictor

    about = read_about(options.about) if options.about else None
    seeds = compare_seeds(options.seed_models, options.external, options.device)
    ablations = read_ablations(options.ablations) if options.ablations else None
    lung_model = predictor if predictor.checkpoint.model_config.lung_head else None
    if options.lung_model:
        lung_model = Predictor.from_file(options.lung_model, options.device)
    before: Predictor | dict[str, Any] | None = None
    if options.before:
        quoted = options.before.suffix == ".json"
        before = (
            quote_traces(options.before, predictor.checkpoint.source)
            if quoted
            else Predictor.from_file(options.before, options.device)
        )
    with open_data_roots(options.data) as root:
        manifest = read_manifest(options.manifest, root)
        measured, figures = measure(
            predictor,
            root,
            manifest,
            lung_model=lung_model,
            before=before,
            bootstrap=options.bootstrap,
            progress=True,
        )
    external = None
    if options.external:
        external = examine_folder(
            predictor, options.external, bootstrap=options.bootstrap, progress=True
        )
    report = assemble(
        predictor.checkpoint,
        manifest,
        measured,
        external=external,
        seeds=seeds,
        ablations=ablations,
        about=about,
    )
    return report, figures
