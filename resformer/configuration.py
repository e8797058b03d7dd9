"""Configuration of the network: what a checkpoint holds beside the weights."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from resformer.layers.validation import require_divisible, require_positive

NUM_STAGES = 4
_ADDED_LATER = frozenset({"lung_head", "infection_head"})


@dataclass(frozen=True)
class ResFormerConfig:
    """Everything that is needed to build the network.

    Attributes:
        num_classes: length of the logits, two or more.
        in_chans: channels of the image; an X-ray has one.
        channels: channels of the four stages, finest first.
        depths: MCCRM blocks in each stage.
        num_heads: attention heads of each stage's EMPT.
        reduction_ratios: spatial reduction of the keys in each stage's EMPT.
        mlp_ratio: hidden channels of the EMPT's MLP as a multiple of the stage's channels.
        fusion_dim: width of the tokens in the IMTM.
        fusion_heads: attention heads of the IMTM.
        dropout: probability of dropping a pooled feature during training.
        lung_head: whether the network predicts the lungs and pools inside them; else it pools
            over the whole image.
        infection_head: whether the lung head predicts infected lung too, and the class is read
            off that as well as off the whole lungs; needs the lung head.

    Raises:
        ValueError: if a value is impossible, naming it and what to change.
    """

    num_classes: int = 4
    in_chans: int = 1
    channels: tuple[int, ...] = (32, 64, 96, 128)
    depths: tuple[int, ...] = (1, 2, 2, 1)
    num_heads: tuple[int, ...] = (1, 2, 3, 4)
    reduction_ratios: tuple[int, ...] = (8, 4, 2, 1)
    mlp_ratio: float = 2.0
    fusion_dim: int = 128
    fusion_heads: int = 4
    dropout: float = 0.2
    lung_head: bool = False
    infection_head: bool = False

    def __post_init__(self) -> None:
        """Refuse impossible values at once, not in the middle of a training."""
        if self.num_classes < 2:
            raise ValueError(f"num_classes must be 2 or more, got {self.num_classes}")
        require_positive(in_chans=self.in_chans, mlp_ratio=self.mlp_ratio)
        for name in ("channels", "depths", "num_heads", "reduction_ratios"):
            values = getattr(self, name)
            if len(values) != NUM_STAGES:
                raise ValueError(f"{name} needs {NUM_STAGES} values, one a stage, got {values}")
            for value in values:
                require_positive(**{name: value})
        for embed_dim, num_heads in zip(self.channels, self.num_heads, strict=True):
            require_divisible(embed_dim, num_heads)
        require_divisible(self.fusion_dim, self.fusion_heads)
        if self.infection_head and not self.lung_head:
            raise ValueError("infection_head needs lung_head: infection is looked for in the lungs")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")

    @property
    def regions(self) -> int:
        """How many regions the features are averaged over: the lungs, and infected lung."""
        return 1 + self.infection_head

    @property
    def pooled_width(self) -> int:
        """Length of the pooled features that the class is read off."""
        return self.regions * sum(self.channels)

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists and numbers, fit for JSON and for a checkpoint."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ResFormerConfig:
        """Rebuild a configuration from :meth:`to_dict`.

        What was added to the configuration later may be missing: it takes the default, which
        builds the network of the time before.

        Raises:
            ValueError: if another field is missing, or one is unknown, naming it.
        """
        names = {field.name for field in fields(cls)}
        missing, unknown = names - _ADDED_LATER - set(values), set(values) - names
        if missing or unknown:
            raise ValueError(
                f"the network's configuration lacks {sorted(missing)} and has unknown "
                f"{sorted(unknown)}: it was written by another version"
            )
        restored: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        return cls(**restored)
