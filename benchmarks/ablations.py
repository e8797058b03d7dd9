"""Measure what each part of the network is worth: every variant by the recommended recipe.

    python -m benchmarks.ablations --data FOLDER/chest-xray --data FOLDER/siim ... --seeds 0 1 2

Every network starts from random weights, ours too, and learns where the lungs are beside the
classes: the weights of the lung stage, which a training starts from, fit no other network. The
outlines by which surroundings are exchanged are those of one lung model for all. Each is trained
for the same epochs by :func:`resformer.training.train.run_epochs`, as everything is, and its
averaged weights after the last one are calibrated and measured on validation films: as they are,
within sources, with all the changes of ``benchmarks.elsewhere`` at once, and with the lungs blacked
out. The test split is left alone.

Every variant leaves a JSON file for each seed, and one that has it is not measured again; what was
interrupted goes on. Two processes with the same command share the work. ``python -m resformer
report --ablations`` reads the folder.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from benchmarks.common import describe_machine
from benchmarks.elsewhere import ALL_AT_ONCE, ASKED, HEALTHY, build_changes
from resformer.backends import PyTorchBackend
from resformer.checkpoint import load_checkpoint
from resformer.data.find import DataRoot
from resformer.data.manifest import Manifest, read_manifest
from resformer.data.unpack import open_data_roots
from resformer.devices import choose_device
from resformer.evaluation.controls import CONTROLS, LUNGS_BLACK, change_films
from resformer.evaluation.metrics import evaluate_predictions
from resformer.evaluation.predictions import predict_lungs
from resformer.evaluation.report import write_json
from resformer.layers import EMPT
from resformer.layers.simam import SimAM
from resformer.model import IdentityMappingResFormer, ResFormerConfig
from resformer.training.baselines import build_baseline
from resformer.training.calibration import fit_calibration
from resformer.training.config import RECOMMENDED, TrainingConfig, change_recipe
from resformer.training.data import TrainingData
from resformer.training.distributed import ProcessGroup
from resformer.training.finish import compute_logits
from resformer.training.lung_stage import LungStage, take_lungs
from resformer.training.state import STATE_NAME, Progress, load_state
from resformer.training.train import Run, build_learning, run_epochs
from resformer.transforms import InputSpec, resize_pixels

logger = logging.getLogger(__name__)

# A quarter of the recommended length: half an hour of one core for ours.
EPOCHS = 14


def build_without(part: type[nn.Module], config: ResFormerConfig) -> nn.Module:
    """Return our network with every module of a kind replaced by the identity."""
    model = IdentityMappingResFormer(config)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, part):
                parent.add_module(name, nn.Identity())
    return model


class NoFusion(nn.Module):
    """Stands where the IMTM was and adds nothing to any scale."""

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Map features of each scale to zeros of the same shapes."""
        return [torch.zeros_like(feature) for feature in features]


def build_without_imtm(config: ResFormerConfig) -> nn.Module:
    """Return our network with each scale left to itself."""
    model = IdentityMappingResFormer(config)
    model.add_module("imtm", NoFusion())
    return model


@dataclass(frozen=True)
class Variant:
    """One row of the ablations."""

    name: str
    build: Callable[[ResFormerConfig], nn.Module] = IdentityMappingResFormer
    changes: Mapping[str, Any] = field(default_factory=dict)

    def file_name(self, seed: int) -> str:
        """Name of the file of its result."""
        return "-".join([*self.name.lower().split(), str(seed)]) + ".json"


def _baseline(name: str, network: str) -> Variant:
    def build(config: ResFormerConfig) -> nn.Module:
        return build_baseline(network, config.num_classes)

    return Variant(name, build, {"network": network})


VARIANTS = (
    Variant("ours"),
    Variant("ours without SimAM", partial(build_without, SimAM)),
    Variant("ours without EMPT", partial(build_without, EMPT)),
    Variant("ours without IMTM", build_without_imtm),
    Variant("ours without lung head", changes={"lung_head": False}),
    _baseline("MobileNetV3-Small", "mobilenet_v3_small"),
    _baseline("ResNet-18", "resnet18"),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is not measured yet, one file for each variant and seed."""
    options = _parse(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    recipe = replace(
        RECOMMENDED,
        input_size=options.size,
        start_size=RECOMMENDED.start_size if options.size > RECOMMENDED.start_size else 0,
        epochs=options.epochs,
        workers=0,
        device="cpu",
    )
    with open_data_roots(options.data) as root:
        bench = prepare(root, read_manifest(options.manifest, root), recipe, options)
        for seed in options.seeds:
            for variant in VARIANTS:
                if not options.only or variant.name in options.only:
                    measure_once(bench, variant, seed, options)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ablations",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, action="append", help="as for train, several times")
    add("--manifest", type=Path, default=Path("docs/split.csv"), help="split")
    add("--lung-model", type=Path, default=Path("best_model.pth"), help="outlines the lungs")
    add(
        "--cache", type=Path, default=Path("runs/ablations"), help="decoded films, interrupted work"
    )
    add("--out", type=Path, default=Path("runs/ablations/results"), help="folder of JSON")
    add("--epochs", type=int, default=EPOCHS, help="of every variant")
    add("--size", type=int, default=RECOMMENDED.input_size, help="side of the input")
    add("--seeds", type=int, nargs="+", default=[0], help="each variant once with each")
    add("--threads", type=int, default=1)
    names = [variant.name for variant in VARIANTS]
    some = f"some of: {', '.join(names)}"
    add("--only", nargs="+", default=[], metavar="NAME", choices=names, help=some)
    return parser.parse_args(arguments)


@dataclass(frozen=True)
class Bench:
    """What all variants share.

    Attributes:
        root: of the films.
        manifest: their split.
        recipe: how each is trained, but for its seed and its own changes.
        cache: folder of decoded films, and of each variant's training while it goes.
        outlines: lungs of the training films, ``(N, H, W)`` uint8.
        labels: classes of the validation films, ``(M,)``.
        looks: the validation films ``(M, S, S)`` as they are, with all changes, and without lungs.
    """

    root: DataRoot
    manifest: Manifest
    recipe: TrainingConfig
    cache: Path
    outlines: NDArray[np.uint8]
    labels: NDArray[np.int64]
    looks: Mapping[str, NDArray[np.uint8]]


def open_data(
    root: DataRoot, manifest: Manifest, size: int, folder: Path, cache: Path
) -> TrainingData:
    """Return the films for a training in a folder of its own; what was decoded is shared."""
    folder.mkdir(parents=True, exist_ok=True)
    (cache / "cache").mkdir(exist_ok=True)
    if not (folder / "cache").exists():
        (folder / "cache").symlink_to((cache / "cache").resolve())
    return TrainingData(root, manifest, folder, InputSpec(size), with_masks=True)


def prepare(
    root: DataRoot, manifest: Manifest, recipe: TrainingConfig, options: argparse.Namespace
) -> Bench:
    """Decode the films, outline their lungs and change them, or find what was decoded."""
    device, size, cache = choose_device(recipe.device), recipe.input_size, options.cache
    cache.mkdir(parents=True, exist_ok=True)
    lung_model = replace(load_checkpoint(options.lung_model), input_spec=InputSpec(size))
    with FileLock(cache / "prepare.lock"):
        data = open_data(root, manifest, size, cache / "prepare", cache)
        data.training_films()
        films = data.evaluation_films("validation")
        outlines = take_lungs(lung_model, data, device).outlines
        if outlines is None:
            raise ValueError(f"{options.lung_model} has no lung head: name another --lung-model")
        lungs = predict_lungs(PyTorchBackend(lung_model, device), films.films, size)
    resized = np.stack([resize_pixels(np.rint(255 * one).astype(np.uint8), size) for one in lungs])
    change = build_changes(films, resized)[ALL_AT_ONCE]
    nobody = np.zeros(len(films), dtype=np.int64)  # blacking out needs no donor
    looks = {
        "as they are": np.asarray(films.films),
        ALL_AT_ONCE: np.stack([change(index) for index in range(len(films))]),
        LUNGS_BLACK: np.stack(
            list(change_films(CONTROLS[LUNGS_BLACK], films.films, lungs, nobody))
        ),
    }
    return Bench(root, manifest, recipe, cache, outlines, films.labels, looks)


def measure_once(bench: Bench, variant: Variant, seed: int, options: argparse.Namespace) -> None:
    """Measure a variant and write its file, unless that is there or another process is at it."""
    name = variant.file_name(seed)
    path = options.out / name
    try:
        with FileLock(options.cache / f"{name}.lock", blocking=False):
            if path.is_file():
                logger.info("%s, seed %d: %s is there", variant.name, seed, path)
                return
            found = measure(bench, variant, seed, bench.cache / path.stem)
            write_json(
                {**found, "machine": describe_machine(options.threads)}, path, sort_keys=True
            )
            logger.info("%s, seed %d: %.4f", variant.name, seed, found["within_sources"])
    except Timeout:
        logger.info("%s, seed %d: another process measures it", variant.name, seed)


def measure(bench: Bench, variant: Variant, seed: int, folder: Path) -> dict[str, Any]:
    """Train a variant and measure it on the validation split; plain data.

    Returns:
        ``name``, ``seed``, ``parameters``, ``seconds`` in training steps, ``epochs``, ``data``
        (hash of the films and masks), ``config`` (the common recipe), ``changes``, ``validation``
        (a report of ``evaluate_predictions``), ``within_sources`` (the figure that epochs are
        chosen by), ``elsewhere`` (AUC of COVID against Normal under all changes at once) and
        ``lungs_blacked_out`` (the share of COVID films that are called so all the same).
    """
    config = change_recipe(replace(bench.recipe, seed=seed), variant.changes)
    data = open_data(bench.root, bench.manifest, config.input_size, folder, bench.cache)
    names = bench.manifest.class_names
    model, parameters, history = train(bench, variant, config, data)
    logits = {name: compute_logits(model, films, data.spec) for name, films in bench.looks.items()}
    fitted = fit_calibration(logits["as they are"], bench.labels)
    shares = {name: fitted.probabilities(found) for name, found in logits.items()}
    report, black = (
        evaluate_predictions(bench.labels, shares[name], names, seed=seed, bootstrap=rounds)
        for name, rounds in (("as they are", 1000), (LUNGS_BLACK, 0))
    )
    healthy, asked = names.index(HEALTHY), names.index(ASKED)
    either = (bench.labels == healthy) | (bench.labels == asked)
    changed = shares[ALL_AT_ONCE][either, asked]
    return {
        "name": variant.name,
        "seed": seed,
        "parameters": parameters,
        "seconds": sum(epoch["seconds"] for epoch in history),
        "epochs": config.epochs,
        "data": data.data_digest,
        "config": {k: v for k, v in asdict(bench.recipe).items() if k != "seed"},
        "changes": dict(variant.changes),
        "validation": report,
        "within_sources": history[-1]["validation_score"],
        "elsewhere": float(roc_auc_score(bench.labels[either] == asked, changed)),
        "lungs_blacked_out": black["per_class"][ASKED]["recall"]["value"],
    }


def train(
    bench: Bench, variant: Variant, config: TrainingConfig, data: TrainingData
) -> tuple[nn.Module, int, list[dict[str, Any]]]:
    """Train a variant from random weights.

    Returns:
        its averaged network, fit to be run, how many parameters it learned, and figures by epoch.
    """
    network = ResFormerConfig(
        num_classes=len(bench.manifest.class_names),
        lung_head=config.lung_head,
        infection_head=config.infection_head,
    )
    alone = ProcessGroup(0, 1, choose_device(config.device))
    run = Run(data, config, network, alone, data.data_digest, False, variant.build)
    stage = LungStage(None, bench.outlines) if config.lung_head else None
    loaders, learner = build_learning(run, data.masks("train", config), stage)
    state = data.folder / STATE_NAME
    reached = load_state(state, learner, config, run.digest) if state.is_file() else Progress()
    run_epochs(run, learner, loaders, reached, None, tensorboard=False)
    # of the network that was trained: running it needs fewer, with the normalisation folded in
    parameters = sum(weight.numel() for weight in learner.average.module.parameters())
    return run.averaged_model(learner), parameters, reached.history


if __name__ == "__main__":
    main()
