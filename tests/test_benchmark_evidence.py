"""The benchmark of the evidence maps: its rival maps, its measures, the tables it writes."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.evidence import main, read_film, to_markdown
from benchmarks.evidence_maps import build_maps, chance, class_activation, edges, to_grid
from benchmarks.evidence_measures import (
    Film,
    enlarge,
    follow,
    measure_curves,
    measure_randomisation,
    measure_shares,
)
from resformer.checkpoint import load_checkpoint
from resformer.data.manifest import write_manifest
from resformer.evaluation.faithfulness import share_inside
from resformer.explanation import evidence_map
from resformer.model import IdentityMappingResFormer, ResFormerConfig
from resformer.predict import Predictor
from resformer.transforms import to_input
from tests.conftest import CLASS_NAMES
from tests.phantom import draw_chest_phantom
from tests.training_setup import split_by_number


@pytest.fixture(scope="module")
def predictor(tiny_checkpoint: Path) -> Predictor:
    return Predictor(replace(load_checkpoint(tiny_checkpoint), temperature=0.4), "cpu")


@pytest.fixture(scope="module")
def films() -> list[Film]:
    return [Film(draw_chest_phantom(64, seed=seed), CLASS_NAMES[seed]) for seed in range(3)]


@pytest.mark.parametrize("lung_head", [False, True])
def test_the_class_activation_adds_up_to_the_logit(
    tiny_config: ResFormerConfig, lung_head: bool
) -> None:
    torch.manual_seed(0)
    model = IdentityMappingResFormer(replace(tiny_config, lung_head=lung_head)).eval()
    image = torch.randn(1, 64, 64)
    with torch.inference_mode():
        logit = float(model(image[None])[0, 2] - model.fc.bias[2])
    activation = class_activation(model, image, 2)
    assert activation.shape == (16, 16)
    assert float(activation.sum()) == pytest.approx(logit, abs=1e-3)


def test_edges_are_where_the_film_changes(predictor: Predictor) -> None:
    image = torch.zeros(1, 64, 64)
    image[..., 30:] = 1
    found = edges(predictor.model, image, 0)
    assert found.shape == (16, 16)
    assert (found[:, 7] == 2).all()  # two of its four columns, at 4 each
    assert found.sum() == pytest.approx(2 * 16)


def test_chance_is_the_same_for_the_same_film_alone(predictor: Predictor) -> None:
    one, other = torch.zeros(1, 64, 64), torch.ones(1, 64, 64)
    first = chance(predictor.model, one, 0)
    assert first.shape == (16, 16)
    np.testing.assert_array_equal(first, chance(predictor.model, one, 1))
    assert not np.array_equal(first, chance(predictor.model, other, 0))


def test_a_grid_holds_the_mean_of_its_cells() -> None:
    values = np.arange(64.0).reshape(8, 8)
    assert to_grid(values).tolist() == [[13.5, 17.5], [45.5, 49.5]]


def test_a_map_is_enlarged_in_its_place() -> None:
    evidence = np.zeros((16, 16), np.float32)
    evidence[3, 12] = 1
    larger = enlarge(evidence, 64)
    assert larger.shape == (64, 64)
    row, column = divmod(int(larger.argmax()), 64)
    assert (row // 4, column // 4) == (3, 12)


def test_what_is_followed_is_the_calibrated_probability(predictor: Predictor) -> None:
    film = draw_chest_phantom(90)
    image = to_input(film, predictor.checkpoint.input_spec)[0].numpy()
    expected = predictor.predict([film])[0].probabilities["Normal"]
    followed = follow(predictor, np.stack([image, image]), 2)
    assert followed.tolist() == pytest.approx([expected] * 2, abs=1e-5)


def test_every_map_has_curves_of_every_film(predictor: Predictor, films: list[Film]) -> None:
    curves = measure_curves(predictor, films)
    assert set(curves) == set(build_maps(1.0))
    for row in curves.values():
        for areas in (row["deletion"], row["insertion"]):
            assert areas.shape == (3,)
            assert ((areas > 0) & (areas < 1)).all()


def test_shares_are_of_the_films_own_class_and_of_films_with_a_mask(
    predictor: Predictor, films: list[Film]
) -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[:, :32] = 255
    empty = np.zeros((64, 64), np.uint8)
    masked = [replace(films[0], lungs=mask), replace(films[1], lungs=empty), films[2]]
    row = measure_shares(predictor, masked, lambda film: film.lungs)
    inside = np.zeros((16, 16))
    inside[:, :8] = 1
    shown = evidence_map(predictor, films[0].pixels, films[0].class_name)
    expected = share_inside(shown, inside)
    assert row["evidence map"].tolist() == pytest.approx([expected], abs=1e-5)
    assert row["area (chance)"].tolist() == pytest.approx([0.5])
    assert row["evidence map less area"].tolist() == pytest.approx([expected - 0.5], abs=1e-5)
    assert measure_shares(predictor, films, lambda film: film.lungs)["edges"].size == 0


def test_randomised_networks_are_compared_and_the_network_is_left_alone(
    predictor: Predictor, films: list[Film]
) -> None:
    before = predictor.model.fc.weight.clone()
    rows = measure_randomisation(predictor, films)
    assert set(rows) == {"last layer", "all layers"}
    for row in rows.values():
        for values in row.values():
            assert values.shape == (3,)
            assert (values < 0.999).all()
    torch.testing.assert_close(predictor.model.fc.weight, before, rtol=0, atol=0)


def test_a_film_is_read_with_its_masks(tmp_path: Path) -> None:
    folder = tmp_path / "COVID"
    for name in ("images", "masks", "infection masks"):
        (folder / name).mkdir(parents=True)
    Image.fromarray(draw_chest_phantom(80)).save(folder / "images" / "a.png")
    Image.fromarray(draw_chest_phantom(80)).save(folder / "images" / "b.png")
    Image.new("L", (64, 64), 255).save(folder / "masks" / "a.png")
    Image.new("L", (70, 70), 9).save(folder / "infection masks" / "a.png")
    film = read_film(folder / "images" / "a.png", "COVID")
    assert film.pixels.shape == (80, 80)
    assert film.lungs is not None
    assert film.infection is not None
    assert (film.lungs.min(), film.infection.shape) == (255, (70, 70))
    bare = read_film(folder / "images" / "b.png", "COVID")
    assert bare.lungs is None
    assert bare.infection is None


def test_the_tables_hold_means_and_intervals() -> None:
    row = {"deletion": np.array([0.25, 0.25]), "insertion": np.array([math.nan, math.nan])}
    lines = to_markdown({"area": {"a_b": row}}, "0123456789abcdef").splitlines()
    assert lines[2].endswith("of the network 0123456789ab.")
    assert "| area | films | deletion | insertion |" in lines
    assert "| a b | 2 | 0.250 (0.250 to 0.250) | none |" in lines


def test_the_whole_benchmark_prints_what_it_writes(
    tiny_checkpoint: Path,
    image_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "chest-xray").symlink_to(image_folder, target_is_directory=True)
    write_manifest(split_by_number(image_folder), tmp_path / "split.csv")
    places = {"--data": data, "--model": tiny_checkpoint, "--manifest": tmp_path / "split.csv"}
    places |= {"--out": tmp_path / "table.md"}
    main([*[text for o, path in places.items() for text in (o, str(path))], "--films", "1"])
    written = (tmp_path / "table.md").read_text()
    assert written in capsys.readouterr().out
    assert "| evidence map | 4 |" in written
    assert "| evidence map against random | 4 |" in written
    assert "| all layers | 4 |" in written


def test_the_data_must_be_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RESFORMER_DATA", raising=False)
    with pytest.raises(SystemExit):
        main([])
    assert "--data" in capsys.readouterr().err
