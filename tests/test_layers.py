"""The building blocks: exact values, shapes and clear refusals."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from resformer.layers import EMPT, IMTM, MCCRM, ConvNormAct, DWConv3x3, SimAM
from resformer.layers.empt import SpatialReductionAttention


def test_simam_gives_the_value_computed_by_hand() -> None:
    x = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]])
    # mean 3, squared deviations 4, 1, 0, 9, unbiased variance 14 / 3
    denominator = 4 * (14 / 3 + 1e-4)
    expected = [
        value / (1 + math.exp(-(squared / denominator + 0.5)))
        for value, squared in ((1, 4), (2, 1), (3, 0), (6, 9))
    ]
    assert SimAM()(x).flatten().tolist() == pytest.approx(expected, rel=1e-6)


def test_simam_attends_to_each_channel_on_its_own() -> None:
    x = torch.randn(2, 3, 5, 4)
    alone = SimAM()(x[:1, 1:2])
    torch.testing.assert_close(SimAM()(x)[:1, 1:2], alone)
    assert not list(SimAM().parameters())


def test_simam_of_a_constant_channel_is_a_plain_gate() -> None:
    x = torch.full((1, 1, 4, 4), 2.0)
    expected = 2 / (1 + math.exp(-0.5))
    torch.testing.assert_close(SimAM()(x), torch.full_like(x, expected))


def test_simam_is_exported_as_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    x = 3 + 5 * torch.randn(2, 3, 5, 4)
    trained = SimAM()(x)
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    torch.testing.assert_close(SimAM()(x), trained)


def test_simam_refuses_a_single_position() -> None:
    with pytest.raises(ValueError, match="at least 2 positions"):
        SimAM()(torch.ones(1, 1, 1, 1))


def test_dwconv_is_a_depthwise_then_a_pointwise_convolution() -> None:
    block = DWConv3x3(6, 10)
    assert block.depthwise.weight.shape == (6, 1, 3, 3)
    assert block.pointwise.conv.weight.shape == (10, 6, 1, 1)
    assert block(torch.randn(2, 6, 9, 7)).shape == (2, 10, 9, 7)


def test_conv_norm_act_without_activation_is_linear() -> None:
    block = ConvNormAct(2, 4, 3, activate=False).eval()
    x = torch.randn(1, 2, 8, 8)
    torch.testing.assert_close(block(2 * x), 2 * block(x))


def test_mccrm_is_residual() -> None:
    block = MCCRM(8).eval()
    nn.init.zeros_(block.project.conv.weight)
    x = torch.randn(2, 8, 6, 6)
    torch.testing.assert_close(block(x), nn.functional.silu(x))


def test_mccrm_concatenates_the_refined_features_with_the_input() -> None:
    block = MCCRM(8)
    assert block.project.conv.weight.shape == (8, 16, 1, 1)


@pytest.mark.parametrize("ratio", [1, 2, 4])
def test_attention_has_one_key_for_each_square_of_positions(ratio: int) -> None:
    attention = SpatialReductionAttention(8, 2, ratio)
    seen: list[torch.Size] = []
    attention.key_value.register_forward_hook(lambda _m, args, _out: seen.append(args[0].shape))
    tokens = torch.randn(3, 8 * 12, 8)
    assert attention(tokens, 8, 12).shape == tokens.shape
    assert seen == [torch.Size((3 * 8 * 12 // ratio**2, 8))]


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
    assert [tuple(f.shape) for f in fused] == [(1, 4, 8, 8), (1, 8, 4, 4)]
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
