"""The resumable state of a training, written atomically after every epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from resformer.checkpoint import (
    Checkpoint,
    CheckpointError,
    load_checkpoint,
    read_content,
    save_atomically,
)
from resformer.model import ResFormerConfig
from resformer.training.config import TrainingConfig
from resformer.training.learner import Learner, unwrap
from resformer.transforms import InputSpec

FORMAT = "resformer-training-1"
# The last of them matters only after the last epoch.
_FREE_TO_CHANGE = ("device", "workers", "normalisation_films")


@dataclass
class Progress:
    """How far a training has come.

    Attributes:
        history: one entry of figures an epoch.
        best_epoch: epoch of the best validation macro-F1 among those on the input that is served,
            counted from 1; 0 before the first.
        best_macro_f1: that figure, or the mean that ``foreign_share`` makes of it and of macro-F1
            in foreign surroundings and style.
        best_weights: averaged weights of that epoch.
        initial: what the initial weights tell of their training, or of all that they are the mean
            of; empty for random ones.
    """

    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best_macro_f1: float = -1.0
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    initial: dict[str, Any] | list[dict[str, Any]] = field(default_factory=dict)

    def is_over(self, config: TrainingConfig) -> bool:
        """Whether all epochs are done or too many passed without a better one."""
        done = len(self.history)
        waited = done - max(self.best_epoch, config.start_epochs)
        return done >= config.epochs or waited >= config.patience


def save_state(
    path: Path,
    learner: Learner,
    progress: Progress,
    config: TrainingConfig,
    class_names: Sequence[str],
    data_digest: str,
) -> None:
    """Write everything that the rest of the training depends on."""
    save_atomically(
        {
            "format": FORMAT,
            "network": learner.network.config.to_dict(),
            "class_names": list(class_names),
            "config": asdict(config),
            "data_digest": data_digest,
            "progress": asdict(progress),
            "model": unwrap(learner.model).state_dict(),
            "average": learner.average.state_dict(),
            "optimizer": learner.optimizer.state_dict(),
            "scheduler": learner.scheduler.state_dict(),
        },
        path,
    )


def load_state(path: Path, learner: Learner, config: TrainingConfig, data_digest: str) -> Progress:
    """Put a training back to where :func:`save_state` left it.

    Raises:
        CheckpointError: if the file is damaged, or another configuration, data set or start wrote
            it.
    """
    content = read_content(path)
    if content.get("format") != FORMAT:
        raise CheckpointError(f"{path} holds no training to resume: start without --resume")
    changed = _changed_options(content["config"], asdict(config))
    if changed:
        raise CheckpointError(
            f"{path} was trained with other options ({', '.join(changed)}): "
            "give the same ones to resume, or start in another folder"
        )
    if content["data_digest"] != data_digest:
        raise CheckpointError(
            f"{path} was trained on another split or from other initial weights: give the same ones"
        )
    unwrap(learner.model).load_state_dict(content["model"])
    learner.average.load_state_dict(content["average"])
    learner.optimizer.load_state_dict(content["optimizer"])
    learner.scheduler.load_state_dict(content["scheduler"])
    return Progress(**content["progress"])


def read_initial(path: Path) -> Checkpoint:
    """Read the weights that a training starts from.

    Args:
        path: of a checkpoint, or of the state of a training that was stopped, whose averaged
            weights of the last whole epoch are taken.

    Raises:
        CheckpointError: if the file is neither.
    """
    content = read_content(path)
    if content.get("format") != FORMAT:
        return load_checkpoint(path)
    prefix = "module."
    average: dict[str, Tensor] = content["average"]
    history = content["progress"]["history"]
    training = {"config": content["config"], "best_epoch": len(history), "history": history}
    # A state of a version before did not keep where its training started.
    if content["progress"].get("initial"):
        training["initial"] = content["progress"]["initial"]
    return Checkpoint(
        model_config=ResFormerConfig.from_dict(content["network"]),
        class_names=tuple(content["class_names"]),
        input_spec=InputSpec(size=content["config"]["input_size"]),
        state_dict={n.removeprefix(prefix): w for n, w in average.items() if n.startswith(prefix)},
        training=training,
    )


def _changed_options(former: dict[str, Any], current: dict[str, Any]) -> list[str]:
    """Name the options that differ and shape the result; one of a later version had its default."""
    former = asdict(TrainingConfig()) | former
    return [
        f"{name}: {former.get(name)} then, {current.get(name)} now"
        for name in sorted(set(former) | set(current))
        if name not in _FREE_TO_CHANGE and former.get(name) != current.get(name)
    ]
