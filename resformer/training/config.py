"""Configuration of a training; the command line's options are made from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from resformer.data.augment import STRENGTHS

OPTIMIZERS = ("adamw", "muon")


def _option(default: Any, description: str) -> Any:
    return field(default=default, metadata={"help": description})


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that shapes a training besides the data and the network.

    Raises:
        ValueError: if a value is impossible, naming it.
    """

    input_size: int = _option(128, "side of the input in pixels, divisible by 32")
    start_size: int = _option(
        0, "side of the input in the first half of the epochs, which saves time; 0: as input_size"
    )
    epochs: int = _option(40, "most passes over the training films")
    batch_size: int = _option(32, "films a step, over all processes together")
    learning_rate: float = _option(1.5e-3, "peak learning rate of AdamW")
    weight_decay: float = _option(0.05, "weight decay of AdamW, on matrices and kernels alone")
    optimizer: str = _option(
        "adamw", f"{' or '.join(OPTIMIZERS)}: of matrices and kernels; AdamW steps all else"
    )
    muon_learning_rate: float = _option(0.004, "peak learning rate of Muon, where it is chosen")
    muon_weight_decay: float = _option(0.02, "weight decay of Muon")
    warmup_epochs: float = _option(1.0, "epochs of linear warm-up before the cosine decay")
    ema_decay: float = _option(0.998, "decay of the moving average of the weights, a step")
    label_smoothing: float = _option(0.05, "share of the target that is spread over all classes")
    class_balance: float = _option(
        0.5, "loss weight of a class is its frequency to the power of minus this: 0 none, 1 full"
    )
    source_balance: float = _option(
        0.0, "the same among the sources within a class, where the files' names tell them"
    )
    augmentation: str = _option("moderate", f"how much films are varied: {', '.join(STRENGTHS)}")
    lung_head: bool = _option(
        False, "predict the lungs too, learnt from the masks beside the images, and look inside"
    )
    infection_head: bool = _option(
        False, "predict infected lung too, learnt from infection masks, and look there as well"
    )
    healthy_class: str = _option(
        "", "name of the class whose films show no infection, for the infection head"
    )
    lung_epochs: int = _option(6, "passes over the films with a mask that only learn the lungs")
    lung_loss: float = _option(0.5, "weight of the loss of the lungs beside that of the classes")
    background_replacement: float = _option(
        0.0, "probability of replacing what surrounds the predicted lungs; needs the lung head"
    )
    lung_concealment: float = _option(
        0.0, "probability of covering the predicted lungs: such a film has no class"
    )
    style_exchange: float = _option(
        0.0, "probability of giving a film the tone and the sharpness of another one"
    )
    foreign_share: float = _option(
        0.0,
        "what macro-F1 on the validation films in foreign surroundings and style counts in the "
        "choice of the epoch, beside macro-F1 on them as they are; needs the lung head",
    )
    normalisation_films: int = _option(
        0, "unvaried training films to measure batch normalisation on at the end; 0: leave it"
    )
    gradient_clip: float = _option(1.0, "largest norm of the gradient")
    patience: int = _option(12, "epochs without a better validation macro-F1 before stopping")
    seed: int = _option(0, "of the weights, the shuffle, the augmentation and the split")
    workers: int = _option(2, "processes that augment films")
    precision: str = _option("auto", "auto, float32 or bfloat16 (auto: where it is fast)")
    device: str = _option("auto", "auto, cpu, cuda, cuda:1 or mps")

    def __post_init__(self) -> None:
        """Refuse impossible values before anything is read."""
        for name in (
            *("epochs", "batch_size", "patience", "gradient_clip"),
            *("learning_rate", "muon_learning_rate", "lung_loss"),
        ):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be greater than 0, got {getattr(self, name)}")
        for name in (
            *("weight_decay", "muon_weight_decay", "warmup_epochs"),
            *("class_balance", "source_balance"),
            *("lung_epochs", "workers", "seed", "start_size", "normalisation_films"),
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}")
        for name in ("ema_decay", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        for name in (
            *("background_replacement", "lung_concealment", "style_exchange", "foreign_share"),
        ):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        if self.infection_head and not self.lung_head:
            raise ValueError("infection_head needs lung_head: infection is looked for in the lungs")
        for name in ("background_replacement", "lung_concealment", "foreign_share"):
            if getattr(self, name) and not (self.lung_head and self.lung_epochs):
                raise ValueError(
                    f"{name} needs lung_head and lung_epochs: the lungs that it acts on are "
                    "predicted"
                )
        if self.augmentation not in STRENGTHS:
            raise ValueError(
                f"augmentation must be one of {', '.join(STRENGTHS)}, got {self.augmentation!r}"
            )
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer must be {' or '.join(OPTIMIZERS)}, got {self.optimizer!r}")
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise ValueError(f"precision must be auto, float32 or bfloat16, got {self.precision!r}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainingConfig:
        """Rebuild what a checkpoint tells, with defaults for options that its version had not.

        Options of other versions that this one has not are left out.
        """
        known = {option.name for option in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sides of the input in the order in which they are trained on."""
        return (self.start_size, self.input_size) if self.start_size else (self.input_size,)

    @property
    def start_epochs(self) -> int:
        """How many epochs at the start are trained on a smaller input than the one served."""
        return self.epochs // 2 if self.sizes[0] != self.input_size else 0

    def size_at(self, epoch: int) -> int:
        """Return the side of the input in an epoch, counted from 0."""
        return self.sizes[0] if epoch < self.start_epochs else self.input_size
