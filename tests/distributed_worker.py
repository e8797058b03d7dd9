"""Run under torchrun by the tests: trains an epoch and notes what this process saw.

Arguments: the folder of films and the folder for the notes.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import torch

from resformer.model import ResFormerConfig
from resformer.training.distributed import join_processes
from resformer.training.films import Workspace
from resformer.training.learner import build_learner, build_loader, build_loss, train_epoch
from resformer.transforms import InputSpec
from tests.training_setup import TINY_TRAINING, split_by_number


def main(images: Path, notes: Path) -> None:
    """Train one epoch together and write the films seen and a hash of the weights."""
    network = ResFormerConfig(channels=(8, 8, 8, 8), num_heads=(1, 1, 1, 1), fusion_dim=8)
    with join_processes(torch.device("cpu")) as group:
        space = Workspace(images, split_by_number(images), notes, InputSpec(size=64))
        if group.is_main:
            space.training_films(0)
        group.from_main(None)
        films = space.training_films(0)
        loader = build_loader(films, TINY_TRAINING, group)
        loss = build_loss(films, network, TINY_TRAINING)
        learner = build_learner(loss, len(loader), network, TINY_TRAINING, group)
        train_epoch(learner, loader, group, label="epoch", progress=False)
        weights = torch.cat([p.detach().flatten() for p in learner.average.module.parameters()])
        note = {
            "seen": [index for _, index in loader.sampler],
            "batches": len(loader),
            "weights": hashlib.sha256(weights.numpy().tobytes()).hexdigest(),
        }
        (notes / f"rank-{group.rank}.json").write_text(json.dumps(note))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
