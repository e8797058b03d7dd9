"""``python -m resformer train``: recipes, what the data cannot teach, what is not overwritten."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock
from PIL import Image

from resformer.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from resformer.cli import build_parser, main
from resformer.cli.train import read_config
from resformer.model import IdentityMappingResFormer, ResFormerConfig
from resformer.phantom import draw_chest_phantom
from resformer.training.config import RECIPES, TrainingConfig
from resformer.transforms import InputSpec
from tests.data_sets import CLASS_NAMES, draw_lungs, write_data_set, write_masked_films

ROOT = Path(__file__).parent.parent
# Drawn films look so much alike that many would be near-duplicates.
SMALL = (
    *("--epochs", "1", "--batch-size", "16", "--input-size", "64", "--start-size", "0"),
    *("--workers", "0", "--device", "cpu", "--duplicate-threshold", "1.1"),
)
QUICK = (*SMALL, "--recipe", "quick", "--lung-epochs", "1", "--trial")
BARE = (*SMALL, "--recipe", "bare", "--trial")


@pytest.fixture(autouse=True)
def _talkative(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")


def read(*arguments: str) -> TrainingConfig:
    return read_config(build_parser().parse_args(["train", "--data", "films", *arguments]))


def start(folder: Path, run: Path, *options: str) -> int:
    return main(["train", "--data", str(folder), "--run-dir", str(run), *options])


def test_the_default_is_the_recommended_recipe() -> None:
    assert read() == RECIPES["recommended"] == TrainingConfig()
    for name, recipe in RECIPES.items():
        assert read("--recipe", name) == recipe
    assert read("--recipe", "bare", "--epochs", "3") == replace(RECIPES["bare"], epochs=3)
    assert not read("--no-lung-head").background_replacement
    baseline = read("--network", "resnet18")
    assert (baseline.network, baseline.lung_head, baseline.style_exchange) == (
        *("resnet18", False),
        RECIPES["recommended"].style_exchange,
    )


@pytest.mark.parametrize(
    "wrong", [("--recipe", "best"), ("--optimizer", "sgd"), ("--network", "vgg")]
)
def test_a_choice_is_checked_before_anything_is_read(
    wrong: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        read(*wrong)
    assert stop.value.code == 2
    assert "invalid choice" in capsys.readouterr().err


def test_masks_are_used_and_a_file_is_replaced_only_when_told_to(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    films, run = tmp_path / "films", tmp_path / "run"
    films.mkdir()
    write_masked_films(films, masked=3, darker=0.15)
    assert start(films, run, *QUICK, "--epochs", "2") == 0
    model = run / "model.pth"
    checkpoint = load_checkpoint(model)
    assert checkpoint.model_config.lung_head
    assert not checkpoint.model_config.infection_head
    assert "no infection head is trained" in caplog.text
    assert "epoch 1/2: loss" in caplog.text
    epochs = [line for line in caplog.text.splitlines() if "epoch " in line and ": loss" in line]
    assert [line.rpartition("; ")[2] for line in epochs] == [
        *("less than a minute left", "the epochs are done")
    ]
    assert "fitting the calibration" in caplog.text
    assert "validation accuracy after calibration: " in caplog.text
    history = json.loads((run / "history.json").read_text())
    assert history == checkpoint.training["history"]
    assert {path.name for path in run.iterdir()} >= {
        *("history.png", "metrics.json", "manifest.csv", "confusion_matrix_validation.png")
    }
    before = model.read_bytes()
    again = (*QUICK, "--epochs", "2", "--resume")
    assert start(films, run, *again) == 1
    assert f"{model} is there already: pass --overwrite" in caplog.text
    assert model.read_bytes() == before
    assert start(films, run, *again, "--overwrite") == 0


def test_what_was_found_is_shown_before_the_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    films = write_data_set(tmp_path / "clinic", {"Healthy": 10, "Sick": 4})
    (films / "Sick" / "masks").mkdir()
    (films / "Sick" / "infection masks").mkdir()
    for folder, number in (("masks", 0), ("masks", 1), ("infection masks", 3)):
        mask = films / "Sick" / folder / f"Sick-{number:03d}.png"
        Image.fromarray(draw_lungs(128)).save(mask)
    rows = ["file,patient,source", *(f"Healthy-00{n}.png,{n // 2},ward" for n in range(4))]
    (films / "labels.csv").write_text("\n".join(rows))
    # An outlier that is not there ends it before the first epoch.
    outliers = ("--outliers", str(tmp_path / "absent"))
    for recipe in ("quick", "bare", "recommended"):
        caplog.clear()
        run = tmp_path / recipe
        assert start(films, run, "--recipe", recipe, "--device", "cpu", *outliers) == 1
        header, healthy, sick, everything, sources, patients = caplog.text.partition(
            "films of each class:\n"
        )[2].splitlines()[:6]
        assert re.split(" {2,}", header.strip()) == [
            *("train", "validation", "test", "lung masks", "infection masks", "boxes")
        ]
        splits = [
            sum(f",{name}," in line for line in (run / "manifest.csv").read_text().splitlines())
            for name in ("train", "validation", "test")
        ]
        assert healthy.split()[4:] == ["0", "0", "0"]
        assert sum(map(int, healthy.split()[1:4])) == 10
        assert (sick.split()[0], sick.split()[4:]) == ("Sick", ["2", "1", "0"])
        assert everything.split() == ["all", *map(str, splits), "2", "1", "0"]
        assert sources == "sources: clinic 10, ward 4"
        assert patients == "patients: 2 named, on 4 of 14 films"


def test_a_training_that_learns_nothing_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    films = write_data_set(tmp_path / "films", {"Normal": 48, "Sick": 32})
    for number, options in enumerate(((), ("--network", "mobilenet_v3_small"))):
        caplog.clear()
        run = tmp_path / str(number)
        assert start(films, run, *BARE, "--learning-rate", "1e-9", *options) == 0
        assert re.search(r"(no|not clearly) better than always naming \w+, on \d+", caplog.text)


def test_labels_may_name_films_without_their_folders(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One of these films is left out for its reading, and others are not trained on."""
    films = tmp_path / "films"
    write_masked_films(films, masked=4, darker=0.15)
    rows = [
        f"COVID-{n}.png,0.2 0.3 0.4 0.6,{'Negative' if n < 4 else 'Typical'}" for n in range(12)
    ]
    (films / "labels.csv").write_text("\n".join(["file,boxes,reading", *rows]))
    assert start(films, tmp_path / "run", *QUICK) == 0, caplog.text
    assert "whose reading contradicts their class" in caplog.text
    assert load_checkpoint(tmp_path / "run" / "model.pth").model_config.infection_head


def test_without_masks_another_network_draws_the_lungs(
    image_folder: Path,
    tiny_config: ResFormerConfig,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    network = replace(tiny_config, lung_head=True)
    weights = IdentityMappingResFormer(network).state_dict()
    lung_model = tmp_path / "lung_model.pth"
    save_checkpoint(Checkpoint(network, CLASS_NAMES, InputSpec(size=64), weights), lung_model)
    assert start(image_folder, tmp_path / "run", *QUICK, "--lung-model", str(lung_model)) == 0
    assert "another network draws the lungs" in caplog.text
    assert load_checkpoint(tmp_path / "run" / "model.pth").model_config.lung_head


def test_without_masks_and_lung_model_it_trains_without_lungs_and_says_so_loudly(
    image_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(
        "resformer.training.lung_stage.find_shipped_model", lambda: tmp_path / "absent.pth"
    )
    assert start(image_folder, tmp_path / "run", *QUICK) == 0
    assert "NO LUNGS: no training film has a lung mask" in caplog.text
    assert not load_checkpoint(tmp_path / "run" / "model.pth").model_config.lung_head


def test_a_data_set_of_other_classes_needs_no_healthy_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    films = tmp_path / "films"
    for index, name in enumerate(("Fibrosis", "Oedema")):
        for folder in ("images", "masks", "infection masks"):
            (films / name / folder).mkdir(parents=True)
            for number in range(8):
                film = draw_chest_phantom(96, seed=50 * index + number)
                shown = film if folder == "images" else draw_lungs(96)
                Image.fromarray(shown).save(films / name / folder / f"{name}-{number}.png")
    assert start(films, tmp_path / "run", *QUICK) == 0
    assert "there is no class 'Normal'" in caplog.text
    checkpoint = load_checkpoint(tmp_path / "run" / "model.pth")
    assert checkpoint.model_config.infection_head
    assert start(films, tmp_path / "other", *QUICK, "--healthy-class", "Health") == 1
    assert "is not one of the classes: choose one of Fibrosis, Oedema" in caplog.text


def test_a_checkpoint_is_trained_further_whatever_its_network(
    image_folder: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert start(image_folder, run, *QUICK, "--initial", str(tiny_checkpoint)) == 0
    further, first = (load_checkpoint(path) for path in (run / "model.pth", tiny_checkpoint))
    assert further.model_config == first.model_config


def test_a_baseline_is_trained_in_the_same_loop_and_reported_but_not_served(
    image_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    assert start(image_folder, run, *BARE, "--network", "mobilenet_v3_small") == 0
    assert "no checkpoint is written" in caplog.text
    assert not list(run.glob("*.pth"))
    found = json.loads((run / "baseline.json").read_text())
    assert found["metrics"] == json.loads((run / "metrics.json").read_text())
    assert found["config"]["network"] == "mobilenet_v3_small"
    assert [entry["epoch"] for entry in found["history"]] == [1]
    again = (*BARE, "--network", "mobilenet_v3_small", "--resume")
    split, other = (run / "manifest.csv").read_text(), tmp_path / "other.csv"
    other.write_text(
        split.replace(",test,", ",t,").replace(",train,", ",test,").replace(",t,", ",train,")
    )
    assert start(image_folder, run, *again, "--manifest", str(other)) == 1
    assert "was trained on another split" in caplog.text
    assert start(image_folder, run, *again) == 0
    assert json.loads((run / "baseline.json").read_text()) == found
    assert start(image_folder, tmp_path / "new", *BARE, "--initial", str(run / "last.pt")) == 1
    assert "last.pt is of mobilenet_v3_small, not of resformer" in caplog.text


def test_a_class_of_too_few_films_is_refused_with_the_option_that_may_help(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    films = write_data_set(tmp_path / "films", {"Normal": 6, "Rare": 2})
    assert start(films, tmp_path / "run", *BARE) == 1
    assert "the class 'Rare' has only 2 independent groups of films (near-dup" in caplog.text
    assert "at least 3 are needed" in caplog.text
    assert "raise duplicate_threshold (--duplicate-threshold)" in caplog.text


def test_two_trainings_do_not_share_a_folder(
    image_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with FileLock(tmp_path / ".lock"):
        assert start(image_folder, tmp_path, *BARE) == 1
    assert f"another training writes to {tmp_path}" in caplog.text
    assert not (tmp_path / "manifest.csv").exists()


def test_a_place_that_cannot_be_written_to_is_noticed_first(
    image_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, file = tmp_path / "run", tmp_path / "file"
    file.touch()
    for out in (file / "model.pth", tmp_path):
        assert start(image_folder, run, *BARE, "--out", str(out)) == 1
    assert "cannot write" in caplog.text
    assert f"{tmp_path} is a folder: name a file" in caplog.text
    assert not (run / "manifest.csv").exists()


@pytest.mark.parametrize("megabytes", [1, 140])
def test_a_full_disk_is_one_line(image_folder: Path, tmp_path: Path, megabytes: int) -> None:
    """A bound on the size of files stands for the disk: in the first case before, then midway."""

    def bound() -> None:
        limit = megabytes * 2**20
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    run = tmp_path / "run"
    command = [sys.executable, "-m", "resformer", "train", "--data", str(image_folder)]
    # Optimiser, averages and weights of this one do not fit.
    network = ("--network", "resnet18", "--optimizer", "adamw") if megabytes > 1 else ()
    done = subprocess.run(
        [*command, "--run-dir", str(run), *BARE, *network],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        preexec_fn=bound,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: "), done.stderr
    assert "Traceback" not in done.stderr


def test_tensorboard_gets_the_figures_of_each_epoch(image_folder: Path, tmp_path: Path) -> None:
    assert start(image_folder, tmp_path, *BARE, "--tensorboard") == 0
    assert list((tmp_path / "tensorboard").iterdir())
