"""The network: shapes, gradients, learning, export and clear refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from resformer.layers import IMTM
from resformer.model import IdentityMappingResFormer, ResFormerConfig


def test_the_default_network_is_small() -> None:
    parameters = sum(p.numel() for p in IdentityMappingResFormer().parameters())
    assert parameters < 1_500_000


@pytest.mark.parametrize(("height", "width"), [(64, 64), (128, 128), (96, 160), (224, 224)])
def test_logits_for_any_size_divisible_by_32(height: int, width: int) -> None:
    model = IdentityMappingResFormer().eval()
    assert model(torch.randn(2, 1, height, width)).shape == (2, 4)


def test_fused_features_have_the_four_scales_of_the_backbone() -> None:
    features = IdentityMappingResFormer().eval().forward_features(torch.randn(1, 1, 128, 96))
    assert [tuple(f.shape) for f in features] == [
        (1, 32, 32, 24),
        (1, 64, 16, 12),
        (1, 96, 8, 6),
        (1, 128, 4, 3),
    ]


@pytest.mark.parametrize("in_chans", [1, 3])
def test_a_gradient_reaches_every_parameter(in_chans: int) -> None:
    torch.manual_seed(0)
    model = IdentityMappingResFormer(ResFormerConfig(num_classes=3, in_chans=in_chans, dropout=0))
    logits = model(torch.randn(4, in_chans, 64, 64))
    nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 0])).backward()
    dead = [
        name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0
    ]
    # The softmax of an attention does not change when all its keys move alike, so the keys'
    # biases have no gradient beyond rounding; they share a tensor with the values' and are alive.
    assert dead == []


def test_the_identity_mapping_adds_the_fusion_to_the_backbones_features() -> None:
    class SilentFusion(IMTM):
        def forward(self, features: object) -> list[torch.Tensor]:
            assert isinstance(features, list)
            return [torch.zeros_like(f) for f in features]

    model = IdentityMappingResFormer().eval()
    model.imtm = SilentFusion((4,), 4, 1)
    x = torch.randn(1, 1, 64, 64)
    for fused, identity in zip(model.forward_features(x), model.backbone(x), strict=True):
        torch.testing.assert_close(fused, identity)


def test_all_four_scales_are_pooled() -> None:
    features = [torch.full((1, c, 2, 2), float(i)) for i, c in enumerate((32, 64, 96, 128))]
    pooled = IdentityMappingResFormer().pool(features)
    expected = torch.cat([torch.full((c,), float(i)) for i, c in enumerate((32, 64, 96, 128))])
    torch.testing.assert_close(pooled[0], expected)


def test_one_batch_can_be_overfitted(tiny_config: ResFormerConfig) -> None:
    torch.manual_seed(0)
    model = IdentityMappingResFormer(replace(tiny_config, dropout=0.0))
    images, labels = torch.randn(8, 1, 64, 64), torch.arange(8) % 4
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.02
    assert (model.eval()(images).argmax(1) == labels).all()


def test_torch_export_takes_any_batch(tiny_config: ResFormerConfig) -> None:
    model = IdentityMappingResFormer(tiny_config).eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(
        model, (torch.randn(2, 1, 64, 64),), dynamic_shapes={"x": {0: batch}}
    )
    for size in (1, 5):
        x = torch.randn(size, 1, 64, 64)
        torch.testing.assert_close(program.module()(x), model(x), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 64, 64), r"expected images \(B, 1, H, W\)"),
        ((1, 3, 64, 64), "convert to that many channels"),
        ((1, 1, 32, 64), "at least 64"),
        ((1, 1, 100, 64), "divisible by 32"),
    ],
)
def test_bad_shapes_are_refused_with_the_fix(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        IdentityMappingResFormer()(torch.zeros(shape))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 1}, "num_classes must be 2 or more"),
        ({"in_chans": 0}, "in_chans must be greater than 0"),
        ({"channels": (32, 64, 96)}, "channels needs 4 values"),
        ({"depths": (1, 0, 1, 1)}, "depths must be greater than 0"),
        ({"num_heads": (1, 3, 3, 4)}, "must be divisible by num_heads"),
        ({"fusion_dim": 130}, "must be divisible by num_heads"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\)"),
    ],
)
def test_bad_configurations_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(ResFormerConfig(), **changes)  # type: ignore[arg-type]


def test_the_configuration_survives_a_round_trip() -> None:
    config = ResFormerConfig(num_classes=7, depths=(1, 1, 2, 1), dropout=0.3)
    assert ResFormerConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match=r"lacks \['depths'\] and has unknown \['width'\]"):
        ResFormerConfig.from_dict(
            {k: v for k, v in config.to_dict().items() if k != "depths"} | {"width": 3}
        )
