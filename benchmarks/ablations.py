"""Measure what each part of the network is worth: every variant by one recipe and budget.

    python -m benchmarks.ablations --data FOLDER/chest-xray --data FOLDER/siim ...

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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from scipy.special import softmax
from torch import Tensor, nn

from benchmarks.common import describe_machine
from benchmarks.network import BASELINES
from resformer.backends import PyTorchBackend
from resformer.checkpoint import Checkpoint
from resformer.data.dataset import FilmDataset
from resformer.data.manifest import read_manifest
from resformer.data.unpack import open_datasets
from resformer.devices import choose_device, place_model
from resformer.evaluation.controls import CONTROLS, LUNGS_BLACK, change_films
from resformer.evaluation.metrics import evaluate_predictions
from resformer.evaluation.predictions import predict_lungs
from resformer.evaluation.report import write_json
from resformer.layers import EMPT, IMTM
from resformer.layers.simam import SimAM
from resformer.model import IdentityMappingResFormer, ResFormerConfig
from resformer.training.baselines import build_baseline
from resformer.training.config import TrainingConfig
from resformer.training.data import TrainingData, build_loader, build_training_films
from resformer.training.distributed import ProcessGroup
from resformer.training.finish import compute_logits
from resformer.training.learner import begin_epoch, build_learner, build_loss, train_one_epoch
from resformer.training.lung_stage import learn_lungs
from resformer.transforms import InputSpec

logger = logging.getLogger(__name__)

RECIPE = TrainingConfig(
    input_size=96,
    start_size=0,
    epochs=3,
    batch_size=32,
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


class BackboneAlone(IdentityMappingResFormer):
    """Ours without IMTM and, since nothing would read it, without EMPT: ``f_i = x_i``."""

    def __init__(self, config: ResFormerConfig) -> None:
        super().__init__(config)
        del self.auxiliary, self.imtm

    def fuse(self, features: list[Tensor]) -> list[Tensor]:
        """Return the backbone's features as they are."""
        return features


class LastScaleAlone(IdentityMappingResFormer):
    """Ours classifying the coarsest fused features alone, as the earlier implementation did."""

    def __init__(self, config: ResFormerConfig) -> None:
        super().__init__(config)
        self.fc = nn.Linear(config.regions * config.channels[-1], config.num_classes)

    def pool(self, features: list[Tensor], lungs: Tensor | None = None) -> Tensor:
        """Average the coarsest features: ``(B, C_4)``, or twice that with an infection head."""
        if lungs is None and self.lung_head is not None:
            lungs = self.lungs(features)
        return super().pool(features[-1:], lungs)


def build_without(part: type[nn.Module], config: ResFormerConfig) -> nn.Module:
    """Return our network with every module of a kind replaced by the identity."""
    model = IdentityMappingResFormer(config)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, part):
                parent.add_module(name, nn.Identity())
    return model


def build_without_imtm(config: ResFormerConfig) -> nn.Module:
    """Return our network with the whole output of each EMPT added to its scale."""
    model = build_without(IMTM, config)
    for module in model.modules():
        if isinstance(module, EMPT):
            module.cell = 1
    return model


@dataclass(frozen=True)
class Variant:
    """One row of the ablations: how its network is built, and what it changes in the recipe."""

    name: str
    build: Callable[[ResFormerConfig], nn.Module] = IdentityMappingResFormer
    lung_head: bool = True
    infection_head: bool = True
    changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def file_name(self) -> str:
        """Name of the file of its result."""
        return "-".join(self.name.lower().split()) + ".json"

    def configure(self, network: ResFormerConfig) -> ResFormerConfig:
        """Return the configuration of a network with the heads of this variant."""
        return replace(network, lung_head=self.lung_head, infection_head=self.infection_head)


def _baseline(name: str) -> Variant:
    def build(config: ResFormerConfig) -> nn.Module:
        return build_baseline(BASELINES[name], config.num_classes)

    return Variant(name, build, lung_head=False, infection_head=False)


VARIANTS = (
    Variant("ours"),
    Variant("ours without SimAM", partial(build_without, SimAM)),
    Variant("ours without EMPT", partial(build_without, EMPT)),
    Variant("ours without IMTM", build_without_imtm),
    Variant("ours without EMPT and IMTM", BackboneAlone),
    Variant("ours pooling f4 only", LastScaleAlone),
    Variant("ours without infection head", infection_head=False),
    Variant("ours without lung head", lung_head=False, infection_head=False),
    Variant("ours without background replacement", changes={"background_replacement": 0.0}),
    Variant("ours without style exchange", changes={"style_exchange": 0.0}),
    _baseline("ResNet-18"),
    _baseline("MobileNetV3-Small"),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is not measured yet, one file for each variant."""
    options = _parse(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    torch.set_num_threads(options.threads)
    for folder in (options.out, options.cache):
        folder.mkdir(parents=True, exist_ok=True)
    recipe = replace(
        RECIPE,
        input_size=options.size,
        epochs=options.epochs,
        lung_epochs=options.lung_epochs,
        healthy_class=options.healthy_class,
        seed=options.seed,
    )
    with open_datasets(options.data) as root:
        manifest = read_manifest(options.manifest, root)
        data = TrainingData(root, manifest, options.cache, InputSpec(recipe.input_size), True)
        with FileLock(options.cache / "prepare.lock"):
            bench = prepare(data, recipe, ResFormerConfig())
        for variant in VARIANTS:
            if not options.only or variant.name in options.only:
                measure_once(bench, variant, options)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ablations",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        action="append",
        help="laid out as for train; may be given more than once",
    )
    parser.add_argument("--manifest", type=Path, default=Path("docs/split.csv"), help="split")
    parser.add_argument(
        "--cache", type=Path, default=Path("runs/ablations"), help="decoded films and the lungs"
    )
    parser.add_argument("--out", type=Path, default=Path("docs/ablations"), help="folder of JSON")
    parser.add_argument("--epochs", type=int, default=RECIPE.epochs, help="of every variant")
    parser.add_argument("--lung-epochs", type=int, default=RECIPE.lung_epochs, help="of the stage")
    parser.add_argument("--size", type=int, default=RECIPE.input_size, help="side of the input")
    parser.add_argument("--healthy-class", default=RECIPE.healthy_class, help="has no infection")
    parser.add_argument("--seed", type=int, default=RECIPE.seed, help="of every variant")
    parser.add_argument("--threads", type=int, default=1)
    names = [variant.name for variant in VARIANTS]
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="NAME",
        choices=names,
        help=f"some of: {', '.join(names)}",
    )
    return parser.parse_args(arguments)


@dataclass(frozen=True)
class Bench:
    """What all variants share.

    ``recipe`` and ``network`` are those that a variant changes; ``outlines`` the predicted lungs of
    the training films, ``(N, size, size)`` from 0 to 255; ``black`` the validation films with their
    lungs blacked out.
    """

    data: TrainingData
    recipe: TrainingConfig
    network: ResFormerConfig
    outlines: NDArray[np.uint8]
    black: FilmDataset


def prepare(data: TrainingData, recipe: TrainingConfig, network: ResFormerConfig) -> Bench:
    """Decode the films and learn the lungs, or find both in its folder."""
    network = replace(network, num_classes=len(data.manifest.class_names))
    with_heads = replace(network, lung_head=True, infection_head=True)
    device = choose_device(recipe.device)
    data.training_films()
    films = data.evaluation_films("validation")
    masks = data.masks("train", recipe)
    stage = learn_lungs(with_heads, data, recipe, masks, device, progress=False)
    if stage.outlines is None:
        raise ValueError("the recipe needs a lung head, whose outlines all variants share")
    lung_model = Checkpoint(with_heads, data.manifest.class_names, data.spec, stage.weights)
    lungs = predict_lungs(PyTorchBackend(lung_model, device), films.films, data.spec.size)
    nobody = np.zeros(len(films), dtype=np.int64)  # blacking out needs no donor
    black = np.stack(list(change_films(CONTROLS[LUNGS_BLACK], films.films, lungs, nobody)))
    blacked = FilmDataset(black, films.labels, films.spec)
    return Bench(data, recipe, network, stage.outlines, blacked)


def measure_once(bench: Bench, variant: Variant, options: argparse.Namespace) -> None:
    """Measure a variant and write its file, unless that is there or another process is at it."""
    path = options.out / variant.file_name
    try:
        with FileLock(options.cache / f"{variant.file_name}.lock", blocking=False):
            if path.is_file():
                logger.info("%s: %s is there", variant.name, path)
                return
            machine = describe_machine(options.threads)
            found = {**measure(bench, variant), "machine": machine}
            write_json(found, path, sort_keys=True)
            logger.info("%s: macro-F1 %.4f", variant.name, found["validation"]["macro_f1"]["value"])
    except Timeout:
        logger.info("%s: another process measures it", variant.name)


def measure(bench: Bench, variant: Variant) -> dict[str, Any]:
    """Train a variant and measure it on the validation split; plain data.

    Returns:
        ``name``, ``parameters``, ``seconds`` in training steps, ``epochs``, ``data`` (hash of the
        films and masks), ``config`` (the common recipe), ``changes``, ``history``, ``validation``,
        a report of ``evaluate_predictions``, and ``lungs_blacked_out``, the recall of each class.
    """
    config = replace(bench.recipe, **variant.changes)
    names = bench.data.manifest.class_names
    model, history = train(bench, variant, config)
    films = bench.data.evaluation_films("validation")
    device = choose_device(config.device)
    model = place_model(model, device).eval()
    whole, black = (
        softmax(compute_logits(model, dataset.films, bench.data.spec), axis=1)
        for dataset in (films, bench.black)
    )
    report = evaluate_predictions(films.labels, black, names, bootstrap=0)
    return {
        "name": variant.name,
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "seconds": sum(epoch["seconds"] for epoch in history),
        "epochs": config.epochs,
        "data": bench.data.data_digest,
        "config": asdict(bench.recipe),
        "changes": dict(variant.changes),
        "history": history,
        "validation": evaluate_predictions(films.labels, whole, names, seed=config.seed),
        "lungs_blacked_out": {name: report["per_class"][name]["recall"]["value"] for name in names},
    }


def train(
    bench: Bench, variant: Variant, config: TrainingConfig
) -> tuple[nn.Module, list[dict[str, float]]]:
    """Train a variant from random weights; return its averaged network and figures by epoch."""
    alone = ProcessGroup(0, 1, choose_device(config.device))
    network = variant.configure(bench.network)
    learnt = replace(config, infection_head=variant.infection_head)
    masks = bench.data.masks("train", learnt) if variant.lung_head else ()
    films = build_training_films(bench.data, config, masks, bench.outlines)
    loader = build_loader(films, config, alone)
    loss = build_loss(network, config)
    learner = build_learner(loss, len(loader), network, config, alone, build=variant.build)
    history = []
    for epoch in range(config.epochs):
        begin_epoch(epoch, loader, config, alone)
        history.append(train_one_epoch(learner, loader, alone, label=variant.name, progress=False))
        logger.info("%s, epoch %d: loss %.4f", variant.name, epoch + 1, history[-1]["train_loss"])
    return learner.average.module, history


if __name__ == "__main__":
    main()
