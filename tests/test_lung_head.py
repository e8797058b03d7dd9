"""The lung head, with and without infection: what the class is read off, and what learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from resformer.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from resformer.layers import average_inside
from resformer.layers.lung_head import OUTSIDE_WEIGHT
from resformer.model import HEALTHY_WEIGHT, IdentityMappingResFormer, ResFormerConfig
from resformer.training.losses import FilmBatch, TrainingLoss
from resformer.transforms import InputSpec
from tests.data_sets import CLASS_NAMES


@pytest.fixture(scope="module", params=[False, True], ids=["lungs", "infection"])
def network(request: pytest.FixtureRequest, tiny_config: ResFormerConfig) -> ResFormerConfig:
    return replace(tiny_config, lung_head=True, infection_head=request.param, dropout=0.0)


def test_features_are_averaged_inside_the_mask() -> None:
    inside = torch.zeros(1, 1, 4, 4)
    inside[..., :2, :2] = 1
    fine = torch.arange(16.0).reshape(1, 1, 4, 4)
    weight = inside + OUTSIDE_WEIGHT
    expected = (0 + 1 + 4 + 5 + OUTSIDE_WEIGHT * fine.sum()) / weight.sum()
    torch.testing.assert_close(average_inside(fine, inside), expected.reshape(1, 1, 1))
    coarse = torch.tensor([[[[8.0, 1.0], [2.0, 5.0]]]])
    share = (8 + OUTSIDE_WEIGHT * 16) / (1 + OUTSIDE_WEIGHT * 4)
    torch.testing.assert_close(average_inside(coarse, inside), torch.tensor([[[share]]]))


def test_a_picture_without_lungs_is_pooled_as_a_whole() -> None:
    x = torch.randn(2, 3, 4, 4)
    whole = x.mean((2, 3))[:, None].expand(-1, 2, -1)
    torch.testing.assert_close(average_inside(x, torch.zeros(2, 2, 8, 8)), whole)


def fix_regions(model: IdentityMappingResFormer, regions: Tensor) -> None:
    """Let a network find the same regions ``(1, R, h, w)`` of ones and zeros in every film."""

    class Found(nn.Module):
        def forward(self, features: list[Tensor]) -> Tensor:
            return torch.where(regions > 0, 30.0, -30.0)

    model.add_module("lung_head", Found())


def test_the_class_is_read_off_the_lungs_and_off_what_is_infected_in_them(
    network: ResFormerConfig,
) -> None:
    model = IdentityMappingResFormer(network).eval()
    regions = torch.zeros(1, network.regions, 16, 16)
    regions[:, 0, :, :8] = 1
    regions[:, 1:, :8] = 1
    fix_regions(model, regions)
    features = [torch.randn(1, c, 16 >> i, 16 >> i) for i, c in enumerate(network.channels)]
    lungs = torch.zeros(1, 1, 16, 16)
    lungs[..., :8] = 1
    infected = HEALTHY_WEIGHT * lungs
    infected[:, :, :8, :8] = 1 + HEALTHY_WEIGHT
    expected = [
        average_inside(f, region).flatten(1)
        for region in (lungs, infected)[: network.regions]
        for f in features
    ]
    torch.testing.assert_close(model.pool(features), torch.cat(expected, dim=1))


def test_lungs_come_only_when_asked_for(network: ResFormerConfig) -> None:
    model = IdentityMappingResFormer(network).eval()
    x = torch.randn(2, 1, 64, 96)
    logits, lungs = model(x, return_lungs=True)
    assert lungs.shape == (2, network.regions, 16, 24)
    torch.testing.assert_close(model(x), logits)
    without = IdentityMappingResFormer(replace(network, lung_head=False, infection_head=False))
    with pytest.raises(ValueError, match="no lung head: train one with --lung-head"):
        without(x, return_lungs=True)


def test_the_lung_head_is_light() -> None:
    with_head = IdentityMappingResFormer(ResFormerConfig(lung_head=True))
    without = IdentityMappingResFormer()
    count = [sum(p.numel() for p in m.parameters()) for m in (with_head, without)]
    assert 0 < count[0] - count[1] < 10_000


def test_a_gradient_reaches_every_parameter_and_none_of_the_classes_the_head(
    network: ResFormerConfig,
) -> None:
    torch.manual_seed(0)
    model = IdentityMappingResFormer(network)
    regions = torch.zeros(4, network.regions, 16, 16)
    regions[:, :, 4:12, 4:12] = 1
    known = torch.ones(4, network.regions)
    images, labels = torch.randn(4, 1, 64, 64), torch.arange(4)
    batch = FilmBatch(images, labels, regions, known, torch.zeros(4, 1))
    loss = TrainingLoss(lung_loss=0.5)
    torch.autograd.backward(loss(model(batch.image, return_lungs=True), batch))
    dead = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert dead == []

    model.zero_grad()
    torch.autograd.backward(model(batch.image).sum())
    assert model.lung_head is not None
    assert all(p.grad is None for p in model.lung_head.parameters())


def test_its_checkpoint_builds_the_same_network(network: ResFormerConfig, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = IdentityMappingResFormer(network).eval()
    path = tmp_path / "model.pth"
    save_checkpoint(Checkpoint(network, CLASS_NAMES, InputSpec(64), model.state_dict()), path)
    x = torch.randn(2, 1, 64, 64)
    torch.testing.assert_close(load_checkpoint(path).build_model()(x), model(x), rtol=0, atol=0)
