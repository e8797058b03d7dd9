"""The lung head: exact pooling, gradients, its loss, and checkpoints from before there was one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from resformer.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from resformer.evaluation.answers import dice_of_lungs, predict_lungs
from resformer.layers import average_inside
from resformer.layers.lung_head import OUTSIDE_WEIGHT
from resformer.model import IdentityMappingResFormer, ResFormerConfig
from resformer.training.losses import FilmBatch, TrainingLoss, region_loss
from resformer.transforms import InputSpec
from tests.conftest import CLASS_NAMES
from tests.lung_films import fix_regions


@pytest.fixture(scope="module")
def lung_config(tiny_config: ResFormerConfig) -> ResFormerConfig:
    return replace(tiny_config, lung_head=True, dropout=0.0)


def _batch(known: list[float]) -> FilmBatch:
    count = len(known)
    lungs = torch.zeros(count, 1, 16, 16)
    lungs[:, :, 4:12, 4:12] = 1
    images, labels = torch.randn(count, 1, 64, 64), torch.arange(count) % 4
    return FilmBatch(images, labels, lungs, torch.tensor(known)[:, None], torch.ones(count))


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


def test_the_network_pools_inside_the_lungs_that_it_predicts(
    lung_config: ResFormerConfig,
) -> None:
    model = IdentityMappingResFormer(lung_config).eval()
    regions = torch.zeros(1, 1, 16, 16)
    regions[..., :8] = 1
    fix_regions(model, regions)
    features = [torch.randn(1, c, 16 >> i, 16 >> i) for i, c in enumerate(lung_config.channels)]
    left = torch.cat([f[..., : f.shape[-1] // 2].mean((2, 3)) for f in features], 1)
    torch.testing.assert_close(model.pool(features), left, atol=0.01, rtol=0.01)


def test_lungs_come_only_when_asked_for(lung_config: ResFormerConfig) -> None:
    model = IdentityMappingResFormer(lung_config).eval()
    x = torch.randn(2, 1, 64, 96)
    logits, lungs = model(x, return_lungs=True)
    assert lungs.shape == (2, 1, 16, 24)
    torch.testing.assert_close(model(x), logits)
    without = IdentityMappingResFormer(replace(lung_config, lung_head=False))
    with pytest.raises(ValueError, match="no lung head: train one with --lung-head"):
        without(x, return_lungs=True)


def test_the_lung_head_is_light() -> None:
    with_head = IdentityMappingResFormer(ResFormerConfig(lung_head=True))
    without = IdentityMappingResFormer()
    count = [sum(p.numel() for p in m.parameters()) for m in (with_head, without)]
    assert 0 < count[0] - count[1] < 10_000


def test_a_gradient_reaches_every_parameter_and_none_of_the_classes_the_head(
    lung_config: ResFormerConfig,
) -> None:
    torch.manual_seed(0)
    model = IdentityMappingResFormer(lung_config)
    batch = _batch([1, 0, 1, 1])
    loss = TrainingLoss(torch.ones(4), lung_loss=0.5)
    torch.autograd.backward(loss(model(batch.image, return_lungs=True), batch))
    dead = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert dead == []

    model.zero_grad()
    torch.autograd.backward(model(batch.image).sum())
    assert model.lung_head is not None
    assert all(p.grad is None for p in model.lung_head.parameters())


def test_films_without_a_mask_have_no_part_in_the_loss_of_the_lungs() -> None:
    torch.manual_seed(0)
    batch = _batch([1, 0, 1])
    logits = torch.randn(3, 1, 16, 16, requires_grad=True)
    loss = region_loss(logits, batch.regions, batch.known)
    torch.autograd.backward(loss)
    assert logits.grad is not None
    assert logits.grad[1].abs().max() == 0
    assert logits.grad[[0, 2]].abs().min() > 0
    known = region_loss(logits[[0, 2]], batch.regions[[0, 2]], torch.ones(2, 1))
    torch.testing.assert_close(loss, known)
    assert region_loss(logits, batch.regions, torch.zeros(3, 1)) == 0


def test_the_loss_of_the_lungs_has_its_exact_value() -> None:
    lungs = torch.zeros(1, 1, 2, 2)
    lungs[..., 0, :] = 1
    # Probability 1/2 everywhere: entropy log 2, overlap 1, both sums 2, smoothing 1.
    loss = region_loss(torch.zeros(1, 1, 2, 2), lungs, torch.ones(1, 1))
    assert loss.item() == pytest.approx(np.log(2) + 1 - (2 * 1 + 1) / (2 + 2 + 1))


def test_the_loss_of_the_classes_is_that_of_torch_when_all_films_weigh_the_same() -> None:
    batch, weights = _batch([0, 0, 0, 0, 0]), torch.tensor([1.0, 2.0, 0.5, 0.7])
    logits = torch.randn(5, 4)
    expected = nn.CrossEntropyLoss(weights, label_smoothing=0.05)(logits, batch.label)
    loss = TrainingLoss(weights, label_smoothing=0.05)
    torch.testing.assert_close(loss(logits, batch), expected)
    doubled = batch._replace(weight=torch.tensor([2.0, 1, 1, 1, 1]))
    twice = nn.CrossEntropyLoss(weights, label_smoothing=0.05)(
        logits[[0, 0, 1, 2, 3, 4]], batch.label[[0, 0, 1, 2, 3, 4]]
    )
    torch.testing.assert_close(loss(logits, doubled), twice)


def test_the_dice_of_predicted_lungs() -> None:
    masks = np.zeros((2, 32, 32), dtype=np.uint8)
    masks[:, :16] = 255
    lungs = np.zeros((2, 8, 8), dtype=np.float32)
    lungs[0, :4], lungs[1, 2:6] = 1, 1
    assert dice_of_lungs(lungs, masks) == pytest.approx((1 + 0.5) / 2)


def test_predicted_lungs_do_not_depend_on_which_way_round_a_film_is(
    lung_config: ResFormerConfig,
) -> None:
    model = IdentityMappingResFormer(lung_config).eval()
    film = np.random.default_rng(0).integers(0, 256, (1, 80, 80), dtype=np.uint8)
    spec = InputSpec(size=64)
    lungs = predict_lungs(model, film, spec)
    assert lungs.shape == (1, 16, 16)
    mirrored = predict_lungs(model, film[:, :, ::-1], spec)
    np.testing.assert_allclose(mirrored[:, :, ::-1], lungs, atol=1e-4)


def test_a_configuration_from_before_the_lung_head_builds_the_network_of_then(
    tiny_config: ResFormerConfig, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = IdentityMappingResFormer(tiny_config).eval()
    path = tmp_path / "model.pth"
    save_checkpoint(Checkpoint(tiny_config, CLASS_NAMES, InputSpec(64), model.state_dict()), path)
    content = torch.load(path, weights_only=True)
    del content["model_config"]["lung_head"], content["sha256"]
    torch.save(content, path)
    x = torch.randn(2, 1, 64, 64)
    restored = load_checkpoint(path)
    assert not restored.model_config.lung_head
    torch.testing.assert_close(restored.build_model()(x), model(x), rtol=0, atol=0)


def test_the_head_must_be_in_the_weights_if_the_configuration_has_it(
    lung_config: ResFormerConfig, tmp_path: Path
) -> None:
    model = IdentityMappingResFormer(lung_config)
    path = tmp_path / "model.pth"
    save_checkpoint(Checkpoint(lung_config, CLASS_NAMES, InputSpec(64), model.state_dict()), path)
    assert load_checkpoint(path).model_config.lung_head
    content = torch.load(path, weights_only=True)
    del content["state_dict"]["lung_head.predict.bias"]
    torch.save(content, path)
    with pytest.raises(ValueError, match=r"lung_head\.predict\.bias"):
        load_checkpoint(path)
