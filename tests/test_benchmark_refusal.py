"""The benchmark of the gate: what it leaves out of a fit, what it counts, what it writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import benchmarks.refusal as refusal
from benchmarks.refusal import Measured, measure_outliers, split_halves, spoil_films, to_markdown
from benchmarks.screen_photo import photograph_screen
from resformer.checkpoint import load_checkpoint, save_checkpoint
from resformer.data.manifest import write_manifest
from resformer.gate.drawings import DRAWINGS
from resformer.gate.fit import Blocks, GateConfig, GateSamples, fit_gate
from resformer.gate.gate import Gate
from tests.phantom import draw_chest_phantom
from tests.training_setup import split_by_number

LENGTH = 4
SMALL = GateConfig(copies=1, variations=8, made=2, directions=4)


def _draw(count: int, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    kinds = [DRAWINGS[name] for name in ("text", "shapes", "leaves", "section")]
    return [kinds[i % 4](96, rng) for i in range(count)]


def test_near_duplicates_stay_in_one_half() -> None:
    pictures = _draw(6, seed=1)
    twice = [picture for picture in pictures for _ in range(2)]
    halves = split_halves(twice)
    first, second = ({picture.tobytes() for picture in half} for half in halves.values())
    assert not first & second
    assert len(first | second) == 6
    assert {len(half) for half in halves.values()} == {6}


def test_a_photographed_screen_is_the_same_for_the_same_seed_and_another_picture() -> None:
    film = draw_chest_phantom(96)
    photo, again = (photograph_screen(film, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(photo, again)
    assert photo.shape == (96, 96)
    assert photo.dtype == np.uint8
    assert np.abs(photo.astype(int) - film).mean() > 5
    correlation = np.corrcoef(photo.ravel(), film.ravel())[0, 1]
    assert correlation > 0.5


def test_every_alteration_and_drawing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusal, "_ALTERED", 2)
    monkeypatch.setattr(refusal, "_DRAWN", 1)
    made = spoil_films([draw_chest_phantom(64, seed=seed) for seed in range(3)], 64)
    asked_for = {"blank", "drawn noise", "inverted", "upside down", "sideways"}
    assert asked_for | {"photographed screen"} <= set(made)
    assert {len(made[name]) for name in ("sideways", "tilted", "photographed screen")} == {2}
    assert [len(made["drawn noise"]), len(made["blank"])] == [1, 16]


def _blocks(count: int, offset: float, seed: int) -> Blocks:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(count, LENGTH, generator=generator) + offset]


def test_what_is_measured_was_left_out_of_the_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted_on: list[frozenset[str]] = []

    def fit(samples: GateSamples, config: GateConfig) -> Gate:
        fitted_on.append(frozenset(samples.outliers))
        return fit_gate(samples, config)

    monkeypatch.setattr(refusal, "fit_gate", fit)
    names = ["a/first", "a/second", "b/first", "b/second"]
    films, varied, validation = (_blocks(40, 0, seed) for seed in range(3))
    outliers = {name: _blocks(10, 8, seed) for seed, name in enumerate([*names, "made: noise"])}
    looked_at = {
        (name[0], name[2:]): Measured(_blocks(5, 8, 50 + i), [""] * 5)
        for i, name in enumerate(names)
    }
    tables = measure_outliers(
        GateSamples(films, varied, validation, outliers), looked_at, GateConfig()
    )
    noise = {"made: noise"}
    assert fitted_on == [
        {"a/first", "b/first"} | noise,
        {"a/second", "b/second"} | noise,
        {"b/first", "b/second"} | noise,
        {"a/first", "a/second"} | noise,
        noise,
    ]
    assert [list(rows.values()) for rows in tables.values()] == [
        *([[(5, 5), (5, 5)]] * 2),
        *([[(10, 10), (10, 10)]] * 2),
    ]


def test_the_table_has_shares_intervals_and_a_sum() -> None:
    tables = {"kind": {"a_b": (1, 4), "c": (4, 4)}, refusal.NOT_SUMMED: {"d": (0, 9)}}
    lines = to_markdown(tables, "0123456789abcdef")
    assert "of the network 0123456789ab." in lines
    assert "| a b | 1 | 4 | 25.0% (0.6% to 80.6%) |" in lines
    assert "| together | 5 | 8 | 62.5% (24.5% to 91.5%) |" in lines
    assert lines.count("together") == 1


def test_the_benchmark_needs_a_gate(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no gate: give it one with fit-gate"):
        refusal.measure(load_checkpoint(tiny_checkpoint), tmp_path, tmp_path / "manifest.csv")


def _save(pictures: Sequence[np.ndarray], folder: Path) -> None:
    folder.mkdir(parents=True)
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{number}.png")


def test_the_whole_benchmark_prints_what_it_writes(
    tiny_checkpoint: Path,
    image_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "chest-xray").symlink_to(image_folder, target_is_directory=True)
    _save(_draw(4, seed=2), data / "not-chest-xray" / "drawings")
    _save([draw_chest_phantom(80, seed=900)], data / "external" / "clinic")
    write_manifest(split_by_number(image_folder), tmp_path / "split.csv")
    checkpoint = load_checkpoint(tiny_checkpoint)
    torch.manual_seed(0)
    blocks = [torch.randn(30, length) for length in (256, 128, 256, 384, 512)]
    gate = fit_gate(GateSamples(blocks, blocks, blocks, {"far": [b + 9 for b in blocks]}), SMALL)
    save_checkpoint(replace(checkpoint, gate=gate), tmp_path / "model.pth")
    for name, count in {"_ALTERED": 2, "_DRAWN": 2}.items():
        monkeypatch.setattr(refusal, name, count)
    monkeypatch.setattr(refusal, "GateConfig", lambda: SMALL)
    monkeypatch.setenv("RESFORMER_DATA", str(data))
    places = {"--model": "model.pth", "--manifest": "split.csv", "--out": "table.md"}
    refusal.main([text for o, name in places.items() for text in (o, str(tmp_path / name))])
    written = (tmp_path / "table.md").read_text()
    assert written in capsys.readouterr().out
    for row in ("| drawings |", "| test split |", "| clinic |", "| photographed screen |"):
        assert row in written
