"""The network: preprocessing, building blocks, shapes, gradients, learning, clear refusals."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from resformer.layers import EMPT, IMTM, MCCRM, ConvNormAct, DWConv3x3, SimAM
from resformer.layers.empt import SpatialReductionAttention
from resformer.model import IdentityMappingResFormer, ResFormerConfig
from resformer.transforms import InputSpec, normalise_pixels, resize_pixels, to_input


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
def test_bad_configurations_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(ResFormerConfig(), **changes)


def test_the_configuration_survives_a_round_trip() -> None:
    config = ResFormerConfig(num_classes=7, depths=(1, 1, 2, 1), dropout=0.3)
    assert ResFormerConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match=r"lacks \['depths'\] and has unknown \['width'\]"):
        ResFormerConfig.from_dict(
            {k: v for k, v in config.to_dict().items() if k != "depths"} | {"width": 3}
        )


def test_simam_gives_the_value_computed_by_hand() -> None:
    x = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]])
    # mean 3, squared deviations 4, 1, 0, 9, unbiased variance 14 / 3
    denominator = 4 * (14 / 3 + 1e-4)
    expected = [
        value / (1 + math.exp(-(squared / denominator + 0.5)))
        for value, squared in ((1, 4), (2, 1), (3, 0), (6, 9))
    ]
    assert SimAM()(x).flatten().tolist() == pytest.approx(expected, rel=1e-6)


def test_simam_attends_to_each_channel_on_its_own_in_a_graph_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = 3 + 5 * torch.randn(2, 3, 5, 4)
    trained = SimAM()(x)
    torch.testing.assert_close(trained[:1, 1:2], SimAM()(x[:1, 1:2]))
    constant = torch.full((1, 1, 4, 4), 2.0)
    torch.testing.assert_close(SimAM()(constant), constant / (1 + math.exp(-0.5)))
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    torch.testing.assert_close(SimAM()(x), trained)
    assert not list(SimAM().parameters())


def test_conv_norm_act_without_activation_is_linear() -> None:
    block = ConvNormAct(2, 4, 3, activate=False).eval()
    x = torch.randn(1, 2, 8, 8)
    torch.testing.assert_close(block(2 * x), 2 * block(x))


def test_mccrm_is_residual() -> None:
    block = MCCRM(8).eval()
    nn.init.zeros_(block.project.conv.weight)
    x = torch.randn(2, 8, 6, 6)
    torch.testing.assert_close(block(x), nn.functional.silu(x))


@pytest.mark.parametrize("ratio", [1, 2, 4])
def test_attention_has_one_key_for_each_square_of_positions(ratio: int) -> None:
    attention = SpatialReductionAttention(8, 2, ratio)
    seen: list[torch.Size] = []
    attention.key_value.register_forward_hook(lambda _m, args, _out: seen.append(args[0].shape))
    tokens = torch.randn(3, 8 * 12, 8)
    assert attention(tokens, 8, 12).shape == tokens.shape
    assert seen == [torch.Size((3 * 8 * 12 // ratio**2, 8))]


def test_attention_is_that_of_queries_to_keys_however_it_is_computed() -> None:
    torch.manual_seed(0)
    attention = SpatialReductionAttention(8, 2, 2)
    tokens = torch.randn(3, 4 * 6, 8)
    grid = tokens.transpose(1, 2).unflatten(2, (4, 6))
    reduced = attention.norm(attention.reduction(grid).flatten(2).transpose(1, 2))
    mapped = (attention.query(tokens), *attention.key_value(reduced).chunk(2, dim=-1))
    heads = (x.unflatten(-1, (2, 4)).transpose(1, 2) for x in mapped)
    attended = nn.functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
    torch.testing.assert_close(attention(tokens, 4, 6), attention.project(attended))


def test_what_an_empt_finds_reaches_the_next_stage() -> None:
    torch.manual_seed(0)
    model = IdentityMappingResFormer().eval()
    film = torch.randn(1, 1, 128, 128)
    before = model.backbone(film)
    block = model.backbone.auxiliary[1]
    assert isinstance(block, EMPT)
    nn.init.ones_(block.attention.project.bias)
    after = model.backbone(film)
    same = [torch.equal(one, other) for one, other in zip(before, after, strict=True)]
    assert same == [True, False, False, False]


def test_empt_is_the_identity_when_both_branches_are_silent() -> None:
    block = EMPT(8, 2, reduction_ratio=2)
    for layer in (block.attention.project, block.mlp.contract):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    x = torch.randn(2, 8, 6, 4)
    torch.testing.assert_close(block(x), x)


def test_empt_knows_positions_without_a_position_embedding() -> None:
    torch.manual_seed(0)
    block = EMPT(8, 2).eval()
    x = torch.randn(1, 8, 4, 4)
    shuffled = x.flatten(2)[:, :, torch.randperm(16)].view_as(x)
    assert not torch.allclose(block(x).sum(dim=(2, 3)), block(shuffled).sum(dim=(2, 3)), atol=1e-4)


def test_imtm_lets_every_scale_see_every_other() -> None:
    torch.manual_seed(0)
    module = IMTM((4, 8), embed_dim=16, num_heads=2)
    fine = torch.randn(1, 4, 8, 8)
    coarse = torch.randn(1, 8, 4, 4, requires_grad=True)
    fused = module([fine, coarse])
    assert [tuple(f.shape) for f in fused] == [(1, 4, 4, 4), (1, 8, 4, 4)]
    fused[0].sum().backward()
    assert coarse.grad is not None
    assert coarse.grad.abs().sum() > 0


def test_imtm_refuses_scales_that_do_not_fit() -> None:
    module = IMTM((4, 8), embed_dim=16, num_heads=2)
    with pytest.raises(ValueError, match="expected 2 scales, got 1"):
        module([torch.randn(1, 4, 8, 8)])
    with pytest.raises(ValueError, match="divisible by 32"):
        module([torch.randn(1, 4, 7, 8), torch.randn(1, 8, 4, 4)])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SimAM(0.0), "e_lambda must be greater than 0"),
        (lambda: SimAM()(torch.ones(1, 1, 1, 1)), "at least 2 positions"),
        (lambda: DWConv3x3(0, 4), "in_channels must be greater than 0"),
        (lambda: MCCRM(-1), "channels must be greater than 0"),
        (lambda: ConvNormAct(4, 4, 0), "kernel_size must be greater than 0"),
        (lambda: EMPT(10, 3), r"embed_dim \(10\) must be divisible by num_heads \(3\)"),
        (lambda: EMPT(8, 2, reduction_ratio=0), "reduction_ratio must be greater than 0"),
        (lambda: EMPT(8, 2, mlp_ratio=0), "mlp_ratio must be greater than 0"),
        (lambda: IMTM((), 8, 2), "scales must be greater than 0"),
        (lambda: IMTM((8,), 9, 2), r"must be divisible by num_heads \(2\)"),
    ],
)
def test_bad_arguments_are_refused_with_the_fix(build: object, message: str) -> None:
    assert callable(build)
    with pytest.raises(ValueError, match=message):
        build()


def test_the_percentiles_become_zero_and_one_before_normalising() -> None:
    film = np.full((64, 64), 100, np.uint8)
    film[:16], film[48:] = 50, 150
    spec = InputSpec(size=64, low_percentile=0, high_percentile=100, mean=0.5, std=0.25)
    values = to_input(film, spec)
    assert values.shape == (1, 64, 64)
    assert values[0, 0, 0] == -2  # (0 - 0.5) / 0.25
    assert values[0, 32, 32] == 0
    assert values[0, 63, 63] == 2


def test_exposure_and_contrast_do_not_matter() -> None:
    film = np.random.default_rng(0).integers(60, 120, (64, 64)).astype(np.uint8)
    spec = InputSpec(size=64)
    brighter = (2 * film.astype(int) + 10).astype(np.uint8)
    np.testing.assert_allclose(to_input(brighter, spec), to_input(film, spec), atol=1e-5)


def test_outliers_are_clipped_and_a_film_without_contrast_is_a_constant() -> None:
    film = np.tile(np.arange(100, 200, dtype=np.uint8), (100, 1))
    film[0, 0], film[0, 1] = 0, 255
    values = normalise_pixels(film, InputSpec(size=64, mean=0.0, std=1.0))
    assert (values.min(), values.max()) == (0.0, 1.0)
    even = to_input(np.full((80, 90), 77, np.uint8), InputSpec(size=64, mean=0.5, std=0.25))
    assert (even == -2).all()


def test_resizing_is_antialiased_and_leaves_a_film_of_the_right_size_alone() -> None:
    stripes = np.zeros((256, 256), np.uint8)
    stripes[:, ::2] = 255
    inner = resize_pixels(stripes, 64)[:, 2:-2].astype(int)
    assert abs(inner - 127).max() <= 1
    assert resize_pixels(stripes, 256) is stripes


@pytest.mark.parametrize(
    "film", [np.zeros((3, 8, 8), np.uint8), np.zeros((8, 8), np.float32), np.zeros(8, np.uint8)]
)
def test_what_is_no_decoded_film_is_refused(film: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"use resformer\.images\.decode_image"):
        to_input(film, InputSpec())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": 100}, "divisible by 32"),
        ({"size": 32}, "at least 64"),
        ({"low_percentile": 99.0, "high_percentile": 1.0}, "low < high"),
        ({"std": 0.0}, "std must be from 0.001 to 1000"),
    ],
)
def test_impossible_specifications_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InputSpec.from_dict(InputSpec().to_dict() | values)


def test_a_specification_survives_a_round_trip() -> None:
    spec = InputSpec(size=160, low_percentile=0.5, high_percentile=99.5, mean=0.4, std=0.3)
    assert InputSpec.from_dict(spec.to_dict()) == spec
    with pytest.raises(ValueError, match=r"lacks \['mean'\]"):
        InputSpec.from_dict({k: v for k, v in spec.to_dict().items() if k != "mean"})
