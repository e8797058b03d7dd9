"""``python -m resformer fit-gate``: a new gate for a trained network."""

from __future__ import annotations

import argparse
import logging
import tempfile
from pathlib import Path
from typing import Any

from resformer.cli.options import add_device_option, add_model_option, add_outliers_option

logger = logging.getLogger(__name__)


def add_parser(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "fit-gate",
        help="fit what refuses pictures that are no chest X-rays",
        description="Fit or replace the gate of a checkpoint, as train does at its end: on the "
        "films of the training split against outliers, with a threshold that nearly all films of "
        "the validation split pass.",
    )
    add_model_option(parser)
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        action="append",
        help="folder or .zip of films, laid out as for train; may be given more than once",
    )
    parser.add_argument(
        "--manifest", type=Path, help="CSV of the split that it was trained on; else one is made"
    )
    add_outliers_option(parser)
    parser.add_argument(
        "--out", type=Path, help="checkpoint to write (default: the one that was read)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of all that is random (default: 0)")
    add_device_option(parser)


def run(options: argparse.Namespace) -> int:
    """Fit; the exit status."""
    from resformer.checkpoint import load_checkpoint, save_checkpoint
    from resformer.data.archive import open_datasets
    from resformer.data.manifest import build_manifest
    from resformer.data.manifest_csv import read_manifest
    from resformer.devices import choose_device
    from resformer.gate.outliers import find_outliers
    from resformer.gate.samples import GateConfig
    from resformer.training.gating import add_gate
    from resformer.training.workspace import Workspace

    checkpoint = load_checkpoint(options.model)
    outliers = find_outliers(options.outliers) if options.outliers else {}
    with open_datasets(options.data) as root, tempfile.TemporaryDirectory() as folder:
        if options.manifest:
            manifest = read_manifest(options.manifest, root)
        else:
            manifest = build_manifest(root, seed=options.seed, progress=True)
        checkpoint = add_gate(
            checkpoint,
            Workspace(root, manifest, Path(folder), checkpoint.input_spec),
            outliers,
            choose_device(options.device),
            config=GateConfig(seed=options.seed),
            progress=True,
        )
    out = options.out or options.model
    save_checkpoint(checkpoint, out)
    logger.info("wrote %s", out)
    return 0
