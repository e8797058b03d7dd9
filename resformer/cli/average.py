"""``python -m resformer average``: the mean of trainings that started from one network."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from resformer.cli.options import (
    add_checkpoint_option,
    add_datasets_option,
    add_device_option,
    add_outliers_option,
    add_trial_option,
)


def add_parser(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "average",
        help="average the weights of trainings that started from one network",
        description="Average the weights of checkpoints that `train --initial` made from one and "
        "the same network, on the same split, and end as a training does: calibrate on the "
        "validation split, evaluate once on the test split, fit gate and abstention.",
    )
    parser.add_argument(
        "checkpoints", type=Path, nargs="+", metavar="CHECKPOINT", help="two checkpoints or more"
    )
    add_datasets_option(parser)
    parser.add_argument(
        "--manifest", type=Path, required=True, help="CSV of the split that they were trained on"
    )
    add_outliers_option(parser)
    add_checkpoint_option(parser)
    add_trial_option(parser)
    add_device_option(parser)


def run(options: argparse.Namespace) -> int:
    """Average; the exit status."""
    from resformer.checkpoint import load_checkpoint, save_checkpoint
    from resformer.cli.train import summarise
    from resformer.data.find import open_datasets
    from resformer.data.manifest import read_manifest
    from resformer.export import add_graph_if_possible
    from resformer.gate.fit import find_outliers
    from resformer.training.films import Workspace
    from resformer.training.finish import average_trainings

    checkpoints = [load_checkpoint(path) for path in options.checkpoints]
    outliers = find_outliers(options.outliers) if options.outliers else {}
    first = checkpoints[0]
    with open_datasets(options.data) as root, tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(
            *(root, read_manifest(options.manifest, root), Path(folder)),
            spec=first.input_spec,
            with_masks=first.model_config.lung_head,
        )
        mean = average_trainings(
            *(checkpoints, workspace, outliers), trial=options.trial, device=options.device
        )
    if not options.trial:
        mean = add_graph_if_possible(mean)
    save_checkpoint(mean, options.out)
    summarise(mean.metrics, options.out)
    return 0
