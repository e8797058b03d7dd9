"""What a run's folder holds of its training: the state to resume from, the history, its curves."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from torch import Tensor

from resformer.checkpoint import (
    Checkpoint,
    CheckpointError,
    load_checkpoint,
    read_content,
    save_atomically,
)
from resformer.evaluation.lineage import MACRO_F1
from resformer.evaluation.plots import plot_history
from resformer.evaluation.report import save_figures, write_json
from resformer.model import IdentityMappingResFormer, ResFormerConfig
from resformer.training.config import OURS, TrainingConfig
from resformer.training.epoch import Learner, unwrap
from resformer.transforms import InputSpec

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FORMAT = "resformer-training-3"
STATE_NAME = "last.pt"
_LOCK_NAME = ".lock"
_FREE_TO_CHANGE = ("device", "workers")
# What a training needs in its folder at least, beside the decoded films, and for its checkpoint.
RUN_BYTES, CHECKPOINT_BYTES = 128 * 2**20, 32 * 2**20


@dataclass
class Progress:
    """How far a training has come.

    Attributes:
        history: figures of each epoch.
        best_epoch: epoch of the best validation score among those on the input that is served,
            counted from 1; 0 before the first.
        best_score: that figure.
        best_weights: averaged weights of that epoch.
        initial: what the initial weights tell of their training; empty for random ones.
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    best_score: float = -1.0
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    initial: dict[str, Any] = field(default_factory=dict)

    def record(
        self, figures: dict[str, Any], weights: dict[str, Tensor], config: TrainingConfig
    ) -> None:
        """Note an epoch's figures and keep its weights if they are the best so far.

        Weights that have learnt from a smaller input than the one served are not kept: a larger
        input moves the line between the classes.
        """
        epoch = len(self.history) + 1
        self.history.append({"epoch": epoch, **figures})
        if figures["validation_score"] > self.best_score and epoch > config.start_epochs:
            self.best_epoch = epoch
            self.best_score = figures["validation_score"]
            self.best_weights = weights

    def seconds_left(self, config: TrainingConfig) -> float:
        """Estimate how long the other epochs will take, by those that were."""
        left = 0.0
        for epoch in range(len(self.history), config.epochs):
            size = config.size_at(epoch)
            alike = [e["total_seconds"] for e in self.history if e["input_size"] == size]
            # Time goes with the number of pixels.
            others = [e["total_seconds"] * (size / e["input_size"]) ** 2 for e in self.history]
            known = alike or others
            left += sum(known) / len(known) if known else 0.0
        return left


def save_state(
    path: Path,
    learner: Learner,
    progress: Progress,
    config: TrainingConfig,
    class_names: Sequence[str],
    start_digest: str,
) -> None:
    """Write everything that the rest of the training depends on."""
    network = unwrap(learner.model)
    described = network.config.to_dict() if isinstance(network, IdentityMappingResFormer) else {}
    save_atomically(
        {
            "format": FORMAT,
            "network": described,
            "class_names": list(class_names),
            "config": asdict(config),
            "start_digest": start_digest,
            "progress": asdict(progress),
            "model": network.state_dict(),
            "average": learner.average.state_dict(),
            "optimizer": learner.optimizer.state_dict(),
            "scheduler": learner.scheduler.state_dict(),
        },
        path,
    )


def check_state(path: Path, config: TrainingConfig, start_digest: str) -> dict[str, Any]:
    """Return what :func:`save_state` wrote, if it was of the same training.

    Raises:
        CheckpointError: if the file is damaged, or another configuration, data set or start wrote
            it.
    """
    content = read_content(path)
    if content.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} was written by another version: start anew, in another folder"
        )
    former, current = content["config"], asdict(config)
    changed = [
        f"{name}: {former.get(name)} then, {current.get(name)} now"
        for name in sorted(set(former) | set(current))
        if name not in _FREE_TO_CHANGE and former.get(name) != current.get(name)
    ]
    if changed:
        raise CheckpointError(
            f"{path} was trained with other options ({', '.join(changed)}): "
            "give the same ones to resume, or start in another folder"
        )
    if content["start_digest"] != start_digest:
        raise CheckpointError(
            f"{path} was trained on another split, from other initial weights, or with lungs that "
            "another model outlined: give the same ones"
        )
    return content


def load_state(path: Path, learner: Learner, config: TrainingConfig, start_digest: str) -> Progress:
    """Put a training back to where :func:`save_state` left it.

    Raises:
        CheckpointError: as :func:`check_state`.
    """
    content = check_state(path, config, start_digest)
    unwrap(learner.model).load_state_dict(content["model"])
    learner.average.load_state_dict(content["average"])
    learner.optimizer.load_state_dict(content["optimizer"])
    learner.scheduler.load_state_dict(content["scheduler"])
    return Progress(**content["progress"])


def read_initial(path: Path) -> Checkpoint:
    """Read the weights that a training starts from: a checkpoint, or the state of a stopped one.

    Of a state the averaged weights of the last whole epoch are taken.

    Raises:
        CheckpointError: if the file is neither, or another network's.
    """
    content = read_content(path)
    if content.get("format") != FORMAT:
        return load_checkpoint(path)
    if not content["network"]:
        raise CheckpointError(f"{path} is of {content['config']['network']}, not of {OURS}")
    prefix = "module."
    average: dict[str, Tensor] = content["average"]
    history, start = content["progress"]["history"], content["progress"]["initial"]
    training = {"config": content["config"], "best_epoch": len(history), "history": history}
    return Checkpoint(
        model_config=ResFormerConfig.from_dict(content["network"]),
        class_names=tuple(content["class_names"]),
        input_spec=InputSpec(size=content["config"]["input_size"]),
        state_dict={n.removeprefix(prefix): w for n, w in average.items() if n.startswith(prefix)},
        training=training | ({"initial": start} if start else {}),
    )


def check_run_folder(folder: Path, *, resume: bool) -> None:
    """Make sure that no training is overwritten, and none is resumed that is not there.

    Raises:
        FileExistsError: if the folder holds a training and ``resume`` is not given.
        FileNotFoundError: if ``resume`` is given and the folder holds none.
    """
    exists = (folder / STATE_NAME).is_file()
    if exists and not resume:
        raise FileExistsError(
            f"{folder} holds a training: resume it (--resume), or name another folder"
        )
    if resume and not exists:
        raise FileNotFoundError(f"{folder} holds no training to resume: start without --resume")


@contextmanager
def lock_run_folder(folder: Path, *, is_main: bool = True) -> Iterator[None]:
    """Keep other trainings out of a run's folder, which is made where it does not exist.

    Only the main process of several locks; locking again within the process is allowed.

    Raises:
        FileExistsError: if another training has it.
        OSError: if it cannot be written to, or the disk is full.
    """
    if not is_main:
        yield
        return
    check_space(folder, RUN_BYTES)
    try:
        with FileLock(folder / _LOCK_NAME, timeout=0, is_singleton=True):
            yield
    except Timeout as error:
        raise FileExistsError(
            f"another training writes to {folder}: wait for it, or name another folder (--run-dir)"
        ) from error


def check_space(folder: Path, size: int) -> None:
    """Make sure that a folder, which is made where there is none, takes a file of some bytes.

    Raises:
        OSError: if it does not, before hours of training find out.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".space-") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        raise OSError(
            error.errno, f"cannot write {size / 2**20:.0f} MB: {error.strerror}", str(folder)
        ) from error


# What is shown of it


def describe_epoch(reached: Progress, config: TrainingConfig) -> str:
    """Return the figures of the last epoch, and how long those to come will take, as one line."""
    figures, epochs_left = reached.history[-1], config.epochs - len(reached.history)
    seconds = reached.seconds_left(config)
    left = "less than a minute left" if seconds < 60 else f"{seconds / 60:.0f} min left"
    shown = {
        "loss": figures["train_loss"],
        "validation loss": figures["validation_loss"],
        "accuracy": figures["validation_accuracy"],
        MACRO_F1: figures["validation_macro_f1"],
        figures["score"]: figures["validation_score"],
    }
    best = f"best {reached.best_score:.4f} in epoch {reached.best_epoch}"
    return (
        ", ".join(f"{name} {value:.4f}" for name, value in shown.items())
        + f" ({best if reached.best_epoch else 'not yet at the size that is served'})"
        + f"; {left if epochs_left else 'the epochs are done'}"
    )


def show_history(reached: Progress, folder: Path, writer: SummaryWriter | None) -> None:
    """Write the history and its curves anew, and the last epoch for TensorBoard."""
    write_json(reached.history, folder / "history.json")
    save_figures({"history": plot_history(reached.history)}, folder)
    if writer:
        figures = reached.history[-1]
        for name, value in figures.items():
            if isinstance(value, float):
                writer.add_scalar(name, value, figures["epoch"])
        for source, found in figures["sources"].items():
            for pair, auc in found["auc"].items():
                writer.add_scalar(f"AUC {source or 'all'}/{pair}", auc, figures["epoch"])
        writer.flush()


def check_tensorboard(wanted: bool) -> None:
    """Make sure that TensorBoard is installed where it is wanted.

    Raises:
        ValueError: if it is not.
    """
    if wanted and importlib.util.find_spec("tensorboard") is None:
        raise ValueError("--tensorboard needs the package tensorboard: pip install tensorboard")


def open_tensorboard(folder: Path, reached: Progress) -> SummaryWriter:
    """Open the folder ``tensorboard`` of a run, to go on after the last epoch."""
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder / "tensorboard"), purge_step=len(reached.history) + 1)
