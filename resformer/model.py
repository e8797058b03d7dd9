"""The Identity-Mapping ResFormer: convolutional backbone, auxiliary transformer network, fusion.

``x_i`` are the features of the backbone's four stages, ``t_i = EMPT_i(x_i)`` those of the
auxiliary network, and ``f_i = x_i + IMTM(t)_i`` (the identity mapping) is what is pooled and
classified. Departure from the earlier implementation, which classified the last scale alone and
left 24,768 parameters without a gradient: all four ``f_i`` are pooled.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from resformer.layers import EMPT, IMTM, MCCRM, ConvNormAct
from resformer.layers.validation import require_divisible, require_positive

NUM_STAGES = 4
DOWNSAMPLING = 32
MIN_SIDE = 64


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
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists and numbers, fit for JSON and for a checkpoint."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ResFormerConfig:
        """Rebuild a configuration from :meth:`to_dict`.

        Raises:
            ValueError: if a field is missing or unknown, naming it.
        """
        names = {field.name for field in fields(cls)}
        if set(values) != names:
            raise ValueError(
                f"the network's configuration lacks {sorted(names - set(values))} and has unknown "
                f"{sorted(set(values) - names)}: it was written by another version"
            )
        restored: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        return cls(**restored)


class Backbone(nn.Module):
    """Stem and four stages of MCCRM blocks with 2x2/2 convolutions between them.

    The stem halves the image twice, so the stages run at 1/4, 1/8, 1/16 and 1/32 of its side.
    """

    def __init__(self, config: ResFormerConfig) -> None:
        super().__init__()
        widths = config.channels
        self.stem = nn.Sequential(
            ConvNormAct(config.in_chans, widths[0] // 2, 3, stride=2),
            ConvNormAct(widths[0] // 2, widths[0], 3, stride=2),
        )
        self.downsamples = nn.ModuleList(
            ConvNormAct(narrow, wide, 2, stride=2, activate=False)
            for narrow, wide in pairwise(widths)
        )
        self.stages = nn.ModuleList(
            nn.Sequential(*(MCCRM(width) for _ in range(depth)))
            for width, depth in zip(widths, config.depths, strict=True)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map images ``(B, in_chans, H, W)`` to four ``(B, C_i, H / 2^(i+1), W / 2^(i+1))``."""
        return self.deepen(self.begin(x))

    def begin(self, x: Tensor) -> Tensor:
        """Map images ``(B, in_chans, H, W)`` to the first stage, ``(B, C_1, H / 4, W / 4)``."""
        first: Tensor = self.stages[0](self.stem(x))
        return first

    def deepen(self, first: Tensor) -> list[Tensor]:
        """Map the features of the first stage to those of all four."""
        features = [first]
        for downsample, stage in zip(self.downsamples, list(self.stages)[1:], strict=True):
            features.append(stage(downsample(features[-1])))
        return features


class AuxiliaryNetwork(nn.Module):
    """One EMPT for each stage of the backbone."""

    def __init__(self, config: ResFormerConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            EMPT(embed_dim, num_heads, reduction_ratio=ratio, mlp_ratio=config.mlp_ratio)
            for embed_dim, num_heads, ratio in zip(
                config.channels, config.num_heads, config.reduction_ratios, strict=True
            )
        )

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Map each stage's ``(B, C_i, H_i, W_i)`` to the same shape."""
        return [block(x) for block, x in zip(self.blocks, features, strict=True)]


class IdentityMappingResFormer(nn.Module):
    """The whole network, from grey image to logits.

    Args:
        config: what to build; the default is the shipped network.
    """

    def __init__(self, config: ResFormerConfig | None = None) -> None:
        super().__init__()
        self.config = config or ResFormerConfig()
        self.backbone = Backbone(self.config)
        self.auxiliary = AuxiliaryNetwork(self.config)
        self.imtm = IMTM(self.config.channels, self.config.fusion_dim, self.config.fusion_heads)
        self.dropout = nn.Dropout(self.config.dropout)
        self.fc = nn.Linear(sum(self.config.channels), self.config.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(B, in_chans, H, W)`` to logits ``(B, num_classes)``.

        Raises:
            ValueError: as :meth:`forward_features`.
        """
        return self.classify(self.forward_features(x))

    def forward_features(self, x: Tensor) -> list[Tensor]:
        """Map images to the four fused features ``f_i``, ``(B, C_i, H_i, W_i)``, finest first.

        Raises:
            ValueError: if the shape is not ``(B, in_chans, H, W)`` with sides divisible by 32
                and 64 or more.
        """
        self._check_shape(x)
        return self.fuse(self.backbone(x))

    def fuse(self, features: list[Tensor]) -> list[Tensor]:
        """Map the backbone's four features to the fused ones, of the same shapes."""
        fused = self.imtm(self.auxiliary(features))
        return [identity + mapped for identity, mapped in zip(features, fused, strict=True)]

    def classify(self, features: list[Tensor]) -> Tensor:
        """Map the fused features of :meth:`forward_features` to logits ``(B, num_classes)``."""
        logits: Tensor = self.fc(self.dropout(self.pool(features)))
        return logits

    def pool(self, features: list[Tensor]) -> Tensor:
        """Average each ``(B, C_i, H_i, W_i)`` over its positions: ``(B, sum(C_i))``."""
        return torch.cat([f.mean(dim=(-2, -1)) for f in features], dim=1)

    def _check_shape(self, x: Tensor) -> None:
        if x.ndim != 4 or x.shape[1] != self.config.in_chans:
            raise ValueError(
                f"expected images (B, {self.config.in_chans}, H, W), got {tuple(x.shape)}: "
                "convert to that many channels and add the batch dimension"
            )
        height, width = x.shape[-2:]
        if min(height, width) < MIN_SIDE or height % DOWNSAMPLING or width % DOWNSAMPLING:
            raise ValueError(
                f"image sides must be divisible by {DOWNSAMPLING} and at least {MIN_SIDE}, "
                f"got {height} x {width}: resize the image"
            )
