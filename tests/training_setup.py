"""A training small enough for a test, how to interrupt it, and a report of a tiny network."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from resformer.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from resformer.data.manifest import Manifest, ManifestRow, write_manifest
from resformer.model import ResFormerConfig
from resformer.phantom import draw_chest_phantom
from resformer.training.config import RECIPES
from resformer.training.train import train
from tests.data_sets import CLASS_NAMES

TINY_TRAINING = replace(
    RECIPES["bare"],
    input_size=64,
    start_size=0,
    epochs=3,
    batch_size=8,
    workers=0,
    warmup_epochs=0.5,
    learning_rate=1.5e-3,
    precision="float32",
    device="cpu",
)

FINDINGS = ("No finding", "COVID-19", "Tuberculosis")
LUNG_TRAINING = replace(
    TINY_TRAINING,
    epochs=2,
    lung_head=True,
    lung_epochs=2,
    background_replacement=0.7,
    lung_concealment=0.2,
    prior_smoothing=0.2,
    optimizer="muon",
    augmentation="strongest",
)


def split_by_number(root: Path) -> Manifest:
    """Give 8 films of each class to training, 2 to validation and 2 to the test split.

    The first two classes come from one source, the others from two in turns.
    """
    splits = ["train"] * 8 + ["validation"] * 2 + ["test"] * 2
    rows: list[ManifestRow] = []
    for index, name in enumerate(CLASS_NAMES):
        for path in sorted((root / name / "images").iterdir()):
            number = int(path.stem.rsplit("-", 1)[1])
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            relative = path.relative_to(root).as_posix()
            source = "north" if index < 2 or number % 2 else "south"
            rows.append(ManifestRow(relative, name, len(rows), splits[number], digest, source))
    return Manifest(CLASS_NAMES, tuple(rows), ())


def train_a_trial(root: Path, folder: Path, network: ResFormerConfig, **options: Any) -> Checkpoint:
    """Train for an epoch, or as ``config`` says; other options are those of ``train``."""
    config = options.pop("config", replace(TINY_TRAINING, epochs=1))
    manifest = options.pop("manifest", None) or split_by_number(root)
    given = {"model_config": network, "trial": True, "progress": False, **options}
    return train(root, manifest, config, folder, **given)


@contextmanager
def interrupted_at(beginning: str) -> Iterator[None]:
    """Interrupt what a user would interrupt when the log says a line that begins like this."""

    class Stop(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith(beginning):
                raise KeyboardInterrupt

    logger, handler = logging.getLogger("resformer.training"), Stop()
    former = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(former)


def tell_of_a_training(checkpoint: Path, path: Path) -> Path:
    """Copy a checkpoint as if it came from a training of two epochs with 48 films."""
    entry = {
        "train_loss": 1.0,
        "seconds": 90.0,
        "validation_loss": 1.1,
        "validation_accuracy": 0.5,
        "validation_macro_f1": 0.4,
        "validation_score": 0.4,
        "score": "macro-F1",
    }
    training = {
        "config": asdict(TINY_TRAINING),
        "best_epoch": 2,
        "history": [{"epoch": epoch, **entry} for epoch in (1, 2)],
        "films": {"train": 32, "validation": 8, "test": 8},
        "data_digest": "drawn",
    }
    save_checkpoint(replace(load_checkpoint(checkpoint), training=training), path)
    return path


def write_external(folder: Path) -> Path:
    """Draw one film of each finding, in a set of its own."""
    rows = ["set,file,finding"]
    for number, finding in enumerate(FINDINGS):
        (folder / f"set-{number}").mkdir(parents=True)
        film = Image.fromarray(draw_chest_phantom(96, seed=number))
        film.save(folder / f"set-{number}" / "film.png")
        rows.append(f"set-{number},film.png,{finding}")
    (folder / "labels.csv").write_text("\n".join(rows))
    return folder


def report_arguments(model: Path, data: Path, folder: Path) -> list[str]:
    """Write the split and the external films into a folder; arguments of the command."""
    folder.mkdir(exist_ok=True)
    manifest = split_by_number(data)
    rows = tuple(
        replace(row, source="clinic", reading="Negative" if row.class_name == "COVID" else "")
        for row in manifest.rows
    )
    write_manifest(replace(manifest, rows=rows), folder / "split.csv")
    external = write_external(folder / "external")
    return [
        *("report", "--model", str(model), "--data", str(data), "--device", "cpu"),
        *("--manifest", str(folder / "split.csv"), "--external", str(external)),
        *("--bootstrap", "20", "--out", str(folder)),
    ]
