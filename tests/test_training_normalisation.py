"""Batch normalisation measured on unvaried films: exact statistics, and its place in a training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from resformer.checkpoint import Checkpoint
from resformer.data.dataset import FilmDataset
from resformer.model import IdentityMappingResFormer, ResFormerConfig
from resformer.training.finish import measure_normalisation
from resformer.training.state import read_initial
from resformer.training.train import STATE_NAME, train
from resformer.transforms import InputSpec
from tests.phantom import draw_chest_phantom
from tests.training_setup import TINY_TRAINING, split_by_number


@pytest.fixture
def films() -> FilmDataset:
    drawn = np.stack([draw_chest_phantom(64, seed=seed) for seed in range(12)])
    return FilmDataset(drawn, np.zeros(12, dtype=np.int64), InputSpec(size=64))


def test_the_statistics_are_those_of_the_films(films: FilmDataset) -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 3, bias=False), nn.BatchNorm2d(3)).eval()
    measure_normalisation(model, films, count=100)
    images = torch.stack([films[0, index].image for index in range(12)])
    convolved = model[0](images)
    norm = model[1]
    assert isinstance(norm, nn.BatchNorm2d)
    torch.testing.assert_close(norm.running_mean, convolved.mean((0, 2, 3)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(norm.running_var, convolved.var((0, 2, 3)), rtol=1e-4, atol=1e-4)
    assert (norm.momentum, norm.training) == (0.1, False)


def test_only_so_many_films_are_used_the_same_for_the_same_seed(films: FilmDataset) -> None:
    def measure(seed: int) -> torch.Tensor:
        model = nn.Sequential(nn.BatchNorm2d(1)).eval()
        measure_normalisation(model, films, count=3, seed=seed)
        mean = model[0].running_mean
        assert isinstance(mean, torch.Tensor)
        return mean

    assert measure(0) == measure(0)
    assert measure(0) != measure(1)


def test_a_network_that_still_learns_and_films_that_are_none_are_refused(
    films: FilmDataset,
) -> None:
    model = nn.Sequential(nn.BatchNorm2d(1))
    with pytest.raises(ValueError, match=r"the weights must be fixed first: call eval\(\)"):
        measure_normalisation(model.train(), films, count=3)
    with pytest.raises(ValueError, match="cannot measure statistics on 0 films"):
        measure_normalisation(model.eval(), films, count=0)


def test_a_training_ends_with_it_and_changes_nothing_else(
    image_folder: Path, tiny_config: ResFormerConfig, tmp_path: Path
) -> None:
    manifest = split_by_number(image_folder)

    def run(films: int, *, resume: bool) -> Checkpoint:
        config = replace(TINY_TRAINING, epochs=1, normalisation_films=films)
        return train(
            *(image_folder, manifest, config, tmp_path),
            model_config=tiny_config,
            resume=resume,
            trial=True,
            progress=False,
        )

    run(0, resume=False)
    average = read_initial(tmp_path / STATE_NAME).state_dict
    measured = run(20, resume=True).state_dict
    changed = {name for name in average if not torch.equal(average[name], measured[name])}
    model = IdentityMappingResFormer(tiny_config)
    layers = [name for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)]
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    assert changed <= {f"{layer}.{name}" for layer in layers for name in statistics}
    assert {f"{layer}.running_mean" for layer in layers} <= changed
