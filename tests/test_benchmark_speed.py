"""The speed benchmarks: what they count and what they compare is right; times are not tested."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from benchmarks import growth, network, service, speed
from benchmarks.films import as_png, draw_film, put_in_a_form
from benchmarks.load import Load, put_load
from benchmarks.network import count_operations
from benchmarks.plain_service import create_app as create_plain_app
from benchmarks.reporting import Summary, SummaryRow
from benchmarks.timing import Timing, measure_limit, time_together
from resformer.evaluation.tables import render_table
from resformer.predict import Predictor
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


def test_a_summary_compares_ours_with_the_others() -> None:
    load = Load((0.010, 0.020, 0.030), 0, 1.5)
    other = Load((0.1, 0.1), 0, 2.0)
    (row,) = service.summarise({(1, service.OURS): load, (1, service.PLAIN): other}, [1])
    assert row.what.startswith("service, 1 client:")
    assert (row.ours, row.beside) == ("2, 20, 30", "plain Flask 1, 100, 100")
    timing = Timing(0.002, 0.001)
    ours = network.Measured(1, 1e9, timing, timing, Timing(0.04, 0.03))
    found = {network.OURS: ours, "other": network.Measured(1, 1e9, timing, timing, timing)}
    alone, _, together, share = network.summarise(found, 128, 32, 1e12)
    assert (alone.ours, alone.beside) == ("2.00", "other 2.00")
    assert (together.ours, together.beside) == ("800", "other 16000")
    assert share.ours == "80%"


def test_growth_is_measured_point_by_point(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = [growth.Point(amount, 0.001 * amount, 1e6) for amount in (1, 2, 4)]
    monkeypatch.setattr(growth, "_export", lambda model, side, folder: model)
    monkeypatch.setattr(growth, "_measure", lambda model, side, batch, amount, options: points[0])
    monkeypatch.setattr(growth, "_measure_clients", lambda model, options: points)
    steeper = [growth.Point(p.amount, p.seconds**2, p.memory) for p in points]
    assert growth._exponent(points) == pytest.approx(1)
    assert growth._exponent(steeper) == pytest.approx(2)
    monkeypatch.setattr(growth, "_exponent", lambda points: 1.0)
    out = tmp_path / "growth.md"
    (row,) = growth.main(f"--model {tiny_checkpoint} --out {out} --sides 64 --batches 1".split())
    assert row.ours == "images in a batch 1.00, clients 1.00, pixels of the image 1.00"
    assert "| 4 | 4.00 | 1 |" in out.read_text()
    assert out.with_suffix(".png").stat().st_size > 1000


def test_all_benchmarks_run_and_the_readme_quotes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Sequence[str]] = {}

    def measure(name: str, arguments: Sequence[str]) -> Summary:
        asked[name] = arguments
        (tmp_path / f"{name}.md").write_text(f"table of {name}\n")
        return (SummaryRow(f"{name}, ms", "1", "other 2"),)

    monkeypatch.setattr(
        speed, "BENCHMARKS", {name: partial(measure, name) for name in speed.BENCHMARKS}
    )
    (tmp_path / "growth.png").write_bytes(b"plot")
    readme, whole = tmp_path / "top.md", tmp_path / "README.md"
    for path in (readme, whole):
        path.write_text(f"before\n{speed.BEGIN}\nold\n{speed.END}\nafter\n")
    speed.main(
        ["--readme", str(readme), "--folder", str(tmp_path), "--more", "service:--seconds 5"]
    )
    table = (tmp_path / "speed.md").read_text()
    assert "| network, ms | 1 | other 2 |" in table
    assert readme.read_text() == f"before\n{speed.BEGIN}\n{table}{speed.END}\nafter\n"
    assert "### Request\n\ntable of request\n\n### Service\n\n" in whole.read_text()
    assert "table of growth\n\n![Plot of the table above](growth.png)\n\n" in whole.read_text()
    assert whole.read_text().startswith(f"before\n{speed.BEGIN}\n### Network")
    assert list(asked) == [
        "network",
        "request",
        "service",
        "training",
        "growth",
        "start",
        "runtimes",
    ]
    assert asked["service"][-2:] == ["--seconds", "5"]
    assert str(tmp_path / "growth.md") in asked["growth"]
    with pytest.raises(ValueError, match="put both where the table belongs"):
        speed.quote("no marks", "text")


def test_clients_are_answered_and_failures_are_counted(tiny_checkpoint: Path) -> None:
    config = WebConfig(tiny_checkpoint, "cpu", port=0)
    with serve_in_thread(create_app(config), config) as url:
        load = put_load(url, put_in_a_form(as_png(draw_film(96, 96))), clients=3, seconds=0.3)
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
