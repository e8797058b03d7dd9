"""Measures what each part of the network is worth: every variant by one recipe and budget.

    pip install -r requirements-benchmarks.txt
    python -m benchmarks.ablations --data FOLDER/chest-xray --manifest docs/split.csv

Every network starts from random weights, ours too: the weights of the lung stage, which a training
of ours starts from, would be a longer budget. The stage's outlines alone are shared, so that the
surroundings are replaced alike. Each network is trained for the same epochs, and its averaged
weights after the last one are measured on the validation films, as they are and with the lungs
blacked out. The test split is left alone.

Every variant leaves one JSON file, and one that has it is not measured again. Two processes with
the same command and ``--cache`` share the work. ``python -m resformer report --ablations`` reads
the folder.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from benchmarks.ablation_networks import VARIANTS, Variant
from benchmarks.ablation_training import Bench, measure, prepare
from benchmarks.timing import describe_machine
from resformer.data.archive import open_dataset
from resformer.data.manifest import read_manifest
from resformer.evaluation.report import write_json
from resformer.model import ResFormerConfig
from resformer.training.config import TrainingConfig
from resformer.training.workspace import Workspace
from resformer.transforms import InputSpec

logger = logging.getLogger(__name__)

RECIPE = TrainingConfig(
    input_size=96,
    epochs=3,
    lung_head=True,
    infection_head=True,
    healthy_class="Normal",
    background_replacement=0.5,
    style_exchange=0.5,
    lung_concealment=0.05,
    augmentation="strong",
    optimizer="muon",
    muon_learning_rate=0.01,
    muon_weight_decay=0.1,
    workers=0,
    device="cpu",
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is not measured yet, one file for each variant."""
    options = _parse(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    torch.set_num_threads(options.threads)
    recipe = replace(
        RECIPE,
        epochs=options.epochs,
        lung_epochs=options.lung_epochs,
        healthy_class=options.healthy_class,
        seed=options.seed,
    )
    options.out.mkdir(parents=True, exist_ok=True)
    options.cache.mkdir(parents=True, exist_ok=True)
    with open_dataset(options.data) as root:
        manifest = read_manifest(options.manifest, root)
        workspace = Workspace(root, manifest, options.cache, InputSpec(recipe.input_size), True)
        with FileLock(options.cache / "prepare.lock"):
            bench = prepare(workspace, recipe, ResFormerConfig())
        for variant in VARIANTS:
            if not options.only or variant.name in options.only:
                _measure_once(bench, variant, options.out, options.threads)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="laid out as for train")
    parser.add_argument("--manifest", type=Path, default=Path("docs/split.csv"), help="split")
    parser.add_argument(
        "--cache", type=Path, default=Path("runs/ablations"), help="decoded films and the lungs"
    )
    parser.add_argument("--out", type=Path, default=Path("docs/ablations"), help="folder of JSON")
    parser.add_argument("--epochs", type=int, default=RECIPE.epochs, help="of every variant")
    parser.add_argument("--lung-epochs", type=int, default=RECIPE.lung_epochs, help="of the stage")
    parser.add_argument("--healthy-class", default=RECIPE.healthy_class, help="has no infection")
    parser.add_argument("--seed", type=int, default=RECIPE.seed, help="of every variant")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="NAME",
        choices=[variant.name for variant in VARIANTS],
        help=f"some of: {', '.join(variant.name for variant in VARIANTS)}",
    )
    return parser.parse_args(arguments)


def _measure_once(bench: Bench, variant: Variant, folder: Path, threads: int) -> None:
    path = folder / variant.file_name
    lock = FileLock(bench.workspace.folder / f"{variant.file_name}.lock", blocking=False)
    try:
        with lock:
            if path.is_file():
                logger.info("%s: %s is there", variant.name, path)
                return
            machine = describe_machine(threads)
            found = {**measure(bench, variant), "machine": machine}
            write_json(found, path, sort_keys=True)
            logger.info("%s: macro-F1 %.4f", variant.name, found["validation"]["macro_f1"]["value"])
    except Timeout:
        logger.info("%s: another process measures it", variant.name)


if __name__ == "__main__":
    main()
