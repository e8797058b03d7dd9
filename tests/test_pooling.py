"""Statistics pooling: exact values, gradients, the exported graph, and weights from before it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from resformer.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from resformer.inference import Predictor
from resformer.layers import deviation_inside
from resformer.layers.pooling import OUTSIDE_WEIGHT
from resformer.model import IdentityMappingResFormer, ResFormerConfig
from resformer.runtime.export import add_graph
from resformer.training.config import TrainingConfig
from resformer.training.initial import fit_initial
from resformer.training.losses import FilmBatch, TrainingLoss
from resformer.transforms import InputSpec
from tests.abstaining import write_abstaining_checkpoint
from tests.conftest import CLASS_NAMES
from tests.lung_films import fix_regions
from tests.phantom import draw_chest_phantom
from tests.training_setup import TINY_TRAINING, train_a_trial


@pytest.fixture(scope="module")
def plain_config(tiny_config: ResFormerConfig) -> ResFormerConfig:
    return replace(tiny_config, lung_head=True, infection_head=True, dropout=0.0)


@pytest.fixture(scope="module")
def config(plain_config: ResFormerConfig) -> ResFormerConfig:
    return replace(plain_config, statistics_pooling=True)


def test_the_deviation_is_taken_inside_the_mask() -> None:
    inside = torch.zeros(1, 1, 2, 4)
    inside[..., :2] = 1
    x = torch.tensor([[[[1.0, 3.0, 50.0, -50.0], [1.0, 3.0, 50.0, -50.0]]]])
    weights = inside + OUTSIDE_WEIGHT
    mean = (weights * x).sum() / weights.sum()
    variance = (weights * (x - mean) ** 2).sum() / weights.sum()
    expected = (variance + 1e-4).sqrt().reshape(1, 1)
    torch.testing.assert_close(deviation_inside(x, inside), expected)
    # Without what lies outside it would be 1, the half of what the two columns differ by.
    assert 1 < expected.item() < 2
    whole = deviation_inside(x, torch.zeros(1, 1, 2, 4))
    torch.testing.assert_close(whole.square() - 1e-4, x.var(correction=0).reshape(1, 1))


def test_a_coarse_grid_weighs_by_the_share_inside() -> None:
    inside = torch.zeros(1, 1, 4, 4)
    inside[..., :2, :2] = 1
    x = torch.tensor([[[[8.0, 1.0], [2.0, 5.0]]]])
    share = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    torch.testing.assert_close(deviation_inside(x, inside), deviation_inside(x, share))


def test_even_features_have_a_gradient() -> None:
    x = torch.ones(1, 2, 4, 4, requires_grad=True)
    deviation = deviation_inside(x, torch.ones(1, 1, 4, 4))
    torch.testing.assert_close(deviation, torch.full((1, 2), 0.01))
    torch.autograd.backward(deviation.sum())
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


def test_the_deviations_come_after_the_means(
    config: ResFormerConfig, plain_config: ResFormerConfig
) -> None:
    model = IdentityMappingResFormer(config).eval()
    plain = IdentityMappingResFormer(plain_config).eval()
    regions = torch.zeros(1, 2, 16, 16)
    regions[..., :8] = 1
    for network in (model, plain):
        fix_regions(network, regions)
    features = [torch.randn(2, c, 16 >> i, 16 >> i) for i, c in enumerate(config.channels)]
    pooled = model.pool(features)
    assert pooled.shape == (2, config.pooled_width) == (2, 3 * sum(config.channels))
    torch.testing.assert_close(pooled[:, : plain_config.pooled_width], plain.pool(features))
    expected = torch.cat([deviation_inside(f, regions[:, :1]) for f in features], dim=1)
    torch.testing.assert_close(pooled[:, plain_config.pooled_width :], expected)


def test_without_a_lung_head_the_whole_film_is_pooled(tiny_config: ResFormerConfig) -> None:
    config = replace(tiny_config, statistics_pooling=True)
    model = IdentityMappingResFormer(config).eval()
    features = [torch.randn(2, c, 16 >> i, 16 >> i) for i, c in enumerate(config.channels)]
    deviations = model.pool(features)[:, sum(config.channels) :]
    expected = torch.cat([f.flatten(2).std(2, correction=0) for f in features], dim=1)
    torch.testing.assert_close(deviations, expected, atol=1e-3, rtol=1e-3)


def test_a_gradient_reaches_every_parameter(config: ResFormerConfig) -> None:
    torch.manual_seed(0)
    model = IdentityMappingResFormer(config)
    regions = torch.zeros(3, 2, 16, 16)
    regions[:, :, 4:12, 4:12] = 1
    batch = FilmBatch(
        torch.randn(3, 1, 64, 64), torch.arange(3), regions, torch.ones(3, 2), torch.ones(3)
    )
    outputs = model(batch.image, return_lungs=True)
    torch.autograd.backward(TrainingLoss(torch.ones(4), lung_loss=0.5)(outputs, batch))
    dead = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert dead == []


def test_reduced_precision_keeps_the_deviations(config: ResFormerConfig) -> None:
    torch.manual_seed(0)
    model = IdentityMappingResFormer(config).eval()
    features = [100 + torch.randn(2, c, 16 >> i, 16 >> i) for i, c in enumerate(config.channels)]
    exact = model.pool(features)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = model.pool(features)
    width = sum(config.channels)
    torch.testing.assert_close(rounded[:, -width:], exact[:, -width:], atol=0.02, rtol=0.02)


def test_the_exported_graph_gives_the_same(config: ResFormerConfig) -> None:
    torch.manual_seed(0)
    weights = IdentityMappingResFormer(config).state_dict()
    exported = add_graph(Checkpoint(config, CLASS_NAMES, InputSpec(size=64), weights))
    films = [draw_chest_phantom(size, seed=size) for size in (64, 96)]
    fast, plain = (Predictor(exported, "cpu", name) for name in ("onnxruntime", "torch"))
    for ours, reference in zip(fast.predict(films), plain.predict(films), strict=True):
        assert ours.probabilities == pytest.approx(reference.probabilities, abs=1e-5)


def test_weights_from_before_say_what_they_said(
    config: ResFormerConfig, plain_config: ResFormerConfig, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    weights = IdentityMappingResFormer(plain_config).state_dict()
    path = tmp_path / "model.pth"
    save_checkpoint(Checkpoint(plain_config, CLASS_NAMES, InputSpec(64), weights), path)
    before = load_checkpoint(write_abstaining_checkpoint(path, path))
    widened = fit_initial(before, config, CLASS_NAMES)
    assert before.abstention
    assert not widened.abstention
    save_checkpoint(widened, path)
    x = torch.randn(2, 1, 64, 64)
    torch.testing.assert_close(load_checkpoint(path).build_model()(x), before.build_model()(x))
    assert fit_initial(before, plain_config, CLASS_NAMES) is before
    with pytest.raises(ValueError, match="give the options that it was trained with"):
        fit_initial(widened, plain_config, CLASS_NAMES)


def test_a_training_may_add_it_to_initial_weights(
    image_folder: Path, tiny_config: ResFormerConfig, tmp_path: Path
) -> None:
    first = train_a_trial(image_folder, tmp_path / "first", tiny_config)
    config = replace(TINY_TRAINING, epochs=1, statistics_pooling=True)
    further = train_a_trial(
        image_folder, tmp_path / "further", tiny_config, initial=first, config=config
    )
    assert further.model_config.statistics_pooling
    assert further.training["initial"] == first.training
    added = further.state_dict["fc.weight"][:, sum(tiny_config.channels) :]
    assert added.abs().min() > 0
    assert not TrainingConfig().statistics_pooling
