"""Networks of torchvision that are trained in the same loop, to compare ours with.

He et al., "Deep residual learning for image recognition", CVPR 2016; Howard et al., "Searching for
MobileNetV3", ICCV 2019; Huang et al., "Densely connected convolutional networks", CVPR 2017. They
start from random weights, as ours does, have no lung head, and are reported on but not served.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torchvision
from torch import Tensor, nn

from resformer.data.find import DataRoot
from resformer.data.manifest import Manifest
from resformer.devices import choose_device, place_model
from resformer.evaluation.metrics import evaluate_predictions
from resformer.evaluation.report import write_json, write_training_report
from resformer.model import ResFormerConfig
from resformer.training.calibration import fit_calibration
from resformer.training.config import OURS, TrainingConfig
from resformer.training.distributed import join_processes
from resformer.training.finish import compute_logits, log_summary, warn_of_guessing
from resformer.training.state import (
    STATE_NAME,
    Progress,
    check_run_folder,
    check_tensorboard,
    load_state,
    lock_run_folder,
)
from resformer.training.train import OnEpoch, Run, build_learning, prepare, run_epochs

logger = logging.getLogger(__name__)

BASELINE_NAME = "baseline.json"


class GreyClassifier(nn.Module):
    """A network for colour images that is given grey ones ``(B, 1, H, W)``."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Map grey images to logits ``(B, num_classes)``."""
        logits: Tensor = self.network(x.expand(-1, 3, -1, -1))
        return logits


def build_baseline(name: str, num_classes: int) -> GreyClassifier:
    """Build a network of :data:`resformer.training.config.BASELINES` with random weights."""
    return GreyClassifier(torchvision.models.get_model(name, weights=None, num_classes=num_classes))


def train_baseline(
    root: DataRoot,
    manifest: Manifest,
    config: TrainingConfig,
    folder: Path,
    *,
    resume: bool = False,
    trial: bool = False,
    tensorboard: bool = False,
    progress: bool = True,
    on_epoch: OnEpoch | None = None,
) -> dict[str, Any]:
    """Train one of torchvision's networks in the same loop, to be compared and not served.

    What it is given is as of :func:`resformer.training.train.train`.

    Returns:
        ``metrics``, ``config``, ``best_epoch``, ``history`` and ``parameters``, as plain data.

    Raises:
        ValueError: if the network is ours; others as there.
    """
    if config.network == OURS:
        raise ValueError(f"{OURS} is not a baseline: train it with train")
    check_tensorboard(tensorboard)
    group = join_processes(choose_device(config.device))
    with lock_run_folder(folder, is_main=group.is_main):
        check_run_folder(folder, resume=resume)
        data = prepare(root, manifest, config, folder, group, progress=progress)
        network = ResFormerConfig(num_classes=len(manifest.class_names))

        def build(network: ResFormerConfig) -> nn.Module:
            return build_baseline(config.network, network.num_classes)

        run = Run(data, config, network, group, data.data_digest, progress, build)

        loaders, learner = build_learning(run)
        state = folder / STATE_NAME
        reached = load_state(state, learner, config, run.digest) if resume else Progress()

        run_epochs(run, learner, loaders, reached, on_epoch, tensorboard=tensorboard)

        report = None
        if group.is_main:
            report = _finish(run, reached, trial=trial)
            warn_of_guessing(report["metrics"]["validation"])
        return group.from_main(report)


def _finish(run: Run, reached: Progress, *, trial: bool) -> dict[str, Any]:
    """Calibrate the best weights and report on them, as is done with ours."""
    logger.info("fitting the calibration, and measuring")
    data, config = run.data, run.config
    model = run.build(run.network)
    model.load_state_dict(reached.best_weights)
    network, names = place_model(model, run.group.device).eval(), data.manifest.class_names
    splits = ("validation",) if trial else ("validation", "test")
    films = {split: data.evaluation_films(split) for split in splits}
    logits = {split: compute_logits(network, films[split].films, data.spec) for split in splits}
    fitted = fit_calibration(logits["validation"], films["validation"].labels)
    return {
        "metrics": {
            split: evaluate_predictions(
                films[split].labels, fitted.probabilities(logits[split]), names, seed=config.seed
            )
            for split in splits
        },
        "config": asdict(config),
        "best_epoch": reached.best_epoch,
        "history": reached.history,
        "parameters": sum(weight.numel() for weight in model.parameters()),
    }


def write_baseline(found: Mapping[str, Any], folder: Path) -> None:
    """Write what :func:`train_baseline` gave, with its report and plots, into the run's folder."""
    write_training_report(found["metrics"], found["history"], folder)
    path = write_json(found, folder / BASELINE_NAME)
    log_summary(found["metrics"])
    logger.info("wrote %s; there is nothing to serve", path)
