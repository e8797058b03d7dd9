"""``python -m resformer fit-gate``: a new gate and abstention, with their track record."""

from __future__ import annotations

import argparse
import logging
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from resformer.cli.options import (
    add_datasets_option,
    add_device_option,
    add_model_option,
    add_outliers_option,
)

logger = logging.getLogger(__name__)


def add_parser(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "fit-gate",
        help="fit what refuses pictures that are no chest X-rays, and what abstains from films",
        description="Fit or replace the gate and the abstention of a checkpoint, as train does at "
        "its end: the gate on the films of the training split against outliers, with a threshold "
        "that nearly all films of the validation split pass; the abstention on the same films, "
        "with thresholds that call at most one validation film in twenty uncertain. With "
        "--manifest, count on the test films how often what they let through is right. A graph in "
        "the checkpoint is exported again.",
    )
    add_model_option(parser)
    add_datasets_option(parser)
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
    """Fit. Return the exit status."""
    from resformer.checkpoint import load_checkpoint, save_checkpoint
    from resformer.data.find import open_datasets
    from resformer.data.manifest import build_manifest, read_manifest
    from resformer.devices import choose_device
    from resformer.export import add_graph_if_possible
    from resformer.gate.fit import GateConfig, find_outliers
    from resformer.track_record import KEY
    from resformer.training.data import TrainingData
    from resformer.training.finish import add_abstention, add_gate, add_track_record

    checkpoint = load_checkpoint(options.model)
    outliers = find_outliers(options.outliers) if options.outliers else {}
    with open_datasets(options.data) as root, tempfile.TemporaryDirectory() as folder:
        if options.manifest:
            manifest = read_manifest(options.manifest, root)
        else:
            manifest = build_manifest(root, seed=options.seed, progress=True)
        data = TrainingData(root, manifest, Path(folder), checkpoint.input_spec)
        device, config = choose_device(options.device), GateConfig(seed=options.seed)
        checkpoint = add_gate(checkpoint, data, outliers, device, config, progress=True)
        checkpoint = add_abstention(checkpoint, data, device, progress=True)
        if options.manifest:
            checkpoint = add_track_record(checkpoint, data, device, progress=True)
        else:  # the network may have been trained on the test films of a split that is made now
            logger.warning(
                "left out the track record: name the split it was trained on, --manifest"
            )
            metrics = {name: report for name, report in checkpoint.metrics.items() if name != KEY}
            checkpoint = replace(checkpoint, metrics=metrics)
    if checkpoint.graph:
        # One that was exported before lacks what the abstention looks at.
        checkpoint = add_graph_if_possible(checkpoint)
    out = options.out or options.model
    save_checkpoint(checkpoint, out)
    logger.info("wrote %s", out)
    return 0
