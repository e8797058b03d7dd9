"""The speed benchmarks: what they count and what they compare is right; times are not tested."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from benchmarks.network import count_operations
from benchmarks.plain_service import create_app as create_plain_app
from benchmarks.service import Load, film_in_a_form, put_load
from benchmarks.timing import measure_limit, render_table, time_together
from resformer.inference import Predictor
from tests.phantom import draw_chest_phantom
from tests.web.serving import serve_in_thread
from web import WebConfig, create_app


def test_every_function_is_timed_often_enough() -> None:
    calls = {"one": 0, "other": 0}

    def count(name: str) -> None:
        calls[name] += 1

    timings = time_together({name: partial(count, name) for name in calls}, seconds=0)
    assert calls == {"one": 6, "other": 6}  # once to warm up
    assert all(0 <= timing.fastest <= timing.median for timing in timings.values())
    assert measure_limit(seconds=0) > 0


def test_operations_count_a_multiplication_and_an_addition() -> None:
    network = nn.Conv2d(1, 2, 3, padding=1, bias=False)
    assert count_operations(network, torch.zeros(1, 1, 8, 8)) == 2 * 2 * 9 * 64


def test_a_load_shows_its_rate_and_its_percentiles() -> None:
    assert Load((0.010, 0.020, 0.030), 2, 1.5).row() == ("2", "20.0", "29.8", "2")
    assert Load((), 4, 1.0).row() == ("0", "-", "-", "4")


def test_a_table_is_markdown() -> None:
    assert render_table(("a", "b"), [("1", "2")]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def test_clients_are_answered_and_failures_are_counted(tiny_checkpoint: Path) -> None:
    config = WebConfig(tiny_checkpoint, "cpu", port=0)
    with serve_in_thread(create_app(config), config) as url:
        load = put_load(url, film_in_a_form(96), clients=3, seconds=0.3)
        assert len(load.seconds) >= 3
        assert load.failed == 0
        broken = put_load(url, b"no form", clients=1, seconds=0.1)
        assert broken.seconds == ()
        assert broken.failed > 0


def test_the_plain_service_runs_the_same_network(tiny_checkpoint: Path) -> None:
    film = draw_chest_phantom(96)
    file = io.BytesIO()
    Image.fromarray(film).save(file, "PNG")
    file.seek(0)
    client = create_plain_app(tiny_checkpoint).test_client()
    answer = client.post("/predict", data={"file": (file, "film.png")}).get_json()
    (expected,) = Predictor.from_file(tiny_checkpoint, "cpu").predict([film])
    assert answer["probabilities"] == pytest.approx(expected.probabilities, abs=1e-5)
