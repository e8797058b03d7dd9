"""The Identity-Mapping ResFormer: configuration, backbone, auxiliary network, fusion and heads.

``x_i = EMPT_i(MCCRM_i(x_{i-1}))`` are the features of four stages, in which the convolutions of the
backbone are followed by a block of the auxiliary transformer network, and
``f_i = x_i + IMTM(x)_i`` (the identity mapping) is what is pooled and classified. Two departures
from the earlier implementation. There the EMPT looked at the stages from outside and only the IMTM
saw what it found; here the next stage does too, which tells COVID from Normal better
(docs/experiments.md). And it classified the last scale alone and left 24,768 parameters without a
gradient: here all four ``f_i`` are pooled, and where the network has a lung head, inside the lungs
that it predicts, so that the class is read off the lungs.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn

from resformer import checks
from resformer.layers import EMPT, IMTM, MCCRM, ConvNormAct, LungHead, average_inside, enlarge
from resformer.transforms import DOWNSAMPLING, MIN_SIDE

NUM_STAGES = 4
# Pixels a side of the square that one position of the lung head stands for.
LUNG_CELL = 4
# Weight of healthy lung where infected lung is averaged: lungs without any are averaged whole.
HEALTHY_WEIGHT = 0.05

# The largest values that a configuration may have, far above those of any network trained here.
_MOST = {
    "num_classes": 1000,
    "in_chans": 16,
    "channels": 4096,
    "depths": 64,
    "num_heads": 256,
    "reduction_ratios": 64,
    "fusion_dim": 4096,
    "fusion_heads": 256,
}
_MOST_MLP_RATIO = 16


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
        for name, most in _MOST.items():
            value = getattr(self, name)
            stages = isinstance(getattr(ResFormerConfig, name), tuple)
            if stages and (not isinstance(value, tuple) or len(value) != NUM_STAGES):
                raise ValueError(f"{name} needs {NUM_STAGES} values, one a stage, got {value}")
            for size in value if stages else (value,):
                checks.require_whole(name, size, most)
        if self.num_classes < 2:
            raise ValueError(f"num_classes must be 2 or more, got {self.num_classes}")
        checks.require_positive(mlp_ratio=self.mlp_ratio)
        checks.require_between("mlp_ratio", self.mlp_ratio, 0, _MOST_MLP_RATIO)
        for embed_dim, num_heads in zip(self.channels, self.num_heads, strict=True):
            checks.require_divisible(embed_dim, num_heads)
        checks.require_divisible(self.fusion_dim, self.fusion_heads)
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")
        for name in ("lung_head", "infection_head"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false, got {getattr(self, name)!r}")
        if self.infection_head and not self.lung_head:
            raise ValueError("infection_head needs lung_head: infection is looked for in the lungs")

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

        Raises:
            ValueError: if a field is missing, or one is unknown, naming it.
        """
        names = {field.name for field in fields(cls)}
        missing, unknown = names - set(values), set(values) - names
        if missing or unknown:
            raise ValueError(
                f"the network's configuration lacks {sorted(missing)} and has unknown "
                f"{sorted(unknown)}: it was written by another version"
            )
        restored: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        return cls(**restored)


class Backbone(nn.Module):
    """Stem and four stages with 2x2/2 convolutions between them.

    A stage is MCCRM blocks, which see a few pixels around each position, and then one EMPT of the
    auxiliary network, which lets every position see the whole film. The stem halves the image
    twice, so the stages run at 1/4, 1/8, 1/16 and 1/32 of its side. ``stages`` and ``downsamples``
    hold the convolutions, ``auxiliary`` the EMPTs.
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
        self.auxiliary = nn.ModuleList(
            EMPT(width, num_heads, reduction_ratio=ratio, mlp_ratio=config.mlp_ratio)
            for width, num_heads, ratio in zip(
                widths, config.num_heads, config.reduction_ratios, strict=True
            )
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map images ``(B, in_chans, H, W)`` to four ``(B, C_i, H / 2^(i+1), W / 2^(i+1))``."""
        return self.deepen(self.begin(x))

    def begin(self, x: Tensor) -> Tensor:
        """Return what the first convolutions make of images, ``(B, C_1, H/4, W/4)``."""
        first: Tensor = self.stages[0](self.stem(x))
        return first

    def deepen(self, first: Tensor) -> list[Tensor]:
        """Map the features of the first convolutions to those of all four stages."""
        features = [self.auxiliary[0](first)]
        for downsample, stage, transformer in zip(
            self.downsamples, list(self.stages)[1:], list(self.auxiliary)[1:], strict=True
        ):
            features.append(transformer(stage(downsample(features[-1]))))
        return features


class IdentityMappingResFormer(nn.Module):
    """The whole network, from grey image to logits."""

    def __init__(self, config: ResFormerConfig | None = None) -> None:
        super().__init__()
        self.config = config or ResFormerConfig()
        self.backbone = Backbone(self.config)
        self.imtm = IMTM(self.config.channels, self.config.fusion_dim, self.config.fusion_heads)
        self.dropout = nn.Dropout(self.config.dropout)
        self.fc = nn.Linear(self.config.pooled_width, self.config.num_classes)
        self.lung_head = (
            LungHead(self.config.channels, regions=self.config.regions)
            if self.config.lung_head
            else None
        )

    @overload
    def forward(self, x: Tensor, return_lungs: Literal[False] = False) -> Tensor: ...

    @overload
    def forward(self, x: Tensor, return_lungs: Literal[True]) -> tuple[Tensor, Tensor]: ...

    def forward(self, x: Tensor, return_lungs: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Map images ``(B, in_chans, H, W)`` to logits ``(B, num_classes)``.

        With ``return_lungs`` to these and the logits of the lungs, as :meth:`lungs` gives them.

        Raises:
            ValueError: as :meth:`forward_features`; as :meth:`lungs` if the lungs are asked for.
        """
        features = self.forward_features(x)
        if not return_lungs:
            return self.classify(features)
        lungs = self.lungs(features)
        return self.classify(features, lungs), lungs

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
        fused = self.imtm(features)
        return [
            identity + enlarge(mapped, identity.shape[-1] // mapped.shape[-1])
            for identity, mapped in zip(features, fused, strict=True)
        ]

    def lungs(self, features: list[Tensor]) -> Tensor:
        """Map the fused features to logits of being lung, ``(B, 1, H / 4, W / 4)``.

        With an infection head a second channel has the logits of being infected lung.

        Raises:
            ValueError: if the network has no lung head.
        """
        if self.lung_head is None:
            raise ValueError("the network has no lung head: train one with --lung-head")
        logits: Tensor = self.lung_head(features)
        return logits

    def classify(self, features: list[Tensor], lungs: Tensor | None = None) -> Tensor:
        """Map the fused features of :meth:`forward_features` to logits ``(B, num_classes)``.

        Args:
            features: of the four scales.
            lungs: what :meth:`lungs` returned for them, if it was asked already.
        """
        return self.head(self.pool(features, lungs))

    def head(self, pooled: Tensor) -> Tensor:
        """Map the pooled features of :meth:`pool`, ``(B, D)``, to logits ``(B, num_classes)``."""
        logits: Tensor = self.fc(self.dropout(pooled))
        return logits

    def pool(self, features: list[Tensor], lungs: Tensor | None = None) -> Tensor:
        """Average each ``(B, C_i, H_i, W_i)`` over its positions: ``(B, sum(C_i))``.

        With a lung head, over those inside the predicted lungs, and with an infection head also
        over those that are predicted to be infected: ``(B, 2 * sum(C_i))``. The loss of the classes
        sends no gradient into these regions, which would else come to mean "where the class shows
        best".
        """
        if self.lung_head is None:
            return torch.cat([f.mean(dim=(-2, -1)) for f in features], dim=1)
        logits = self.lungs(features) if lungs is None else lungs
        inside, *infected = torch.sigmoid(logits.detach().float()).split(1, dim=1)
        regions = torch.cat(
            [inside, *(inside * (share + HEALTHY_WEIGHT) for share in infected)], dim=1
        )
        return torch.cat([average_inside(f, regions) for f in features], dim=-1).flatten(1)

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


@dataclass(frozen=True)
class Part:
    """A part of the network.

    Attributes:
        name: as the papers call it.
        output: shape of what it computes for one image, without the batch.
        parameters: how many it learns.
    """

    name: str
    output: tuple[int, ...]
    parameters: int


def list_parts(config: ResFormerConfig, size: int) -> list[Part]:
    """List the parts of a network in the order in which an image ``(C, size, size)`` passes."""
    # Shapes alone are computed on this device.
    with torch.device("meta"):
        model = IdentityMappingResFormer(config).eval()
        image = torch.empty(1, config.in_chans, size, size)
    backbone = model.backbone
    features = backbone(image)
    downsamples: list[nn.Module | None] = [None, *backbone.downsamples]
    parts = [_part("Stem", backbone.stem(image), backbone.stem)]
    for i, feature in enumerate(features):
        name = f"Stage {i + 1}: {config.depths[i]} MCCRM"
        parts.append(_part(name, feature, backbone.stages[i], downsamples[i]))
        parts.append(_part(f"EMPT {i + 1}", feature, backbone.auxiliary[i]))
    fused = model.imtm(features)
    parts.append(_part("IMTM, each of the four scales", fused[0], model.imtm))
    if model.lung_head is not None:
        name = "Lung head" + (", with infected lung" if config.infection_head else "")
        parts.append(_part(name, model.lungs(features), model.lung_head))
    parts.append(_part("Classifier", model.classify(features), model.fc))
    return parts


def _part(name: str, output: Tensor, *modules: nn.Module | None) -> Part:
    learnt = [weight for module in modules if module for weight in module.parameters()]
    return Part(name, tuple(output.shape[1:]), sum(weight.numel() for weight in learnt))
