"""Fixtures that several test modules share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from resformer.checkpoint import Checkpoint, save_checkpoint
from resformer.model import IdentityMappingResFormer, ResFormerConfig
from resformer.transforms import InputSpec
from tests.data_sets import CLASS_NAMES, write_masked_films


@pytest.fixture(scope="session")
def tiny_config() -> ResFormerConfig:
    """A network that is small enough to train in a test."""
    return ResFormerConfig(
        channels=(8, 16, 24, 32),
        depths=(1, 1, 1, 1),
        num_heads=(1, 2, 3, 4),
        fusion_dim=32,
        fusion_heads=2,
    )


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny_config: ResFormerConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint file with random weights."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("checkpoint") / "best_model.pth"
    weights = IdentityMappingResFormer(tiny_config).state_dict()
    save_checkpoint(Checkpoint(tiny_config, CLASS_NAMES, InputSpec(size=64), weights), path)
    return path


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of drawn films in the Kaggle layout: 12 a class, told apart by brightness."""
    root = tmp_path_factory.mktemp("films")
    write_masked_films(root, masked=0, darker=0.15)
    return root
