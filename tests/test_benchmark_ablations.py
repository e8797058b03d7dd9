"""The ablations: what each variant lacks, that all are trained alike, and their row in the card."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from resformer.training.films import Workspace
from torch import nn

from benchmarks import ablation_training
from benchmarks.ablation_networks import VARIANTS, LastScaleAlone, Variant
from benchmarks.ablation_training import Bench, measure, prepare
from benchmarks.ablations import RECIPE, main
from benchmarks.baselines import WithoutLungs
from resformer.cli import main as run_command
from resformer.data.manifest import write_manifest
from resformer.data.masks import INFECTION_FOLDER, LUNGS_FOLDER
from resformer.evaluation.report import read_ablations
from resformer.evaluation.tables import render_ablations
from resformer.layers import EMPT, IMTM
from resformer.layers.simam import SimAM
from resformer.model import IdentityMappingResFormer, ResFormerConfig
from resformer.transforms import InputSpec
from tests.conftest import CLASS_NAMES
from tests.report_setup import report_arguments, tell_of_a_training
from tests.training_setup import TINY_TRAINING, split_by_number

QUICK = replace(
    RECIPE,
    **{
        name: getattr(TINY_TRAINING, name)
        for name in ("input_size", "batch_size", "warmup_epochs", "precision")
    },
    epochs=1,
    lung_epochs=1,
)
OURS = [v for v in VARIANTS if v.name.startswith("ours")]


def tiny(config: ResFormerConfig, variant: Variant) -> nn.Module:
    network = replace(config, lung_head=variant.lung_head, infection_head=variant.infection_head)
    torch.manual_seed(0)
    return variant.build(network).eval()


def variant(name: str) -> Variant:
    (found,) = (v for v in VARIANTS if v.name == name)
    return found


@pytest.fixture(scope="module")
def masked_folder(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drawn films, those of three classes with a circle as the mask of both regions."""
    root = tmp_path_factory.mktemp("masked") / "films"
    shutil.copytree(image_folder, root)
    mask = Image.new("L", (96, 96))
    ImageDraw.Draw(mask).ellipse((16, 16, 80, 80), fill=255)
    for name in CLASS_NAMES[:3]:
        for region in (LUNGS_FOLDER, INFECTION_FOLDER):
            (root / name / region).mkdir()
            for number in range(12):
                mask.save(root / name / region / f"{name}-{number}.png")
    return root


@pytest.fixture(scope="module")
def bench(
    tiny_config: ResFormerConfig, masked_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Bench:
    manifest = split_by_number(masked_folder)
    folder = tmp_path_factory.mktemp("bench")
    workspace = Workspace(masked_folder, manifest, folder, InputSpec(64), with_masks=True)
    return prepare(workspace, QUICK, tiny_config)


@pytest.fixture(scope="module")
def measured(bench: Bench) -> dict[str, dict[str, Any]]:
    """One variant of ours without heads, one of another recipe, and a stand-in for the others."""
    other = Variant(
        "another network",
        lambda config: WithoutLungs(
            nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16, config.num_classes))
        ),
        lung_head=False,
        infection_head=False,
    )
    chosen = [variant("ours without lung head"), variant("ours without style exchange"), other]
    return {each.name: measure(bench, each) for each in chosen}


@pytest.mark.parametrize("each", OURS, ids=lambda each: each.name)
def test_every_variant_of_ours_classifies(each: Variant, tiny_config: ResFormerConfig) -> None:
    model = tiny(tiny_config, each)
    images = torch.rand(2, 1, 64, 64)
    logits = model(images)
    assert logits.shape == (2, 4)
    if each.lung_head:
        same, lungs = model(images, return_lungs=True)
        assert torch.equal(same, logits)
        assert lungs.shape == (2, 1 + each.infection_head, 16, 16)


def test_every_variant_lacks_what_its_name_says(tiny_config: ResFormerConfig) -> None:
    def kinds(name: str) -> set[type]:
        return {type(module) for module in tiny(tiny_config, variant(name)).modules()}

    assert {SimAM, EMPT, IMTM} <= kinds("ours")
    assert kinds("ours without SimAM") & {SimAM, EMPT, IMTM} == {EMPT, IMTM}
    assert kinds("ours without EMPT") & {SimAM, EMPT, IMTM} == {SimAM, IMTM}
    assert kinds("ours without IMTM") & {SimAM, EMPT, IMTM} == {SimAM, EMPT}
    assert kinds("ours without EMPT and IMTM") & {SimAM, EMPT, IMTM} == {SimAM}
    assert variant("ours without background replacement").changes == {"background_replacement": 0.0}


def test_the_backbone_alone_is_the_identity_of_the_fusion(tiny_config: ResFormerConfig) -> None:
    model = tiny(tiny_config, variant("ours without EMPT and IMTM"))
    assert isinstance(model, IdentityMappingResFormer)
    features = model.backbone(torch.rand(1, 1, 64, 64))
    fused = model.fuse(features)
    assert all(torch.equal(f, x) for f, x in zip(fused, features, strict=True))


def test_pooling_the_last_scale_alone_reads_no_other(tiny_config: ResFormerConfig) -> None:
    model = tiny(tiny_config, variant("ours pooling f4 only"))
    assert isinstance(model, LastScaleAlone)
    features = model.forward_features(torch.rand(1, 1, 64, 64))
    lungs = model.lungs(features)
    first = model.classify(features, lungs)
    others = [torch.rand_like(f) for f in features[:3]]
    assert torch.equal(model.classify([*others, features[3]], lungs), first)
    assert not torch.equal(model.classify([*features[:3], 2 * features[3]], lungs), first)


def test_all_variants_have_the_same_films_epochs_and_recipe(
    measured: dict[str, dict[str, Any]], bench: Bench
) -> None:
    for found in measured.values():
        assert len(found["history"]) == found["epochs"] == 1
        assert found["data"] == bench.workspace.data_digest
        assert found["config"]["style_exchange"] == 0.5
        assert found["validation"]["count"] == 8
        assert set(found["lungs_blacked_out"]) == set(CLASS_NAMES)
        assert found["seconds"] > 0
    assert measured["ours without style exchange"]["changes"] == {"style_exchange": 0.0}
    assert measured["another network"]["parameters"] == 16 * 4 + 4


def test_the_predicted_lungs_are_black_in_the_films_that_the_variants_see(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def see_a_square(_: nn.Module, films: NDArray[np.uint8], __: InputSpec) -> NDArray[np.float32]:
        lungs = np.zeros((len(films), 16, 16), np.float32)
        lungs[:, 4:12, 4:12] = 1
        return lungs

    monkeypatch.setattr(ablation_training, "predict_lungs", see_a_square)
    black = prepare(bench.workspace, bench.recipe, bench.network).black
    whole = bench.workspace.evaluation_films("validation")
    assert black.films[:, 20:44, 20:44].max() == 0
    assert np.array_equal(black.films[:, :8], whole.films[:, :8])
    assert np.array_equal(black.labels, whole.labels)


def test_the_report_shows_them_if_they_were_measured_alike(
    measured: dict[str, dict[str, Any]],
    tiny_checkpoint: Path,
    image_folder: Path,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "ablations"
    folder.mkdir()
    for number, found in enumerate(measured.values()):
        (folder / f"{number}.json").write_text(json.dumps(found))
    model = tell_of_a_training(tiny_checkpoint, tmp_path / "model.pth")
    arguments = report_arguments(model, image_folder, tmp_path)
    assert run_command([*arguments, "--ablations", str(folder)]) == 0
    card = (tmp_path / "MODEL_CARD.md").read_text()
    assert render_ablations(read_ablations(folder)) in card
    assert "| another network | 68 | 0 | " in card
    longer = {**measured["another network"], "epochs": 2}
    (folder / "longer.json").write_text(json.dumps(longer))
    with pytest.raises(ValueError, match="differ in epochs: measure them alike"):
        read_ablations(folder)
    (folder / "longer.json").write_text("{}")
    with pytest.raises(ValueError, match="lacks epochs, data, config, name"):
        read_ablations(folder)


def test_the_command_measures_what_is_not_there(
    masked_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    write_manifest(split_by_number(masked_folder), tmp_path / "split.csv")
    arguments = [
        *("--data", str(masked_folder), "--manifest", str(tmp_path / "split.csv")),
        *("--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "out")),
        *("--epochs", "1", "--lung-epochs", "1", "--seed", "3"),
        *("--only", "ours without EMPT and IMTM"),
    ]
    threads = torch.get_num_threads()
    try:
        main(arguments)
        (path,) = (tmp_path / "out").iterdir()
        found = json.loads(path.read_text())
        assert path.name == "ours-without-empt-and-imtm.json"
        assert found["config"]["seed"] == 3
        assert found["validation"]["class_names"] == list(CLASS_NAMES)
        before = path.stat().st_mtime_ns
        main(arguments)
        assert path.stat().st_mtime_ns == before
        assert f"{found['name']}: {path} is there" in caplog.text
    finally:
        torch.set_num_threads(threads)
