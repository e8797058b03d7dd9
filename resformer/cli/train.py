"""``python -m resformer train``: from a folder of films to a checkpoint."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resformer.cli.options import (
    add_checkpoint_option,
    add_config_options,
    add_outliers_option,
    add_trial_option,
    config_from_options,
)
from resformer.training.config import TrainingConfig

if TYPE_CHECKING:
    from resformer.data.find import DataRoot
    from resformer.data.manifest import Manifest

logger = logging.getLogger(__name__)

MANIFEST_NAME = "manifest.csv"


def add_parser(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "train",
        help="train a network on folders of images",
        description="Split a data set by groups of near-duplicates, train on it, choose the best "
        "epoch on the validation split, evaluate once on the test split, and write a checkpoint "
        "that `python app.py` serves. Under torchrun several processes train together.",
    )
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        action="append",
        help="folder or .zip: <Class>/images/* (lung masks in <Class>/masks/*.png are read with "
        "--lung-head) or <Class>/*; given more than once, all are read as one data set, and each "
        "may hold some of the classes",
    )
    add_checkpoint_option(parser)
    parser.add_argument(
        "--run-dir",
        type=Path,
        default=Path("runs/latest"),
        help="folder of the run: split, state to resume from, report and plots "
        "(default: %(default)s)",
    )
    parser.add_argument("--manifest", type=Path, help="CSV of a former split, to use it again")
    parser.add_argument(
        "--duplicate-threshold",
        type=float,
        metavar="CORRELATION",
        help="images that correlate more are near-duplicates and stay in one split; above 1 only "
        "equal files are; by default what suits chest films",
    )
    parser.add_argument(
        "--initial",
        type=Path,
        metavar="CHECKPOINT",
        help="train the weights of this checkpoint further, such as on a larger input, or those "
        "of a training that was stopped (last.pt in its --run-dir); give the --manifest that it "
        "was trained with, or its test films are no longer unseen",
    )
    add_outliers_option(parser)
    parser.add_argument(
        "--resume", action="store_true", help="go on where the run's folder was stopped"
    )
    add_trial_option(parser)
    add_config_options(parser, TrainingConfig)


def run(options: argparse.Namespace) -> int:
    """Train; the exit status."""
    from resformer.allocator import keep_memory
    from resformer.checkpoint import save_checkpoint
    from resformer.data.find import open_datasets
    from resformer.devices import choose_device
    from resformer.evaluation.report import write_training_report
    from resformer.export import add_graph_if_possible
    from resformer.training.distributed import join_processes
    from resformer.training.state import read_initial
    from resformer.training.train import train

    config = config_from_options(TrainingConfig, options)
    keep_memory()
    with join_processes(choose_device(config.device)) as group, open_datasets(options.data) as root:
        manifest = group.from_main(_find_split(root, options) if group.is_main else None)
        if manifest is None:
            raise RuntimeError("the main process sent no split")
        checkpoint = train(
            *(root, manifest, config, options.run_dir),
            initial=read_initial(options.initial) if options.initial else None,
            outliers=options.outliers,
            resume=options.resume,
            trial=options.trial,
        )
        if group.is_main:
            save_checkpoint(checkpoint, options.out)
            write_training_report(
                checkpoint.metrics, checkpoint.training["history"], options.run_dir
            )
            if not options.trial:
                save_checkpoint(add_graph_if_possible(checkpoint), options.out)
            summarise(checkpoint.metrics, options.out)
    return 0


def _find_split(root: DataRoot, options: argparse.Namespace) -> Manifest:
    """Read the split that was given, or the run's own when resuming, or make one and keep it."""
    from resformer.data.manifest import build_manifest, read_manifest, write_manifest

    kept = options.run_dir / MANIFEST_NAME
    given = options.manifest or (kept if options.resume else None)
    if given is not None:
        manifest = read_manifest(given, root)
    else:
        given_threshold = options.duplicate_threshold
        threshold = {} if given_threshold is None else {"duplicate_threshold": given_threshold}
        manifest = build_manifest(root, seed=options.seed, progress=True, **threshold)
    options.run_dir.mkdir(parents=True, exist_ok=True)
    write_manifest(manifest, kept)
    for split in ("train", "validation", "test"):
        logger.info("%s: %d films", split, len(manifest.subset(split)))
    return manifest


def summarise(metrics: dict[str, Any], path: Path) -> None:
    """Log the headline figures of each split, and what was written."""
    for split, report in metrics.items():
        for name in ("accuracy", "macro_f1"):
            figure = report[name]
            logger.info(
                "%s %s: %.4f (95%% interval %.4f to %.4f)",
                *(split, name, figure["value"], figure["low"], figure["high"]),
            )
    logger.info("wrote %s", path)
