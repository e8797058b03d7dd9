"""Training: it learns, is reproducible, can be stopped any time, and goes on from any weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from resformer.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from resformer.data.manifest import Manifest
from resformer.evaluation.metrics import evaluate_predictions
from resformer.model import IdentityMappingResFormer, ResFormerConfig
from resformer.predict import Predictor
from resformer.training.config import TrainingConfig
from resformer.training.data import TrainingData
from resformer.training.state import STATE_NAME, read_initial
from resformer.training.train import train
from resformer.transforms import InputSpec
from tests.data_sets import CLASS_NAMES, draw_lungs, write_masked_films
from tests.training_setup import (
    LUNG_TRAINING,
    TINY_TRAINING,
    interrupted_at,
    split_by_number,
    train_a_trial,
)


@pytest.fixture(scope="module")
def masked_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn films, those of three classes with an ellipse for each lung as their mask."""
    root = tmp_path_factory.mktemp("masked")
    write_masked_films(root, masked=3, darker=0.15)
    return root


@pytest.fixture(scope="module")
def plain(
    image_folder: Path, tiny_config: ResFormerConfig, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Checkpoint]:
    """A whole training without lungs, and its folder."""
    folder = tmp_path_factory.mktemp("plain")
    options = {"config": TINY_TRAINING, "trial": False}
    return folder, train_a_trial(image_folder, folder, tiny_config, **options)


@pytest.fixture(scope="module")
def with_lungs(
    masked_folder: Path, tiny_config: ResFormerConfig, tmp_path_factory: pytest.TempPathFactory
) -> Checkpoint:
    folder = tmp_path_factory.mktemp("lungs")
    return train_a_trial(masked_folder, folder, tiny_config, config=LUNG_TRAINING)


def _figures(checkpoint: Checkpoint) -> list[dict[str, Any]]:
    """Everything in the history that does not depend on the clock."""
    clock = {"seconds", "images_per_second", "total_seconds"}
    return [
        {k: v for k, v in entry.items() if k not in clock}
        for entry in checkpoint.training["history"]
    ]


def _assert_same(one: Checkpoint, other: Checkpoint) -> None:
    assert _figures(one) == _figures(other)
    for name, weight in one.state_dict.items():
        torch.testing.assert_close(other.state_dict[name], weight, rtol=0, atol=0)
    assert one.temperature == other.temperature
    assert one.metrics == other.metrics
    assert one.training.get("lungs") == other.training.get("lungs")


def test_the_loss_falls(image_folder: Path, tiny_config: ResFormerConfig, tmp_path: Path) -> None:
    config = replace(TINY_TRAINING, epochs=10, learning_rate=5e-3)
    trained = train_a_trial(image_folder, tmp_path, tiny_config, config=config)
    history = trained.training["history"]
    assert [entry["epoch"] for entry in history] == [*range(1, 11)]
    losses = [entry["train_loss"] for entry in history]
    assert sum(losses[5:]) < 0.97 * sum(losses[:5])


def test_the_checkpoint_tells_what_it_was_trained_on_and_how(
    plain: tuple[Path, Checkpoint], tmp_path: Path
) -> None:
    folder, trained = plain
    save_checkpoint(trained, tmp_path / "model.pth")
    checkpoint = load_checkpoint(tmp_path / "model.pth")
    assert checkpoint.training["films"] == {"train": 32, "validation": 8, "test": 8}
    assert checkpoint.training["config"]["seed"] == 0
    assert checkpoint.gate is not None
    assert checkpoint.abstention is not None
    record = checkpoint.metrics["track_record"]
    assert list(record) == list(checkpoint.class_names)
    assert sum(of_class["called"] for of_class in record.values()) <= 8
    history = checkpoint.training["history"]
    assert json.loads((folder / "history.json").read_text()) == history
    assert (folder / "history.png").read_bytes().startswith(b"\x89PNG")
    north, south = (history[0]["sources"][name] for name in ("north", "south"))
    assert (north["films"], south["films"]) == (6, 2)
    assert set(south["recall"]) == set(CLASS_NAMES[2:])
    scores = [entry["validation_score"] for entry in history]
    assert checkpoint.training["best_epoch"] == 1 + scores.index(max(scores))


def test_the_figures_are_those_that_are_served(
    plain: tuple[Path, Checkpoint], image_folder: Path
) -> None:
    _, trained = plain
    rows = split_by_number(image_folder).subset("test")
    films = [np.asarray(Image.open(image_folder / row.path)) for row in rows]
    served = Predictor(trained, "cpu").predict(films)
    probabilities = np.array([list(p.probabilities.values()) for p in served])
    labels = np.array([CLASS_NAMES.index(row.class_name) for row in rows])
    expected = evaluate_predictions(labels, probabilities, CLASS_NAMES, seed=0)
    assert trained.metrics["test"]["confusion_matrix"] == expected["confusion_matrix"]
    assert trained.metrics["test"]["macro_auc"] == pytest.approx(expected["macro_auc"])


def test_a_trial_leaves_the_test_split_alone(with_lungs: Checkpoint) -> None:
    assert list(with_lungs.metrics) == ["validation"]
    assert (with_lungs.gate, with_lungs.abstention) == (None, None)
    assert 0 < with_lungs.training["lungs"]["validation_dice"] <= 1


def test_a_seed_gives_one_result_however_many_workers_there_are(
    image_folder: Path,
    tiny_config: ResFormerConfig,
    plain: tuple[Path, Checkpoint],
    tmp_path: Path,
) -> None:
    def again(seed: int, workers: int) -> Checkpoint:
        config = replace(TINY_TRAINING, seed=seed, workers=workers)
        folder = tmp_path / f"{seed}-{workers}"
        return train_a_trial(image_folder, folder, tiny_config, config=config)

    assert _figures(again(0, workers=2)) == _figures(plain[1])
    assert _figures(again(1, workers=0)) != _figures(plain[1])


@pytest.mark.parametrize("line", ["lungs 1/2", "lungs 2/2", "epoch 1/2", "epoch 2/2"])
def test_stopped_anywhere_it_resumes_to_the_same_bits(
    masked_folder: Path,
    tiny_config: ResFormerConfig,
    with_lungs: Checkpoint,
    tmp_path: Path,
    line: str,
) -> None:
    """An epoch's line comes after its weights moved and before its state is written."""
    with interrupted_at(line):
        train_a_trial(masked_folder, tmp_path, tiny_config, config=LUNG_TRAINING)
    resume = line.startswith("epoch")
    resumed = train_a_trial(
        masked_folder, tmp_path, tiny_config, config=LUNG_TRAINING, resume=resume
    )
    _assert_same(with_lungs, resumed)


def test_a_finished_training_resumes_to_its_result_at_once(
    image_folder: Path, tiny_config: ResFormerConfig, tmp_path: Path
) -> None:
    first = train_a_trial(image_folder, tmp_path, tiny_config)
    again = train_a_trial(image_folder, tmp_path, tiny_config, resume=True)
    assert again.training["history"] == first.training["history"]
    _assert_same(first, again)


def test_a_training_is_never_overwritten_and_never_continued_by_mistake(
    image_folder: Path, tiny_config: ResFormerConfig, tmp_path: Path
) -> None:
    manifest = split_by_number(image_folder)

    def start(changed: Manifest = manifest, *, resume: bool, **options: Any) -> None:
        config = replace(TINY_TRAINING, epochs=1, **options)
        train_a_trial(
            image_folder, tmp_path, tiny_config, config=config, manifest=changed, resume=resume
        )

    with pytest.raises(FileNotFoundError, match="start without --resume"):
        start(resume=True)
    start(resume=False)
    with pytest.raises(FileExistsError, match="resume it"):
        start(resume=False)
    with pytest.raises(CheckpointError, match=r"learning_rate: 0\.0015 then, 0\.1 now"):
        start(resume=True, learning_rate=0.1)
    start(resume=True, workers=1)
    moved = tuple(replace(row, source="elsewhere") for row in manifest.rows)
    for other in (manifest.rows[::-1], moved):
        with pytest.raises(CheckpointError, match="another split"):
            start(replace(manifest, rows=other), resume=True)
    (tmp_path / STATE_NAME).write_bytes(b"cut off")
    with pytest.raises(CheckpointError, match="damaged"):
        start(resume=True)


def test_masks_that_changed_make_another_training(
    masked_folder: Path, tiny_config: ResFormerConfig, tmp_path: Path
) -> None:
    config = replace(LUNG_TRAINING, epochs=1, lung_epochs=1)
    train_a_trial(masked_folder, tmp_path, tiny_config, config=config)
    mask = masked_folder / "COVID" / "masks" / "COVID-0.png"
    data = mask.read_bytes()
    try:
        Image.new("L", (96, 96), 255).save(mask)
        with pytest.raises(CheckpointError, match="another split"):
            train_a_trial(masked_folder, tmp_path, tiny_config, config=config, resume=True)
    finally:
        mask.write_bytes(data)


def test_the_lungs_are_learnt_once_for_what_shapes_them_and_for_each_size(
    masked_folder: Path, tiny_config: ResFormerConfig, tmp_path: Path
) -> None:
    """Trainings that share a cache find there what they would compute alike."""

    def learn(name: str, **options: Any) -> tuple[int, int]:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "cache").symlink_to(tmp_path / "cache")
        (tmp_path / "cache").mkdir(exist_ok=True)
        config = replace(LUNG_TRAINING, epochs=1, lung_epochs=1, **options)
        train_a_trial(masked_folder, folder, tiny_config, config=config)
        cache = tmp_path / "cache"
        return len([*cache.glob("lungs-*.pt")]), len([*cache.glob("lungs-32x*.npy")])

    assert learn("first") == (1, 1)
    assert learn("later epochs", background_replacement=0.1, prior_smoothing=1.0) == (1, 1)
    assert learn("larger", input_size=96) == (2, 2)


def test_a_training_learns_outlines_boxes_and_healthy_films(
    tmp_path_factory: pytest.TempPathFactory, tiny_config: ResFormerConfig, tmp_path: Path
) -> None:
    root = tmp_path_factory.mktemp("infected")
    write_masked_films(root, masked=len(CLASS_NAMES))
    sick, boxed, healthy = CLASS_NAMES[:3]
    (root / sick / "infection masks").mkdir()
    right = np.arange(96) >= 48
    for number in range(6):
        infected = Image.fromarray(draw_lungs(96) & right)
        infected.save(root / sick / "infection masks" / f"{sick}-{number}.png")
    (root / "labels.csv").write_text(
        f"file,boxes\n{boxed}/images/{boxed}-0.png,0.25 0.5 0.75 1; 0 0 0.1 0.1\n"
    )
    manifest = split_by_number(root)
    data = TrainingData(root, manifest, tmp_path / "data", InputSpec(size=64))
    found = data.infection("train", healthy)
    known = {row.path: how for row, how in zip(manifest.subset("train"), found.known, strict=True)}
    assert known[f"{sick}/images/{sick}-0.png"] == 1
    assert known[f"{sick}/images/{sick}-7.png"] == 0
    assert known[f"{boxed}/images/{boxed}-0.png"] == 2
    assert known[f"{healthy}/images/{healthy}-0.png"] == 1
    index = [*known].index(f"{boxed}/images/{boxed}-0.png")
    expected = np.zeros((80, 80), np.uint8)
    expected[40:, 20:60] = expected[:8, :8] = 255
    np.testing.assert_array_equal(found.masks[index], expected)
    with pytest.raises(ValueError, match="healthy_class 'Health' is not one of the classes"):
        data.infection("train", "Health")

    config = replace(LUNG_TRAINING, epochs=1, infection_head=True, healthy_class=healthy)
    checkpoint = train_a_trial(root, tmp_path / "run", tiny_config, config=config)
    assert checkpoint.model_config.infection_head
    assert checkpoint.state_dict["lung_head.predict.weight"].shape[0] == 2
    assert checkpoint.state_dict["fc.weight"].shape[1] == 2 * sum(tiny_config.channels)


def test_the_input_grows_and_weights_of_a_smaller_one_are_not_kept(
    image_folder: Path, tiny_config: ResFormerConfig, tmp_path: Path
) -> None:
    config = replace(TINY_TRAINING, input_size=96, start_size=64, epochs=3)
    trained = train_a_trial(image_folder, tmp_path, tiny_config, config=config)
    assert [entry["input_size"] for entry in trained.training["history"]] == [64, 96, 96]
    assert trained.training["best_epoch"] > 1
    assert trained.input_spec.size == 96
    assert TrainingConfig(input_size=128, start_size=0).sizes == (128,)


def test_it_starts_from_the_weights_of_another_and_resumes_from_no_others(
    image_folder: Path, tiny_config: ResFormerConfig, plain: tuple[Path, Checkpoint], tmp_path: Path
) -> None:
    _, first = plain
    # So small a rate moves nothing: the average stays where it began.
    config = replace(TINY_TRAINING, epochs=1, learning_rate=1e-12)
    further = train_a_trial(image_folder, tmp_path, tiny_config, initial=first, config=config)
    for name, parameter in first.build_model().named_parameters():
        if name != "fc.bias":  # which the calibration shifts
            torch.testing.assert_close(further.state_dict[name], parameter, atol=1e-6, rtol=0)
    assert further.training["initial"] == first.training
    assert read_initial(tmp_path / STATE_NAME).training["initial"] == first.training
    with pytest.raises(CheckpointError, match="from other initial weights, or with lungs"):
        train_a_trial(image_folder, tmp_path, tiny_config, config=config, resume=True)


def test_the_state_of_a_stopped_training_gives_its_averaged_weights(
    plain: tuple[Path, Checkpoint], tiny_config: ResFormerConfig
) -> None:
    """The best epoch may be an earlier one: what is trained further is where the training stood."""
    state = plain[0] / STATE_NAME
    initial = read_initial(state)
    assert (initial.model_config, initial.class_names) == (tiny_config, CLASS_NAMES)
    assert initial.input_spec.size == 64
    assert len(initial.training["history"]) == initial.training["best_epoch"] == 3
    average = torch.load(state, weights_only=True)["average"]
    for name, weight in initial.build_model().state_dict().items():
        torch.testing.assert_close(weight, average[f"module.{name}"], rtol=0, atol=0)


def test_initial_weights_of_another_network_or_of_other_classes_are_refused(
    image_folder: Path, tiny_config: ResFormerConfig, plain: tuple[Path, Checkpoint], tmp_path: Path
) -> None:
    _, first = plain
    other = replace(tiny_config, dropout=0.5)
    with pytest.raises(ValueError, match="the initial weights are of the network"):
        train_a_trial(image_folder, tmp_path, other, initial=first)
    renamed = replace(first, class_names=("a", "b", "c", "d"))
    with pytest.raises(ValueError, match="the initial weights know a, b, c, d, the films are of"):
        train_a_trial(image_folder, tmp_path, tiny_config, initial=renamed)
    path = tmp_path / "model.pth"
    path.write_bytes(b"no checkpoint")
    with pytest.raises(CheckpointError, match="is damaged or is not a checkpoint"):
        read_initial(path)


def test_a_network_with_a_lung_head_goes_on_with_its_own_lungs(
    image_folder: Path, tiny_config: ResFormerConfig, plain: tuple[Path, Checkpoint], tmp_path: Path
) -> None:
    """No film of this folder has a mask, so the lungs could not be learned here."""
    network = replace(tiny_config, lung_head=True)
    weights = IdentityMappingResFormer(network).state_dict()
    initial = replace(
        plain[1], model_config=network, state_dict=weights, gate=None, abstention=None
    )
    config = replace(TINY_TRAINING, epochs=1, lung_head=True, background_replacement=1.0)
    further = train(
        image_folder,
        split_by_number(image_folder),
        config,
        tmp_path,
        initial=initial,
        trial=True,
        progress=False,
    )
    assert further.model_config.lung_head
    assert [*(tmp_path / "cache").glob("lungs-*.pt")] == []
