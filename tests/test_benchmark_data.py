"""The benchmarks that read films: how faithful the evidence is, what is refused, and elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks import elsewhere, evidence, familiarity, refusal
from benchmarks.evidence import share_inside
from resformer.checkpoint import load_checkpoint, save_checkpoint
from resformer.data.manifest import write_manifest
from resformer.evaluation.predictions import Predictions
from resformer.explanation import evidence_map
from resformer.model import IdentityMappingResFormer, ResFormerConfig
from resformer.phantom import draw_chest_phantom
from resformer.predict import Predictor
from resformer.training.gate_drawings import DRAWINGS
from tests.data_sets import CLASS_NAMES
from tests.training_setup import split_by_number
from tests.web.checkpoints import write_gated_checkpoint, write_upright_checkpoint

Pixels = NDArray[np.uint8]


def draw(count: int, seed: int) -> list[Pixels]:
    rng = np.random.default_rng(seed)
    kinds = [DRAWINGS[name] for name in ("text", "shapes", "leaves", "section")]
    return [kinds[i % 4](96, rng) for i in range(count)]


def save(pictures: Sequence[Pixels], folder: Path) -> None:
    folder.mkdir(parents=True)
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{number}.png")


@pytest.fixture
def places(image_folder: Path, tmp_path: Path) -> list[str]:
    """Arguments that name the drawn films, with pictures that are none, and their split."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "chest-xray").symlink_to(image_folder, target_is_directory=True)
    save(draw(4, seed=2), data / "not-chest-xray" / "drawings")
    save([draw_chest_phantom(80, seed=900)], data / "external" / "clinic")
    write_manifest(split_by_number(image_folder), tmp_path / "split.csv")
    out = ["--out", str(tmp_path / "table.md")]
    return ["--data", str(data), "--manifest", str(tmp_path / "split.csv"), *out]


@pytest.fixture(scope="module")
def predictor(tiny_checkpoint: Path) -> Predictor:
    return Predictor(replace(load_checkpoint(tiny_checkpoint), temperature=0.4), "cpu")


def test_the_evidence_is_measured_and_printed(
    tiny_checkpoint: Path,
    places: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    evidence.main([*places, "--model", str(tiny_checkpoint), "--films", "1"])
    written = (tmp_path / "table.md").read_text()
    assert written in capsys.readouterr().out
    for row in (*evidence.MAPS, "evidence map against random", "last layer", "all layers"):
        assert f"| {row} | 4 | " in written
    assert load_checkpoint(tiny_checkpoint).source[:12] in written
    assert "share inside the mask" in written


@pytest.mark.parametrize("lung_head", [False, True])
def test_the_class_activation_adds_up_to_the_logit(
    predictor: Predictor, tiny_config: ResFormerConfig, lung_head: bool
) -> None:
    torch.manual_seed(0)
    config = replace(tiny_config, lung_head=lung_head)
    model = IdentityMappingResFormer(config).eval()
    checkpoint = replace(predictor.checkpoint, model_config=config, state_dict=model.state_dict())
    image = torch.randn(1, 64, 64)
    with torch.inference_mode():
        logit = float(model(image[None])[0, 2] - model.fc.bias[2])
    activation = evidence.class_activation(Predictor(checkpoint, "cpu"), image, 2)
    assert activation.shape == (16, 16)
    assert float(activation.sum()) == pytest.approx(logit, abs=1e-3)


def test_shares_are_of_the_films_own_class_and_of_films_with_a_mask(
    predictor: Predictor, tmp_path: Path
) -> None:
    for name in ("images", "masks", "infection masks"):
        (tmp_path / name).mkdir()
    mask = np.zeros((64, 64), np.uint8)
    Image.fromarray(mask).save(tmp_path / "masks" / "b.png")
    mask[:, :32] = 255
    Image.fromarray(mask).save(tmp_path / "masks" / "a.png")
    for seed, name in enumerate("abc"):
        Image.fromarray(draw_chest_phantom(64, seed)).save(tmp_path / "images" / f"{name}.png")
    films = [
        evidence.read_film(tmp_path / "images" / f"{name}.png", CLASS_NAMES[0]) for name in "abc"
    ]
    row = evidence.measure_shares(predictor, [(film, film.lungs) for film in films])
    inside = np.zeros((16, 16))
    inside[:, :8] = 1
    expected = share_inside(evidence_map(predictor, films[0].pixels, CLASS_NAMES[0]), inside)
    assert row["evidence map"].tolist() == pytest.approx([expected], abs=1e-5)
    assert row["area (chance)"].tolist() == pytest.approx([0.5])
    assert row["evidence map less area"].tolist() == pytest.approx([expected - 0.5], abs=1e-5)
    without = evidence.measure_shares(predictor, [(film, film.infection) for film in films])
    assert without["edges"].size == 0


def test_refusals_are_counted_and_printed(
    tiny_checkpoint: Path,
    places: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    small = ["--altered", "2", "--drawn", "1", "--variations", "8", "--copies", "1"]
    with pytest.raises(ValueError, match="no gate: give it one with fit-gate"):
        refusal.main([*places, *small, "--model", str(tiny_checkpoint)])
    model = write_gated_checkpoint(tiny_checkpoint, tmp_path / "gated.pth", accepts=False)
    refusal.main([*places, *small, "--model", str(model)])
    written = (tmp_path / "table.md").read_text()
    assert written in capsys.readouterr().out
    assert "| test split | 8 | 8 | 100.0% (63.1% to 100.0%) |" in written
    assert "| clinic | 1 | 1 | " in written
    assert "| together | 9 | 9 | " in written
    for row in ("sideways | 2 | 2", "photographed screen | 2 | 2", "drawn noise | 1 | 1"):
        assert f"| {row} |" in written
    assert "| blank | 16 | 16 |" in written
    # This gate accepts nothing, in no orientation.
    assert "| upside down, 180 degrees | 0 | 2 |" in written
    assert "| drawings | 0 | 4 |" in written


def test_corrections_are_counted_for_films_and_for_what_is_none(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    film = draw_chest_phantom(64)
    model = write_upright_checkpoint(tiny_checkpoint, tmp_path / "model.pth", film)
    predictor = Predictor.from_file(model, "cpu")
    tables = refusal.count_corrections(predictor, [film], {"noise": draw(1, seed=5)})
    assert list(tables[refusal.PUT_RIGHT].values()) == [(1, 1)] * 7
    assert tables[refusal.OFFERED] == {"noise": (0, 1)}


def test_what_is_left_out_of_the_distance_is_told_by_it(
    tiny_checkpoint: Path, places: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = "set,file,finding\nclinic,0.png,Tuberculosis\n"
    (tmp_path / "data" / "external" / "labels.csv").write_text(labels)
    familiarity.main([*places, "--model", str(tiny_checkpoint)])
    written = (tmp_path / "table.md").read_text()
    assert written in capsys.readouterr().out
    for name in CLASS_NAMES:
        assert f"| {name.replace('_', ' ')} | 2 | " in written
    # Random weights are sure of nothing.
    assert "| clinic, tuberculosis | 1 | 0 | 0 | 0.0%" in written


def test_whoever_is_sure_and_wrong_without_a_warning_is_counted() -> None:
    probabilities = np.array([[0.95, 0.05], [0.95, 0.05], [0.95, 0.05], [0.8, 0.2], [0.04, 0.96]])
    abstained = np.array([False, True, False, False, False])
    found = Predictions(probabilities, np.zeros(5, dtype=np.bool_), abstained)
    counted = familiarity.count_sure(found, np.array([1, 1, 0, 1, -1]))
    assert counted[:3] == ["5", "3", "2"]


def test_near_duplicates_stay_in_one_half() -> None:
    twice = [picture for picture in draw(6, seed=1) for _ in range(2)]
    halves = refusal.split_halves(twice)
    first, second = ({picture.tobytes() for picture in half} for half in halves.values())
    assert not first & second
    assert len(first | second) == 6
    assert {len(half) for half in halves.values()} == {6}


def test_each_network_is_measured_under_each_change(
    tiny_checkpoint: Path, places: list[str], tmp_path: Path
) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    network = replace(checkpoint.model_config, lung_head=True)
    weights = IdentityMappingResFormer(network).state_dict()
    one, two = (tmp_path / f"{name}.pth" for name in ("one", "two"))
    for path in (one, two):
        made = replace(checkpoint, model_config=network, state_dict=weights, graph=None)
        save_checkpoint(made, path)
    elsewhere.main([*places, "--model", str(one), "--beside", str(two)])
    table = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "8 validation films" in table
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith(("| one", "| two"))]
    assert len(rows) == 10
    # Two equal networks have equal figures, whatever these are.
    assert [row[1:] for row in rows[::2]] == [row[1:] for row in rows[1::2]]
    with pytest.raises(SystemExit):
        elsewhere.main([*places, "--model", str(one), "--beside", str(one)])
