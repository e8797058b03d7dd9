"""The networks of the ablations: ours without a part, and those that people would use instead."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.baselines import WithoutLungs, build_baseline
from resformer.layers import EMPT
from resformer.layers.simam import SimAM
from resformer.model import IdentityMappingResFormer, ResFormerConfig

Build = Callable[[ResFormerConfig], nn.Module]


class LastScaleAlone(IdentityMappingResFormer):
    """Classifies the coarsest fused features alone, as the earlier implementation did."""

    def __init__(self, config: ResFormerConfig) -> None:
        super().__init__(config)
        regions = 1 + config.infection_head
        self.fc = nn.Linear(regions * config.channels[-1], config.num_classes)

    def pool(self, features: list[Tensor], lungs: Tensor | None = None) -> Tensor:
        """Average the coarsest features: ``(B, C_4)``, or twice that with an infection head."""
        if lungs is None and self.lung_head is not None:
            lungs = self.lungs(features)
        return super().pool(features[-1:], lungs)


class NoMapping(nn.Module):
    """In place of the IMTM: maps every feature to zero, so that ``f_i = x_i``."""

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Map features ``(B, C_i, H_i, W_i)`` to zeros of the same shapes."""
        return [torch.zeros_like(x) for x in features]


def without(part: type[nn.Module], config: ResFormerConfig) -> nn.Module:
    """Return our network with every module of a kind replaced by the identity."""
    model = IdentityMappingResFormer(config)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, part):
                parent.add_module(name, nn.Identity())
    return model


def without_fusion(config: ResFormerConfig) -> nn.Module:
    """Return our network without IMTM: every scale is added to its own EMPT's output."""
    model = IdentityMappingResFormer(config)
    model.add_module("imtm", nn.Identity())
    return model


def backbone_alone(config: ResFormerConfig) -> nn.Module:
    """Return our network without IMTM and, since nothing would read them, without EMPT."""
    model = IdentityMappingResFormer(config)
    model.add_module("auxiliary", nn.Identity())
    model.add_module("imtm", NoMapping())
    return model


def baseline(name: str, config: ResFormerConfig) -> nn.Module:
    """Return a network of torchvision with random weights."""
    return WithoutLungs(build_baseline(name, config.num_classes))


@dataclass(frozen=True)
class Variant:
    """One row of the ablations.

    Attributes:
        name: of the row.
        build: makes the network.
        lung_head: whether it predicts the lungs and learns them.
        infection_head: whether it predicts infected lung too.
        changes: what is different in the recipe, by the names of the training's options.
    """

    name: str
    build: Build = IdentityMappingResFormer
    lung_head: bool = True
    infection_head: bool = True
    changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def file_name(self) -> str:
        """Of its result."""
        return "-".join(self.name.lower().split()) + ".json"


def _plain(name: str) -> Variant:
    return Variant(name, partial(baseline, name), lung_head=False, infection_head=False)


VARIANTS = (
    Variant("ours"),
    Variant("ours without SimAM", partial(without, SimAM)),
    Variant("ours without EMPT", partial(without, EMPT)),
    Variant("ours without IMTM", without_fusion),
    Variant("ours without EMPT and IMTM", backbone_alone),
    Variant("ours pooling f4 only", LastScaleAlone),
    Variant("ours without infection head", infection_head=False),
    Variant("ours without lung head", lung_head=False, infection_head=False),
    Variant("ours without background replacement", changes={"background_replacement": 0.0}),
    Variant("ours without style exchange", changes={"style_exchange": 0.0}),
    _plain("ResNet-18"),
    _plain("MobileNetV3-Small"),
)
