"""The predictor: the same answer whatever the batch, calibrated, in the checkpoint's order."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from resformer.checkpoint import load_checkpoint
from resformer.devices import choose_device
from resformer.predict import Prediction, Predictor
from resformer.transforms import to_input
from tests.phantom import draw_chest_phantom


@pytest.fixture(scope="module")
def predictor(tiny_checkpoint: Path) -> Predictor:
    return Predictor.from_file(tiny_checkpoint, device="cpu")


def test_probabilities_are_the_softmax_of_the_tempered_logits(tiny_checkpoint: Path) -> None:
    checkpoint = replace(load_checkpoint(tiny_checkpoint), temperature=2.0)
    film = draw_chest_phantom(120, seed=1)
    with torch.inference_mode():
        logits = checkpoint.build_model()(to_input(film, checkpoint.input_spec)[None])
    expected = torch.softmax(logits.double() / 2.0, dim=1)[0].tolist()
    (prediction,) = Predictor(checkpoint, "cpu").predict([film])
    assert list(prediction.probabilities) == list(checkpoint.class_names)
    assert list(prediction.probabilities.values()) == pytest.approx(expected, abs=1e-5)


def test_a_batch_of_different_sizes_gives_what_each_film_gives(predictor: Predictor) -> None:
    films = [draw_chest_phantom(size, seed=size) for size in (64, 100, 300)]
    together = predictor.predict(films)
    for film, prediction in zip(films, together, strict=True):
        (alone,) = predictor.predict([film])
        assert alone.probabilities == pytest.approx(prediction.probabilities, abs=1e-5)


def test_probabilities_sum_to_one(predictor: Predictor) -> None:
    (prediction,) = predictor.predict([draw_chest_phantom(64)])
    assert sum(prediction.probabilities.values()) == pytest.approx(1, abs=1e-12)
    assert prediction.confidence == max(prediction.probabilities.values())


def test_threads_can_share_a_predictor(predictor: Predictor) -> None:
    films = [draw_chest_phantom(64, seed=seed) for seed in range(8)]
    expected = [predictor.predict([film])[0].probabilities for film in films]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda film: predictor.predict([film])[0].probabilities, films))
    for answer, known in zip(answers, expected, strict=True):
        assert answer == pytest.approx(known, abs=1e-6)


def test_no_film_gives_no_prediction(predictor: Predictor) -> None:
    assert predictor.predict([]) == []


def test_what_is_no_film_is_refused(predictor: Predictor) -> None:
    with pytest.raises(ValueError, match=r"expected \(H, W\) uint8"):
        predictor.predict([np.zeros((4, 4, 3), np.uint8)])


def test_a_prediction_names_its_most_probable_class() -> None:
    prediction = Prediction({"a": 0.2, "b": 0.7, "c": 0.1})
    assert prediction.predicted_class == "b"
    assert prediction.confidence == 0.7


@pytest.mark.parametrize(
    ("name", "message"), [("gpu", "unknown device 'gpu'"), ("cuda:99", "not on this machine")]
)
def test_a_device_that_is_not_here_is_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        choose_device(name)


def test_the_device_is_chosen_where_none_is_named() -> None:
    assert choose_device().type in {"cpu", "cuda", "mps"}
