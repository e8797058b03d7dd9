"""Abstention: distances, thresholds, its place in the checkpoint, and wrong contents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from resformer.training.films import Workspace

from resformer.abstention import Abstention, AbstentionConfig, AbstentionError, Doubt
from resformer.checkpoint import (
    Checkpoint,
    CheckpointError,
    load_checkpoint,
    read_content,
    save_atomically,
    save_checkpoint,
)
from resformer.export import add_graph
from resformer.model import IdentityMappingResFormer, ResFormerConfig
from resformer.predict import Predictor
from resformer.training.finish import add_abstention
from resformer.transforms import InputSpec, to_input
from tests.conftest import CLASS_NAMES
from tests.phantom import draw_chest_phantom
from tests.training_setup import split_by_number

CPU = torch.device("cpu")
# Two classes, at 0 and at 10 along the first of two directions; the third feature is left out.
KNOWN = Abstention(
    mean=torch.tensor([1.0, 0.0, 0.0]),
    projection=torch.tensor([[1.0, 0.0], [0.0, 0.5], [0.0, 0.0]]),
    class_means=torch.tensor([[0.0, 0.0], [10.0, 0.0]]),
    least_confidence=0.6,
    greatest_distance=5.0,
)


def _for_network(width: int, least_confidence: float = 0.0, greatest: float = 1e6) -> Abstention:
    """One that measures the distance from a corner of the first feature."""
    return Abstention(
        *(torch.zeros(width), torch.eye(width, 1), torch.arange(4.0).unsqueeze(1)),
        *(least_confidence, greatest),
    )


@pytest.fixture
def checkpoint(tiny_checkpoint: Path) -> Checkpoint:
    return load_checkpoint(tiny_checkpoint)


def test_the_distance_is_that_to_the_nearest_class_in_the_whitened_space() -> None:
    features = torch.tensor([[1.0, 0.0, 99.0], [4.0, 8.0, 0.0], [8.0, 0.0, 0.0], [1.0, -24.0, 0.0]])
    torch.testing.assert_close(KNOWN.distance(features), torch.tensor([0.0, 5.0, 3.0, 12.0]))


def test_a_film_is_abstained_on_for_its_confidence_or_its_distance() -> None:
    features = torch.tensor([[1.0, 0.0, 0.0], [4.0, 8.0, 0.0], [4.0, 8.1, 0.0], [1.0, 0.0, 0.0]])
    confidence = torch.tensor([0.6, 0.9, 0.9, 0.59], dtype=torch.float64)
    doubts = KNOWN.judge(confidence, features)
    assert [doubt.abstained for doubt in doubts] == [False, False, True, True]
    assert doubts[1] == Doubt(abstained=False, distance=5.0)


def test_features_that_are_no_numbers_are_abstained_on() -> None:
    (doubt,) = KNOWN.judge(torch.tensor([1.0]), torch.full((1, 3), torch.nan))
    assert doubt.abstained


def test_an_abstention_survives_the_checkpoint(checkpoint: Checkpoint, tmp_path: Path) -> None:
    width = checkpoint.model_config.pooled_width
    abstention = _for_network(width, least_confidence=0.5, greatest=2.5)
    save_checkpoint(replace(checkpoint, abstention=abstention), tmp_path / "model.pth")
    found = load_checkpoint(tmp_path / "model.pth").abstention
    assert found is not None
    assert found.thresholds() == {"least_confidence": 0.5, "greatest_distance": 2.5}
    for name in ("mean", "projection", "class_means"):
        torch.testing.assert_close(getattr(found, name), getattr(abstention, name), rtol=0, atol=0)


def test_a_checkpoint_of_before_never_abstains(tiny_checkpoint: Path, tmp_path: Path) -> None:
    content = read_content(tiny_checkpoint)
    content.pop("abstention", None)
    save_atomically(content, tmp_path / "old.pth")
    old = load_checkpoint(tmp_path / "old.pth")
    assert old.abstention is None
    (prediction,) = Predictor(old, "cpu").predict([draw_chest_phantom(64)])
    assert (prediction.abstained, prediction.distance) == (False, None)


def test_the_predictor_abstains_by_the_features_that_the_class_is_read_off(
    checkpoint: Checkpoint,
) -> None:
    film = draw_chest_phantom(90, seed=4)
    model = checkpoint.build_model()
    with torch.inference_mode():
        pooled = model.pool(model.forward_features(to_input(film, checkpoint.input_spec)[None]))
    abstention = _for_network(checkpoint.model_config.pooled_width)
    expected = abstention.distance(pooled).item()
    assert expected > 0
    for greatest, abstained in ((expected + 0.01, False), (expected - 0.01, True)):
        strict = replace(abstention, greatest_distance=greatest)
        predictor = Predictor(replace(checkpoint, abstention=strict), "cpu")
        (prediction,) = predictor.predict([film])
        assert prediction.abstained is abstained
        assert prediction.distance == pytest.approx(expected, abs=1e-4)


def test_both_backends_abstain_alike(tiny_config: ResFormerConfig) -> None:
    config = replace(tiny_config, lung_head=True)
    torch.manual_seed(0)
    weights = IdentityMappingResFormer(config).state_dict()
    abstention = _for_network(config.pooled_width, greatest=0.5)
    checkpoint = Checkpoint(config, CLASS_NAMES, InputSpec(size=64), weights, abstention=abstention)
    exported = add_graph(checkpoint)
    films = [draw_chest_phantom(size, seed=size) for size in (64, 96)]
    fast, plain = (
        Predictor(exported, "cpu", name).predict(films) for name in ("onnxruntime", "torch")
    )
    for ours, reference in zip(fast, plain, strict=True):
        assert ours.abstained == reference.abstained
        assert ours.distance == pytest.approx(reference.distance, abs=1e-4)


def test_an_abstention_is_fitted_on_the_films_of_a_data_set(
    checkpoint: Checkpoint, image_folder: Path, tmp_path: Path
) -> None:
    workspace = Workspace(image_folder, split_by_number(image_folder), tmp_path, InputSpec(size=64))
    fitted = add_abstention(checkpoint, workspace, CPU, AbstentionConfig(share=0.25))
    validation = list(workspace.evaluation_films("validation").films)
    assert fitted.abstention is not None
    assert fitted.abstention.class_means.shape[0] == 4
    predictions = Predictor(fitted, "cpu", "torch").predict(validation)
    assert 1 <= sum(prediction.abstained for prediction in predictions) <= 2


def _change(**values: object) -> Callable[[dict[str, Any]], None]:
    return lambda content: content.update(values)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda content: content.pop("mean"), "the abstention lacks 'mean'"),
        (_change(mean=3), "cannot be read"),
        (_change(mean=torch.zeros(2)), "does not fit its projection"),
        (_change(class_means=torch.zeros(2, 7)), "do not fit its projection"),
        (_change(projection=torch.full((3, 2), torch.nan)), "projection holds what is no finite"),
        (_change(least_confidence=1.1), "least confidence must be from 0 to 1"),
        (_change(least_confidence="much"), "cannot be read"),
        (_change(greatest_distance=-1.0), "greatest distance must be 0 or more"),
        (_change(greatest_distance=float("inf")), "greatest distance must be 0 or more"),
    ],
)
def test_wrong_contents_are_named(spoil: Callable[[dict[str, Any]], None], message: str) -> None:
    content = KNOWN.to_dict()
    spoil(content)
    with pytest.raises(AbstentionError, match=message):
        Abstention.from_dict(content)


@pytest.mark.parametrize("abstention", [KNOWN, _for_network(81)])
def test_the_abstention_of_another_network_is_refused(
    checkpoint: Checkpoint, abstention: Abstention
) -> None:
    with pytest.raises(CheckpointError, match=r"the network has 4 and 80: run .* fit-gate"):
        replace(checkpoint, abstention=abstention)
