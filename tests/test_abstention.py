"""The abstention: distances, thresholds and their fit, its place in the checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from resformer.abstention import (
    Abstention,
    AbstentionConfig,
    AbstentionError,
    FilmFeatures,
    choose_thresholds,
    fit_abstention,
)
from resformer.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from resformer.cli import main
from resformer.data.manifest import write_manifest
from resformer.phantom import draw_chest_phantom
from resformer.predict import Predictor
from resformer.transforms import to_input
from tests.training_setup import split_by_number

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
    corners = torch.arange(4.0).unsqueeze(1)
    return Abstention(torch.zeros(width), torch.eye(width, 1), corners, least_confidence, greatest)


@pytest.fixture
def checkpoint(tiny_checkpoint: Path) -> Checkpoint:
    return load_checkpoint(tiny_checkpoint)


def test_the_distance_is_that_to_the_nearest_class_in_the_whitened_space() -> None:
    features = torch.tensor([[1.0, 0.0, 99.0], [4.0, 8.0, 0.0], [8.0, 0.0, 0.0], [1.0, -24.0, 0.0]])
    torch.testing.assert_close(KNOWN.distance(features), torch.tensor([0.0, 5.0, 3.0, 12.0]))


def test_a_film_is_undecided_by_its_confidence_and_unfamiliar_by_its_distance() -> None:
    films = ((0.6, 0.0), (0.9, 5.0), (0.9, 5.1), (0.59, 0.0), (0.3, 5.1))
    reasons = [KNOWN.find_reason(*film) for film in films]
    assert reasons == [None, None, "unfamiliar", "undecided", "unfamiliar"]


def test_what_is_no_number_is_abstained_on() -> None:
    distance = KNOWN.distance(torch.full((1, 3), torch.nan)).item()
    assert KNOWN.find_reason(1.0, distance) == "unfamiliar"


def test_an_abstention_survives_the_checkpoint(checkpoint: Checkpoint, tmp_path: Path) -> None:
    width = checkpoint.model_config.pooled_width
    abstention = _for_network(width, least_confidence=0.5, greatest=2.5)
    save_checkpoint(replace(checkpoint, abstention=abstention), tmp_path / "model.pth")
    found = load_checkpoint(tmp_path / "model.pth").abstention
    assert found is not None
    assert found.thresholds() == {"least_confidence": 0.5, "greatest_distance": 2.5}
    for name in ("mean", "projection", "class_means"):
        torch.testing.assert_close(getattr(found, name), getattr(abstention, name), rtol=0, atol=0)


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


def _change(**values: object) -> Callable[[dict[str, Any]], None]:
    return lambda content: content.update(values)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda content: content.pop("mean"), "the abstention lacks 'mean'"),
        (_change(mean=3), "cannot be read"),
        (_change(mean=torch.zeros(2)), "does not fit its projection"),
        (_change(class_means=torch.zeros(2, 7)), "do not fit its projection"),
        (_change(projection=torch.full((3, 2), torch.nan)), "projection holds a value that is not"),
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


@pytest.mark.parametrize(
    ("order", "least", "greatest"),
    [
        # The least sure are the furthest: the furthest is one of the 5 of 100 that are least sure.
        (lambda n: 99 - n, 0.045, 98.5),
        # The surest are the furthest: a fifth of the 5 for its distance and 4 others.
        (lambda n: n, 0.035, 98.5),
    ],
)
def test_the_thresholds_lie_between_the_films_that_may_and_the_rest(
    order: Callable[[int], int], least: float, greatest: float
) -> None:
    confidence = torch.arange(100, dtype=torch.float64) / 100
    distance = torch.tensor([float(order(n)) for n in range(100)])
    found = choose_thresholds(confidence, distance, AbstentionConfig(share=0.05))
    assert found == pytest.approx((least, greatest))


@pytest.mark.parametrize(
    ("distance_share", "least", "greatest"), [(0.0, 0.045, 99.5), (1.0, 0.0, 94.5)]
)
def test_all_may_be_abstained_on_for_one_reason(
    distance_share: float, least: float, greatest: float
) -> None:
    rising = torch.arange(100, dtype=torch.float64)
    config = AbstentionConfig(share=0.05, distance_share=distance_share)
    assert choose_thresholds(rising / 100, rising, config) == pytest.approx((least, greatest))


@pytest.mark.parametrize("share", [0.0, 0.05, 0.29, 0.7])
@pytest.mark.parametrize("count", [1, 19, 100, 1079])
def test_no_more_validation_films_are_abstained_on_than_may_be(share: float, count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    confidence = torch.rand(count, generator=generator, dtype=torch.float64)
    distance = torch.rand(count, generator=generator) + (1 - confidence.float())
    least, greatest = choose_thresholds(confidence, distance, AbstentionConfig(share))
    abstained = int(((confidence < least) | (distance.double() > greatest)).sum())
    allowed = int(share * count + 1e-9)
    # The next film of each threshold would have made too many.
    assert max(0, allowed - 1) <= abstained <= allowed


def _films(count: int, seed: int, shift: float = 0.0) -> FilmFeatures:
    """Two classes in five features: correlated, of unlike scales, 8 deviations apart."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    noise = torch.randn(count, 5, generator=generator)
    noise[:, 1] = 0.8 * noise[:, 0] + 0.6 * noise[:, 1]
    scale = torch.tensor([100.0, 1.0, 1.0, 0.1, 5.0])
    offset = torch.zeros(5)
    offset[3] = 8.0
    pooled = (noise + labels.unsqueeze(1) * offset + shift) * scale
    return FilmFeatures(pooled, torch.linspace(0.7, 1, count, dtype=torch.float64), labels)


def test_a_fit_makes_the_covariance_within_the_classes_the_identity() -> None:
    training = _films(4000, seed=0)
    fitted = fit_abstention(training, _films(200, seed=1), 2, AbstentionConfig())
    positions = (training.pooled - fitted.mean) @ fitted.projection
    offsets = positions - fitted.class_means[training.labels]
    covariance = offsets.T @ offsets / len(offsets)
    torch.testing.assert_close(covariance, torch.eye(5), atol=0.03, rtol=0)
    torch.testing.assert_close(offsets.mean(0), torch.zeros(5), atol=1e-3, rtol=0)
    apart = (fitted.class_means[1] - fitted.class_means[0]).norm().item()
    assert apart == pytest.approx(8.0, abs=0.3)


def test_a_fit_tells_films_unlike_all_others_by_their_distance() -> None:
    validation = _films(200, seed=1)
    fitted = fit_abstention(_films(2000, seed=0), validation, 2, AbstentionConfig())
    distances = fitted.distance(validation.pooled).tolist()
    among = map(fitted.find_reason, validation.confidence.tolist(), distances)
    assert 1 <= sum(reason is not None for reason in among) <= 10
    foreign = fitted.distance(_films(200, seed=2, shift=4.0).pooled).tolist()
    far = [fitted.find_reason(1.0, distance) for distance in foreign]
    assert far.count("unfamiliar") >= 190


@pytest.mark.parametrize(("num_classes", "floor"), [(2, 2 / 3), (4, 0.4)])
def test_a_class_that_is_hardly_likelier_than_a_guess_is_undecided(
    num_classes: int, floor: float
) -> None:
    films = _films(40, seed=0)
    films = replace(films, labels=torch.arange(40) % num_classes)
    for surplus in (0.001, 0.5):
        surest = 1 / num_classes + surplus / num_classes
        alike = replace(films, confidence=torch.full((40,), surest, dtype=torch.float64))
        fitted = fit_abstention(films, alike, num_classes, AbstentionConfig())
        assert fitted.least_confidence == pytest.approx(max(floor, surest))
        assert (fitted.find_reason(surest, 0.0) == "undecided") == (surest < floor)


def test_fit_gate_makes_a_model_that_has_learnt_nothing_doubt_every_film(
    tiny_checkpoint: Path,
    image_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The network's weights are random: it gives each class about a quarter."""
    manifest, model = tmp_path / "manifest.csv", tmp_path / "model.pth"
    write_manifest(split_by_number(image_folder), manifest)
    names = ["--model", str(tiny_checkpoint), "--data", str(image_folder), "--device", "cpu"]
    assert main(["fit-gate", *names, "--manifest", str(manifest), "--out", str(model)]) == 0
    films = [str(path) for path in sorted(image_folder.rglob("*.png"))[::4]]
    capsys.readouterr()
    main(["predict", "--model", str(model), "--device", "cpu", "--json", "--force", *films])
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(answers) == len(films)
    assert all(answer["abstained"] for answer in answers)
    assert "undecided" in {answer["reason"] for answer in answers}


def test_a_fit_takes_no_more_directions_than_it_is_told() -> None:
    config = AbstentionConfig(directions=2)
    fitted = fit_abstention(_films(50, seed=0), _films(50, seed=1), 2, config)
    assert fitted.projection.shape == (5, 2)
    assert fitted.class_means.shape == (2, 2)


def test_a_fit_needs_films_of_every_class_and_of_validation() -> None:
    films = _films(20, seed=0)
    with pytest.raises(ValueError, match="training films of every class"):
        fit_abstention(films, films, 3, AbstentionConfig())
    nothing = FilmFeatures(*(part[:0] for part in (films.pooled, films.confidence, films.labels)))
    with pytest.raises(ValueError, match="needs validation films"):
        fit_abstention(films, nothing, 2, AbstentionConfig())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"share": 1.0}, "share must be"),
        ({"distance_share": 1.5}, "distance_share must be from 0 to 1"),
        ({"directions": 0}, "directions must be 1 or more"),
    ],
)
def test_an_impossible_configuration_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AbstentionConfig(**wrong)
