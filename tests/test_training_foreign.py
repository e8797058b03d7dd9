"""The choice of an epoch by films as they are and in foreign surroundings and style."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resformer.data.dataset import FilmDataset
from resformer.evaluation.answers import predict_lungs
from resformer.evaluation.controls import CONTROLS, FOREIGN, change_films, choose_donors
from resformer.model import IdentityMappingResFormer, ResFormerConfig
from resformer.training import train as epochs
from resformer.training.films import Workspace
from resformer.training.learner import make_foreign
from resformer.training.train import train
from resformer.transforms import InputSpec
from tests.lung_films import write_masked_films
from tests.training_setup import LUNG_TRAINING, split_by_number


@pytest.fixture(scope="module")
def masked_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("masked")
    write_masked_films(root, masked=3, darker=0.15)
    return root


def test_foreign_films_have_their_say_in_the_choice_of_the_epoch(
    masked_folder: Path,
    tiny_config: ResFormerConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at_home, abroad = (0.5, 0.8, 0.9), (0.5, 0.8, 0.6)
    figures = iter([figure for both in zip(at_home, abroad, strict=True) for figure in both])
    seen: list[bytes] = []

    def validated(_: Any, films: FilmDataset, __: Any) -> dict[str, float]:
        seen.append(np.asarray(films.films).tobytes())
        return dict.fromkeys(
            ("validation_loss", "validation_accuracy", "validation_macro_f1"), next(figures)
        )

    monkeypatch.setattr(epochs, "validate", validated)
    config = replace(LUNG_TRAINING, epochs=3)
    training = train(
        *(masked_folder, split_by_number(masked_folder), config, tmp_path),
        model_config=tiny_config,
        trial=True,
        progress=False,
    ).training
    assert training["best_epoch"] == 2
    assert [entry["validation_macro_f1"] for entry in training["history"]] == [*at_home]
    assert [entry["foreign_macro_f1"] for entry in training["history"]] == [*abroad]
    assert len(set(seen[::2])) == len(set(seen[1::2])) == 1
    assert seen[0] != seen[1]


def test_foreign_films_are_those_of_the_control(
    masked_folder: Path, tiny_config: ResFormerConfig, tmp_path: Path
) -> None:
    workspace = Workspace(
        masked_folder, split_by_number(masked_folder), tmp_path, InputSpec(size=64), True
    )
    films = workspace.evaluation_films("validation")
    network = IdentityMappingResFormer(replace(tiny_config, lung_head=True)).eval()
    foreign = make_foreign(films, network, seed=3)
    np.testing.assert_array_equal(foreign.labels, films.labels)
    donors = choose_donors(films.labels, 3)
    assert (films.labels[donors] != films.labels).all()
    outlines = predict_lungs(network, films.films, films.spec)
    expected = [*change_films(CONTROLS[FOREIGN], films.films, outlines, donors)]
    np.testing.assert_array_equal(foreign.films, expected)
