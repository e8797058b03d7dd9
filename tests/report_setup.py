"""A report of a tiny network on drawn films, for what is rendered from it."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from PIL import Image

from resformer.checkpoint import load_checkpoint, save_checkpoint
from resformer.data.manifest import write_manifest
from resformer.phantom import draw_chest_phantom
from tests.training_setup import TINY_TRAINING, split_by_number

FINDINGS = ("No finding", "COVID-19", "Tuberculosis")


def tell_of_a_training(checkpoint: Path, path: Path) -> Path:
    """Copy a checkpoint as if it came from a training of two epochs with 48 films."""
    entry = {
        "train_loss": 1.0,
        "seconds": 90.0,
        "validation_loss": 1.1,
        "validation_accuracy": 0.5,
        "validation_macro_f1": 0.4,
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
