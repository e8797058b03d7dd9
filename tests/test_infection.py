"""The infection head: its regions and loss, what the network reads there, and its training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from resformer.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from resformer.layers import average_inside
from resformer.model import HEALTHY_WEIGHT, IdentityMappingResFormer, ResFormerConfig
from resformer.training.config import TrainingConfig
from resformer.training.films import Workspace
from resformer.training.losses import FilmBatch, TrainingLoss, region_loss
from resformer.training.train import train
from resformer.transforms import InputSpec
from tests.conftest import CLASS_NAMES
from tests.lung_films import draw_lungs, fix_regions, write_masked_films
from tests.training_setup import TINY_TRAINING, split_by_number


@pytest.fixture(scope="module")
def infection_config(tiny_config: ResFormerConfig) -> ResFormerConfig:
    return replace(tiny_config, lung_head=True, infection_head=True, dropout=0.0)


def test_an_infection_head_needs_a_lung_head(tiny_config: ResFormerConfig) -> None:
    with pytest.raises(ValueError, match="infection_head needs lung_head"):
        replace(tiny_config, infection_head=True)
    with pytest.raises(ValueError, match="infection_head needs lung_head"):
        TrainingConfig(infection_head=True)


def test_the_class_is_read_off_the_lungs_and_off_what_is_infected_in_them(
    infection_config: ResFormerConfig,
) -> None:
    model = IdentityMappingResFormer(infection_config).eval()
    regions = torch.zeros(1, 2, 16, 16)
    regions[:, 0, :, :8] = 1
    regions[:, 1, :8] = 1
    fix_regions(model, regions)
    features = [
        torch.randn(1, c, 16 >> i, 16 >> i) for i, c in enumerate(infection_config.channels)
    ]
    lungs = torch.zeros(1, 1, 16, 16)
    lungs[..., :8] = 1
    infected = HEALTHY_WEIGHT * lungs
    infected[:, :, :8, :8] = 1 + HEALTHY_WEIGHT
    expected = [
        average_inside(f, region).flatten(1) for region in (lungs, infected) for f in features
    ]
    torch.testing.assert_close(model.pool(features), torch.cat(expected, dim=1))


def test_a_gradient_reaches_every_parameter(infection_config: ResFormerConfig) -> None:
    torch.manual_seed(0)
    model = IdentityMappingResFormer(infection_config)
    regions = torch.zeros(3, 2, 16, 16)
    regions[:, :, 4:12, 4:12] = 1
    batch = FilmBatch(
        torch.randn(3, 1, 64, 64), torch.arange(3), regions, torch.ones(3, 2), torch.ones(3)
    )
    logits, lungs = model(batch.image, return_lungs=True)
    assert lungs.shape == (3, 2, 16, 16)
    torch.autograd.backward(TrainingLoss(torch.ones(4), lung_loss=0.5)((logits, lungs), batch))
    dead = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert dead == []


def test_each_region_counts_where_it_is_known() -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, 2, 8, 8, requires_grad=True)
    regions = torch.rand(3, 2, 8, 8)
    known = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    loss = region_loss(logits, regions, known)
    torch.autograd.backward(loss)
    assert logits.grad is not None
    reached = logits.grad.abs().sum((2, 3)) > 0
    assert torch.equal(reached, known > 0)
    alone = [
        region_loss(logits[:2, :1], regions[:2, :1], torch.ones(2, 1)),
        region_loss(logits[1:2, 1:], regions[1:2, 1:], torch.ones(1, 1)),
    ]
    torch.testing.assert_close(loss, alone[0] + alone[1])


def test_a_healthy_film_has_cross_entropy_alone() -> None:
    loss = region_loss(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4), torch.ones(1, 1))
    assert loss.item() == pytest.approx(np.log(2))


def test_its_checkpoint_builds_the_same_network(
    infection_config: ResFormerConfig, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = IdentityMappingResFormer(infection_config).eval()
    path = tmp_path / "model.pth"
    save_checkpoint(
        Checkpoint(infection_config, CLASS_NAMES, InputSpec(64), model.state_dict()), path
    )
    x = torch.randn(2, 1, 64, 64)
    torch.testing.assert_close(load_checkpoint(path).build_model()(x), model(x), rtol=0, atol=0)


@pytest.fixture(scope="module")
def infected_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn films with their lungs; half of those of the first class have one infected lung."""
    root = tmp_path_factory.mktemp("infected")
    write_masked_films(root, masked=len(CLASS_NAMES))
    right = np.arange(96) >= 48
    infection = root / CLASS_NAMES[0] / "infection masks"
    infection.mkdir()
    for number in range(6):
        Image.fromarray(draw_lungs(96) & right).save(infection / f"{CLASS_NAMES[0]}-{number}.png")
    return root


def test_infection_is_known_where_there_is_a_mask_and_in_healthy_films(
    infected_folder: Path, tmp_path: Path
) -> None:
    manifest = split_by_number(infected_folder)
    workspace = Workspace(infected_folder, manifest, tmp_path, InputSpec(size=64))
    rows = manifest.subset("train")
    masked = [row.class_name == CLASS_NAMES[0] and int(row.path[-5]) < 6 for row in rows]
    healthy = [row.class_name == CLASS_NAMES[1] for row in rows]
    alone = workspace.infection("train", "")
    assert alone.known.sum() == sum(bool(m) for m in alone.masks.max(axis=(1, 2)))
    known = workspace.infection("train", CLASS_NAMES[1])
    assert known.known[np.array(healthy)].all()
    assert np.asarray(known.masks)[np.array(healthy)].max() == 0
    assert known.known.sum() == alone.known.sum() + sum(healthy)
    assert 0 < alone.known.sum() <= sum(masked) + 1
    with pytest.raises(ValueError, match="healthy_class 'Health' is no class: choose one of"):
        workspace.infection("train", "Health")


def test_a_training_learns_both_regions(
    infected_folder: Path, tiny_config: ResFormerConfig, tmp_path: Path
) -> None:
    config = replace(
        TINY_TRAINING,
        epochs=1,
        lung_head=True,
        infection_head=True,
        healthy_class=CLASS_NAMES[1],
        lung_epochs=1,
        background_replacement=0.5,
        style_exchange=0.5,
    )
    checkpoint = train(
        infected_folder,
        split_by_number(infected_folder),
        config,
        tmp_path,
        model_config=tiny_config,
        trial=True,
        progress=False,
    )
    assert checkpoint.model_config.infection_head
    assert checkpoint.state_dict["lung_head.predict.weight"].shape[0] == 2
    assert checkpoint.state_dict["fc.weight"].shape[1] == 2 * sum(tiny_config.channels)
