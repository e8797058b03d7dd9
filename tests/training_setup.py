"""A training small enough for a test: 48 drawn films, a tiny network."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from resformer.checkpoint import Checkpoint
from resformer.data.manifest import Manifest, ManifestRow
from resformer.model import ResFormerConfig
from resformer.training.config import TrainingConfig
from resformer.training.train import train
from tests.conftest import CLASS_NAMES

TINY_TRAINING = TrainingConfig(
    input_size=64,
    epochs=3,
    batch_size=8,
    workers=0,
    warmup_epochs=0.5,
    precision="float32",
    device="cpu",
)

LUNG_TRAINING = replace(
    TINY_TRAINING,
    epochs=2,
    lung_head=True,
    lung_epochs=2,
    background_replacement=0.7,
    lung_concealment=0.2,
    optimizer="muon",
    augmentation="strong",
    source_balance=0.5,
    foreign_share=0.5,
)


def split_by_number(root: Path) -> Manifest:
    """Give 8 films of each class to training, 2 to validation and 2 to the test split."""
    splits = ["train"] * 8 + ["validation"] * 2 + ["test"] * 2
    rows: list[ManifestRow] = []
    for name in CLASS_NAMES:
        for path in sorted((root / name / "images").iterdir()):
            number = int(path.stem.rsplit("-", 1)[1])
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            relative = path.relative_to(root).as_posix()
            rows.append(ManifestRow(relative, name, len(rows), splits[number], digest))
    return Manifest(CLASS_NAMES, tuple(rows), ())


def train_a_trial(root: Path, folder: Path, network: ResFormerConfig, **options: Any) -> Checkpoint:
    """Train for an epoch, or as ``config`` says; other options are those of ``train``."""
    config = options.pop("config", replace(TINY_TRAINING, epochs=1))
    return train(
        *(root, split_by_number(root), config, folder),
        model_config=network,
        trial=True,
        progress=False,
        **options,
    )
