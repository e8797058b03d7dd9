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
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from benchmarks.ablation_networks import VARIANTS, Variant
from benchmarks.ablation_training import measure, prepare
from benchmarks.timing import describe_machine
from resformer.data.find import open_dataset
from resformer.data.manifest import read_manifest
from resformer.evaluation.report import write_json
from resformer.model import ResFormerConfig
from resformer.training.config import TrainingConfig
from resformer.training.films import Workspace
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
    options = build_parser(__doc__, Path("docs/ablations"), VARIANTS).parse_args(arguments)
    recipe = begin(options)
    with open_dataset(options.data) as root:
        manifest = read_manifest(options.manifest, root)
        workspace = Workspace(root, manifest, options.cache, InputSpec(recipe.input_size), True)
        with FileLock(options.cache / "prepare.lock"):
            bench = prepare(workspace, recipe, ResFormerConfig())
        for variant in choose(VARIANTS, options.only):
            measure_once(variant, options, partial(measure, bench, variant))


def build_parser(
    description: str | None, out: Path, variants: Sequence[Variant], epochs: int = RECIPE.epochs
) -> argparse.ArgumentParser:
    """Return a parser of where the films are, where the results go, and what is measured how long.

    Args:
        description: of the benchmark.
        out: default of the folder of results.
        variants: that there are.
        epochs: default of the epochs of each.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="laid out as for train")
    parser.add_argument("--manifest", type=Path, default=Path("docs/split.csv"), help="split")
    parser.add_argument(
        "--cache", type=Path, default=Path("runs") / out.name, help="decoded films and the lungs"
    )
    parser.add_argument("--out", type=Path, default=out, help="folder of JSON")
    parser.add_argument("--epochs", type=int, default=epochs, help="of every variant")
    parser.add_argument("--lung-epochs", type=int, default=RECIPE.lung_epochs, help="of the stage")
    parser.add_argument("--healthy-class", default=RECIPE.healthy_class, help="has no infection")
    parser.add_argument("--seed", type=int, default=RECIPE.seed, help="of every variant")
    parser.add_argument("--threads", type=int, default=1)
    names = [variant.name for variant in variants]
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="NAME",
        choices=names,
        help=f"some of: {', '.join(names)}",
    )
    return parser


def begin(options: argparse.Namespace) -> TrainingConfig:
    """Make the folders and set the threads; the recipe that the options ask for."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    options.cache.mkdir(parents=True, exist_ok=True)
    return replace(
        RECIPE,
        epochs=options.epochs,
        lung_epochs=options.lung_epochs,
        healthy_class=options.healthy_class,
        seed=options.seed,
    )


def choose(variants: Sequence[Variant], names: Sequence[str]) -> list[Variant]:
    """Return the variants of some names, or all without any name."""
    return [variant for variant in variants if not names or variant.name in names]


def measure_once(
    variant: Variant, options: argparse.Namespace, run: Callable[[], dict[str, Any]]
) -> None:
    """Measure a variant and write its file, unless that is there or another process is at it.

    Args:
        variant: what is measured.
        options: of :func:`build_parser`.
        run: trains and measures it; plain data with the report ``validation``.
    """
    path = options.out / variant.file_name
    lock = FileLock(options.cache / f"{variant.file_name}.lock", blocking=False)
    try:
        with lock:
            if path.is_file():
                logger.info("%s: %s is there", variant.name, path)
                return
            machine = describe_machine(options.threads)
            found = {**run(), "machine": machine}
            write_json(found, path, sort_keys=True)
            logger.info("%s: macro-F1 %.4f", variant.name, found["validation"]["macro_f1"]["value"])
    except Timeout:
        logger.info("%s: another process measures it", variant.name)


if __name__ == "__main__":
    main()
