"""The benchmark that imitates other hospitals: what it changes, and the table that it writes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.elsewhere import AS_THEY_ARE, build_changes, main, stretch
from resformer.checkpoint import load_checkpoint, save_checkpoint
from resformer.data.dataset import FilmDataset
from resformer.data.manifest import write_manifest
from resformer.model import IdentityMappingResFormer
from resformer.transforms import InputSpec
from tests.phantom import draw_chest_phantom
from tests.training_setup import split_by_number


@pytest.fixture
def films() -> FilmDataset:
    drawn = np.stack([draw_chest_phantom(64, seed=seed) for seed in range(4)])
    return FilmDataset(drawn, np.arange(4), InputSpec(64))


def test_each_change_is_made_alike_again_and_differs_from_the_film(films: FilmDataset) -> None:
    outlines = np.zeros_like(films.films)
    outlines[:, 16:48, 8:56] = 255
    changes = build_changes(films, outlines)
    for name, change in changes.items():
        first = [change(index) for index in range(4)]
        np.testing.assert_array_equal([change(index) for index in range(4)], first)
        same = [np.array_equal(film, films.films[index]) for index, film in enumerate(first)]
        assert same == [name == AS_THEY_ARE] * 4, name
        assert all(film.shape == (64, 64) and film.dtype == np.uint8 for film in first)


def test_a_stretched_film_keeps_its_middle_and_gets_an_even_margin() -> None:
    film = np.full((64, 64), 100, np.uint8)
    film[28:36, 28:36] = 200
    areas, corners = [], []
    for seed in range(40):
        stretched = stretch(film, seed)
        assert stretched[32, 32] == 200
        areas.append((stretched[20:44, 20:44] > 150).sum() / 64)
        corners.append(int(stretched[0, 0]))
    assert 0.5 < min(areas) < 0.8 < 1.2 < max(areas) < 1.7
    # A film that became larger has itself in the corner, as one with a margin of its own grey has.
    assert min(corners) == 0
    assert 100 in corners
    assert max(corners) > 200


def test_the_table_has_each_network_under_each_change(
    tiny_checkpoint: Path, image_folder: Path, tmp_path: Path
) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    network = replace(checkpoint.model_config, lung_head=True)
    weights = IdentityMappingResFormer(network).state_dict()
    for name in ("one", "two"):
        made = replace(checkpoint, model_config=network, state_dict=weights, graph=None)
        save_checkpoint(made, tmp_path / f"{name}.pth")
    data = tmp_path / "data"
    data.mkdir()
    (data / "chest-xray").symlink_to(image_folder)
    write_manifest(split_by_number(image_folder), tmp_path / "split.csv")
    arguments = [
        *("--data", data, "--model", tmp_path / "one.pth", "--beside", tmp_path / "two.pth"),
        *("--manifest", tmp_path / "split.csv", "--out", tmp_path / "table.md"),
    ]
    main([str(argument) for argument in arguments])
    table = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "8 validation films" in table
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith(("| one", "| two"))]
    assert len(rows) == 10
    assert [row[1] for row in rows[::2]] == [row[1] for row in rows[1::2]]
    # Two equal networks have equal figures, whatever these are.
    assert [row[2:] for row in rows[::2]] == [row[2:] for row in rows[1::2]]


def test_networks_of_one_name_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--data", "films", "--model", "one/best.pth", "--beside", "two/best.pth"])
    assert "give each another one" in capsys.readouterr().err
