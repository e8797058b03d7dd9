"""The ablations: what each variant lacks, that all are trained alike, and their row in the card."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw

from benchmarks.ablations import VARIANTS, main
from resformer.cli import main as run_command
from resformer.data.manifest import write_manifest
from resformer.data.masks import INFECTION_FOLDER, LUNGS_FOLDER
from resformer.evaluation.report import read_ablations
from resformer.evaluation.tables import render_ablations
from resformer.layers import EMPT, IMTM
from resformer.layers.simam import SimAM
from resformer.model import IdentityMappingResFormer, ResFormerConfig
from tests.data_sets import CLASS_NAMES
from tests.training_setup import report_arguments, split_by_number, tell_of_a_training

ROOT = Path(__file__).resolve().parent.parent
LUNG_MODEL = str(ROOT / "best_model.pth")
BY_NAME = {variant.name: variant for variant in VARIANTS}
BASELINE, BARE = "MobileNetV3-Small", "ours without IMTM"
SEED = 3


def tiny(config: ResFormerConfig, name: str) -> IdentityMappingResFormer:
    torch.manual_seed(0)
    model = BY_NAME[name].build(config).eval()
    assert isinstance(model, IdentityMappingResFormer)
    return model


def test_every_variant_lacks_what_its_name_says(tiny_config: ResFormerConfig) -> None:
    def parts(name: str) -> set[type]:
        return {type(module) for module in tiny(tiny_config, name).modules()} & {SimAM, EMPT, IMTM}

    assert parts("ours") == {SimAM, EMPT, IMTM}
    assert parts("ours without SimAM") == {EMPT, IMTM}
    assert parts("ours without EMPT") == {SimAM, IMTM}
    assert parts("ours without IMTM") == {SimAM, EMPT}
    features = [torch.ones(1, width, 2, 2) for width in tiny_config.channels]
    alone = tiny(tiny_config, "ours without IMTM").imtm(features)
    assert not any(added.any() for added in alone)


@pytest.fixture(scope="module")
def arguments(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A short training on drawn films, of which three classes have masks of both regions."""
    folder = tmp_path_factory.mktemp("ablations")
    root = folder / "films"
    shutil.copytree(image_folder, root)
    mask = Image.new("L", (96, 96))
    ImageDraw.Draw(mask).ellipse((16, 16, 80, 80), fill=255)
    for name in CLASS_NAMES[:3]:
        for region in (LUNGS_FOLDER, INFECTION_FOLDER):
            (root / name / region).mkdir()
            for number in range(12):
                mask.save(root / name / region / f"{name}-{number}.png")
    write_manifest(split_by_number(root), folder / "split.csv")
    return [
        *["--data", str(root), "--manifest", str(folder / "split.csv")],
        *["--cache", str(folder / "cache"), "--out", str(folder / "out")],
        *["--epochs", "1", "--size", "64", "--seeds", str(SEED), "--lung-model", LUNG_MODEL],
        *["--threads", str(torch.get_num_threads()), "--only", BARE, BASELINE],
    ]


@pytest.fixture(scope="module")
def results(arguments: list[str]) -> Path:
    main(arguments)
    return Path(arguments[arguments.index("--out") + 1])


def test_all_variants_have_the_same_films_epochs_and_recipe(results: Path) -> None:
    found: dict[str, dict[str, Any]] = {
        name: json.loads((results / BY_NAME[name].file_name(SEED)).read_text())
        for name in (BARE, BASELINE)
    }
    for result in found.values():
        assert result["epochs"] == 1
        assert (result["data"], result["config"]) == (found[BARE]["data"], found[BARE]["config"])
        assert result["validation"]["count"] == 8
        assert all(0 <= result[name] <= 1 for name in ("elsewhere", "lungs_blacked_out"))
        assert result["seconds"] > 0
    assert found[BARE]["changes"] == {}
    assert found[BASELINE]["changes"] == {"network": "mobilenet_v3_small"}


def test_what_is_there_is_not_measured_again(
    results: Path, arguments: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    before = {path: path.stat().st_mtime_ns for path in results.iterdir()}
    assert len(before) == 2
    main(arguments)
    assert {path: path.stat().st_mtime_ns for path in results.iterdir()} == before
    assert f"{BARE}, seed {SEED}: {results / BY_NAME[BARE].file_name(SEED)} is there" in caplog.text


def test_the_report_shows_them_if_they_were_measured_alike(
    results: Path, tiny_checkpoint: Path, image_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(results, tmp_path / "ablations")
    first = json.loads((folder / BY_NAME[BASELINE].file_name(SEED)).read_text())
    (folder / "other-seed.json").write_text(json.dumps(first | {"seed": 4}))
    model = tell_of_a_training(tiny_checkpoint, tmp_path / "model.pth")
    report = report_arguments(model, image_folder, tmp_path)
    assert run_command([*report, "--ablations", str(folder)]) == 0
    card = (tmp_path / "MODEL_CARD.md").read_text()
    assert render_ablations(read_ablations(folder)) in card
    accuracy = f"{first['validation']['accuracy']['value']:.3f}"
    (row,) = (line for line in card.splitlines() if line.startswith(f"| {BASELINE} | "))
    assert f" | 2 | {first['within_sources']:.3f} ± 0.000 | {accuracy} ± 0.000 | " in row
    (folder / "longer.json").write_text(json.dumps(first | {"epochs": 2}))
    with pytest.raises(ValueError, match="differ in epochs: measure them alike"):
        read_ablations(folder)
    (folder / "longer.json").write_text("{}")
    with pytest.raises(ValueError, match="lacks epochs, data, config, name"):
        read_ablations(folder)
