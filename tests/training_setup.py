"""A training small enough for a test: 48 drawn films, a tiny network; and how to interrupt it."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from resformer.checkpoint import Checkpoint
from resformer.data.manifest import Manifest, ManifestRow
from resformer.model import ResFormerConfig
from resformer.training.config import RECIPES
from resformer.training.train import train
from tests.conftest import CLASS_NAMES

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

LUNG_TRAINING = replace(
    TINY_TRAINING,
    epochs=2,
    lung_head=True,
    lung_epochs=2,
    background_replacement=0.7,
    lung_concealment=0.2,
    prior_smoothing=0.2,
    optimizer="muon",
    augmentation="strong",
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
