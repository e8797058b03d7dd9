"""The request and the start benchmarks: parts, their shares, and what a smaller JPEG changes."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import request, start
from benchmarks.films import as_dicom, as_jpeg, as_png, draw_film, put_in_a_form
from benchmarks.reduced_jpeg import compare_reduced, decode_reduced
from benchmarks.request import REST, TOTAL, build_parts, render, shares, summarise
from benchmarks.start import time_start
from benchmarks.timing import Timing
from resformer.backends import choose_backend
from resformer.images import decode_image
from tests.web.gating import write_gated_checkpoint
from tests.web.serving import serve_in_thread
from web import WebConfig, create_app
from web.service import ModelService

TIMINGS = {
    "decode": Timing(0.006, 0.005),
    "network": Timing(0.002, 0.002),
    TOTAL: Timing(0.010, 0.009),
}


@pytest.fixture(scope="module")
def service(tiny_checkpoint: Path) -> ModelService:
    service = ModelService(tiny_checkpoint, "cpu")
    service.load()
    return service


def test_the_rest_is_what_no_part_explains() -> None:
    assert shares(TIMINGS) == pytest.approx({"decode": 0.006, "network": 0.002, REST: 0.002})
    quick = {**TIMINGS, TOTAL: Timing(0.007, 0.007)}
    assert shares(quick)[REST] == 0


def test_the_table_shows_milliseconds_and_shares() -> None:
    table = render({"PNG": TIMINGS}).splitlines()
    assert table[-1] == "| PNG | 6.00 (60%) | 2.00 (20%) | 2.00 (20%) | 10.00 |"
    (row,) = summarise({"PNG": TIMINGS})
    assert (row.what, row.ours) == ("request, PNG, ms", "10.0")
    assert row.beside == "of that decode 6.0, network 2.0, rest 2.0"


def test_every_part_of_a_request_is_run(tiny_checkpoint: Path, tmp_path: Path) -> None:
    model = write_gated_checkpoint(tiny_checkpoint, tmp_path / "gated.pth", accepts=False)
    config = WebConfig(model, "cpu", port=0, preview_side=48)
    service = ModelService(model, "cpu")
    service.load()
    backend = choose_backend(service.checkpoint, torch.device("cpu"))
    app = create_app(config, service)
    parts = build_parts(as_png(draw_film(96, 96)), app, service.checkpoint, backend, 48)
    assert list(parts) == ["decode", "resize", "network", "gate", "preview", "JSON", TOTAL]
    found = {name: part() for name, part in parts.items()}
    assert found["decode"].shape == (96, 96)
    assert found["resize"].shape == (64, 64)
    assert Image.open(io.BytesIO(found["preview"])).size == (48, 48)
    assert found["JSON"].get_data() == found[TOTAL].get_data()


def test_films_are_files_of_the_same_picture() -> None:
    film = draw_film(96, 64)
    assert film.shape == (96, 64)
    np.testing.assert_array_equal(decode_image(as_png(film)), film.astype(np.uint8))
    deep = decode_image(as_dicom(film)).astype(int)
    assert np.corrcoef(deep.ravel(), film.ravel())[0, 1] > 0.999
    assert decode_reduced(as_jpeg(film), 2).shape == (48, 32)


def test_a_reduced_jpeg_is_compared_with_the_whole_one(service: ModelService) -> None:
    file = as_jpeg(draw_film(512, 512))
    assert compare_reduced(service, file, 1) == (0, 0.0)
    levels, moved = compare_reduced(service, file, 8)
    assert levels > 0
    assert 0 < moved < 1


def test_the_request_benchmark_writes_its_tables_and_its_plot(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "request.md"
    rows = request.main(
        f"--model {tiny_checkpoint} --out {out} --threads 1 --scale 0.1 --seconds 0 "
        "--films 1".split()
    )
    assert [row.what for row in rows] == [
        "request, PNG, 30 x 30, ms",
        "request, PNG, 102 x 102, ms",
        "request, DICOM, 16 bits, 250 x 200, ms",
    ]
    text = out.read_text()
    assert "| DICOM, 16 bits, 250 x 200 |" in text
    assert "JPEG of 260 x 220, 1 drawn films" in text
    assert out.with_suffix(".png").stat().st_size > 1000


def test_a_start_ends_with_the_first_answer(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []

    @contextmanager
    def run(
        command: Sequence[str], model: Path, log: Path, **variables: str
    ) -> Iterator[SimpleNamespace]:
        started.append(f"{command[1]} {variables['RESFORMER_BACKEND']}")
        config = WebConfig(model, "cpu", port=0)
        with serve_in_thread(create_app(config), config) as url:
            yield SimpleNamespace(url=url)

    monkeypatch.setattr(start, "run_command", run)
    film = put_in_a_form(as_png(draw_film(96, 96)))
    assert time_start(tiny_checkpoint, "ours, onnxruntime", 1, film) > 0
    with pytest.raises(RuntimeError, match="ours, torch answered 400"):
        time_start(tiny_checkpoint, "ours, torch", 1, b"no form")
    assert started == ["app.py onnxruntime", "app.py torch"]


def test_the_start_benchmark_shows_medians_and_the_slowest(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = {"ours, onnxruntime": [2.0, 4.0, 3.0], "ours, torch": [4.0], "plain Flask": [9.0]}
    turns = {name: cycle(times) for name, times in seconds.items()}
    monkeypatch.setattr(start, "time_start", lambda model, name, threads, body: next(turns[name]))
    out = tmp_path / "start.md"
    (row,) = start.main(f"--model {tiny_checkpoint} --out {out} --runs 3".split())
    assert "| ours, onnxruntime | 3.00 | 4.00 |" in out.read_text()
    assert (row.ours, row.beside) == ("3.0", "ours, torch 4.0, plain Flask 9.0")
    assert out.with_suffix(".png").stat().st_size > 1000
