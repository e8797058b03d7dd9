"""How a network is trained: every option, its limits, and the recipes that set them all at once.

The command line makes its options from the fields of :class:`TrainingConfig`; the defaults are the
recommended recipe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from resformer.data.augment import STRENGTHS
from resformer.data.readings import HEALTHY_CLASS

OURS = "resformer"
BASELINES = ("resnet18", "mobilenet_v3_small", "densenet121")
OPTIMIZERS = ("adamw", "muon")
PRECISIONS = ("auto", "float32", "bfloat16")

LENGTH = "length and size of the training"
LUNGS = "lungs and infection, learnt from masks and boxes where the data set has them"
CUES = "against cues that give a class away without its disease"
OPTIMISATION = "optimiser"
MACHINE = "network and machine"


def _option(default: Any, group: str, text: str, choices: tuple[str, ...] = ()) -> Any:
    return field(default=default, metadata={"group": group, "help": text, "choices": choices})


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that shapes a training besides the data; the default is what we recommend.

    Raises:
        ValueError: if a value is impossible, naming it.
    """

    input_size: int = _option(160, LENGTH, "side of the input in pixels, divisible by 32")
    start_size: int = _option(
        96,
        LENGTH,
        "side of the input in the first half of the epochs, which saves time; 0: as in the second",
    )
    epochs: int = _option(56, LENGTH, "passes over the training films")
    batch_size: int = _option(64, LENGTH, "films per step, over all processes together")

    lung_head: bool = _option(True, LUNGS, "also predict the lungs, and read the class off them")
    infection_head: bool = _option(
        True, LUNGS, "also predict infected lung, and read the class off that as well"
    )
    healthy_class: str = _option(
        HEALTHY_CLASS, LUNGS, "class whose films show no infection; empty if there is none"
    )
    lung_epochs: int = _option(
        6, LUNGS, "passes over the films with a lung mask, before the epochs"
    )
    lung_loss: float = _option(
        0.5, LUNGS, "weight of the loss of the lungs beside that of the classes"
    )

    prior_smoothing: float = _option(
        0.2,
        CUES,
        "the loss adds the logarithm of the class shares in a film's source to the logits, so that "
        "what the source explains need not be learnt; this share of an even distribution softens "
        "them, and with 1 nothing is added",
    )
    background_replacement: float = _option(
        0.4, CUES, "probability of replacing what surrounds the predicted lungs"
    )
    lung_concealment: float = _option(
        0.03, CUES, "probability of covering the predicted lungs; such a film has no class"
    )
    style_exchange: float = _option(
        0.4, CUES, "probability of giving a film the tone and sharpness of another"
    )
    augmentation: str = _option(
        "strongest", CUES, "how strongly films are varied otherwise", tuple(STRENGTHS)
    )

    optimizer: str = _option(
        "muon",
        OPTIMISATION,
        "optimiser of matrices and kernels; AdamW updates all else",
        OPTIMIZERS,
    )
    learning_rate: float = _option(1.2e-3, OPTIMISATION, "peak learning rate of AdamW")
    weight_decay: float = _option(
        0.05, OPTIMISATION, "weight decay of AdamW, on matrices and kernels alone"
    )
    muon_learning_rate: float = _option(0.005, OPTIMISATION, "peak learning rate of Muon")
    muon_weight_decay: float = _option(0.02, OPTIMISATION, "weight decay of Muon")
    warmup_epochs: float = _option(
        1.0, OPTIMISATION, "epochs of linear warm-up before the cosine decay"
    )
    ema_decay: float = _option(0.998, OPTIMISATION, "decay of the averaged weights per step")
    label_smoothing: float = _option(
        0.05, OPTIMISATION, "share of the target that is spread over all classes"
    )
    gradient_clip: float = _option(1.0, OPTIMISATION, "largest norm of the gradient")

    network: str = _option(
        OURS,
        MACHINE,
        "what to train; the others are torchvision's, baselines that are reported on, not served",
        (OURS, *BASELINES),
    )
    seed: int = _option(0, MACHINE, "seed of weights, shuffling, augmentation and split")
    workers: int = _option(2, MACHINE, "processes that augment films")
    precision: str = _option(
        "auto", MACHINE, "precision of matrix products; auto: what is fast", PRECISIONS
    )
    device: str = _option("auto", MACHINE, "auto, cpu, cuda, cuda:1 or mps")

    def __post_init__(self) -> None:
        """Refuse impossible values before anything is read."""
        for option in fields(self):
            choices, value = option.metadata["choices"], getattr(self, option.name)
            if choices and value not in choices:
                raise ValueError(
                    f"{option.name} must be one of {', '.join(choices)}, got {value!r}"
                )
        self._require("greater than 0", ("epochs", "batch_size", "gradient_clip"))
        self._require("greater than 0", ("learning_rate", "muon_learning_rate", "lung_loss"))
        self._require("0 or more", ("weight_decay", "muon_weight_decay", "warmup_epochs"))
        self._require("0 or more", ("lung_epochs", "workers", "seed", "start_size"))
        self._require("in [0, 1)", ("ema_decay", "label_smoothing"))
        self._require("in (0, 1]", ("prior_smoothing",))
        self._require("in [0, 1]", ("background_replacement", "lung_concealment", "style_exchange"))
        if self.network != OURS and self.lung_head:
            raise ValueError(f"lung_head is for {OURS} alone: {self.network} has none")
        if self.infection_head and not self.lung_head:
            raise ValueError("infection_head needs lung_head: infection is looked for in the lungs")
        for name in ("background_replacement", "lung_concealment"):
            if getattr(self, name) and not (self.lung_head and self.lung_epochs):
                raise ValueError(
                    f"{name} needs lung_head and lung_epochs: the lungs that it acts on are "
                    "predicted"
                )

    def _require(
        self,
        limits: Literal["greater than 0", "0 or more", "in [0, 1)", "in (0, 1]", "in [0, 1]"],
        names: tuple[str, ...],
    ) -> None:
        for name in names:
            value = getattr(self, name)
            inside = {
                "greater than 0": value > 0,
                "0 or more": value >= 0,
                "in [0, 1)": 0 <= value < 1,
                "in (0, 1]": 0 < value <= 1,
                "in [0, 1]": 0 <= value <= 1,
            }
            if not inside[limits]:
                raise ValueError(f"{name} must be {limits}, got {value}")

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

    def without_lungs(self) -> TrainingConfig:
        """Return the same without a lung head and without all that needs one."""
        return replace(
            self,
            lung_head=False,
            infection_head=False,
            background_replacement=0.0,
            lung_concealment=0.0,
        )


RECOMMENDED = TrainingConfig()

RECIPES = {
    "recommended": RECOMMENDED,
    # Minutes on a processor: to see that the data is read rightly, not to use.
    "quick": replace(RECOMMENDED, input_size=96, start_size=64, epochs=6, lung_epochs=2),
    # What the rest of the recommended recipe has to be better than.
    "bare": replace(
        RECOMMENDED.without_lungs(),
        style_exchange=0.0,
        augmentation="moderate",
        prior_smoothing=1.0,
        optimizer="adamw",
    ),
}


def change_recipe(recipe: TrainingConfig, changes: Mapping[str, Any]) -> TrainingConfig:
    """Return a recipe with other values of some options.

    Where the changes take its lung head away, as a baseline's network does, what needs one goes
    too.

    Raises:
        ValueError: if there is no such option, or a value is impossible.
    """
    names = [option.name for option in fields(TrainingConfig)]
    unknown = sorted(set(changes) - set(names))
    if unknown:
        raise ValueError(
            f"a training has no option {', '.join(unknown)}: choose among {', '.join(names)}"
        )
    if changes.get("network", OURS) != OURS or changes.get("lung_head") is False:
        recipe = recipe.without_lungs()
    return replace(recipe, **changes)
