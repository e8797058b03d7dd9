"""Several processes under torchrun: the same data seen, the same weights, one writer."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from resformer.checkpoint import load_checkpoint
from resformer.data.dataset import EpochSampler
from resformer.model import ResFormerConfig
from resformer.training.data import TrainingData, build_loader, build_training_films
from resformer.training.distributed import join_processes
from resformer.training.epoch import begin_epoch, build_learner, build_loss, train_one_epoch
from resformer.transforms import InputSpec
from tests.training_setup import TINY_TRAINING, split_by_number

ROOT = Path(__file__).parent.parent


def _torchrun(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return subprocess.run(
        [*command, "--nproc-per-node", "2", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_the_processes_share_every_film_once_an_epoch(world_size: int) -> None:
    samplers = [EpochSampler(30, seed=5, rank=r, world_size=world_size) for r in range(world_size)]
    orders = []
    for epoch in (0, 1):
        for sampler in samplers:
            sampler.set_epoch(epoch)
        keys = [key for sampler in samplers for key in sampler]
        assert {seen for seen, _ in keys} == {epoch}
        assert sorted(index for _, index in keys) == list(range(30))
        orders.append([index for _, index in keys])
    assert orders[0] != orders[1]


def test_two_processes_see_all_films_and_end_with_the_same_weights(
    image_folder: Path, tmp_path: Path
) -> None:
    result = _torchrun("-m", "tests.test_distributed", image_folder, tmp_path)
    assert result.returncode == 0, result.stderr
    notes = [json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in (0, 1)]
    assert sorted(notes[0]["seen"] + notes[1]["seen"]) == list(range(32))
    assert notes[0]["batches"] == notes[1]["batches"] == 4
    assert notes[0]["weights"] == notes[1]["weights"]


def test_the_command_line_trains_with_two_processes_and_writes_once(
    image_folder: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    options = (
        *("--recipe", "bare", "--start-size", "0", "--epochs", "1", "--batch-size", "8"),
        *("--input-size", "64", "--workers", "0", "--device", "cpu"),
    )
    result = _torchrun(
        "-m", "resformer", "train", "--data", image_folder, "--run-dir", run, *options
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("wrote ") == 1
    checkpoint = load_checkpoint(run / "model.pth")
    assert sum(checkpoint.training["films"].values()) == 48
    assert {path.name for path in run.iterdir()} >= {"manifest.csv", "last.pt", "metrics.json"}


def test_the_python_api_trains_with_two_processes_and_writes_once(
    image_folder: Path, tmp_path: Path
) -> None:
    run, other, script = tmp_path / "run", tmp_path / "other", tmp_path / "train_together.py"
    script.write_text(
        "import logging, os, time\nimport resformer\n\n"
        'logging.basicConfig(level="INFO")\n'
        f"data = resformer.open_dataset({str(image_folder)!r})\n"
        f"resformer.train(data, recipe='bare', run_dir={str(run)!r}, start_size=0, epochs=1, "
        "batch_size=8, input_size=64, workers=0, device='cpu', progress=False)\n"
        # One is late for the second training, as happens.
        "time.sleep(float(os.environ['RANK']))\n"
        f"resformer.train_baseline(data, 'mobilenet_v3_small', run_dir={str(other)!r}, "
        "recipe='bare', start_size=0, epochs=1, batch_size=8, input_size=64, workers=0, "
        "device='cpu', resume='auto', progress=False)\n"
    )
    result = _torchrun(script)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("model.pth") == result.stderr.count("baseline.json") == 1
    assert sum(load_checkpoint(run / "model.pth").training["films"].values()) == 48
    assert (other / "manifest.csv").read_bytes() == (run / "manifest.csv").read_bytes()
    assert json.loads((other / "history.json").read_text())[0]["processes"] == 2


def main(images: Path, notes: Path) -> None:
    """Train one epoch together, and write the films that this process saw and its weights' hash."""
    network = ResFormerConfig(channels=(8, 8, 8, 8), num_heads=(1, 1, 1, 1), fusion_dim=8)
    data = TrainingData(images, split_by_number(images), notes, InputSpec(size=64))
    group = join_processes(torch.device("cpu"))
    if group.is_main:
        data.training_films()
    group.wait()
    loader = build_loader(build_training_films(data, TINY_TRAINING), TINY_TRAINING, group)
    loss = build_loss(network, TINY_TRAINING)
    learner = build_learner(loss, len(loader), network, TINY_TRAINING, group)
    begin_epoch(0, loader, TINY_TRAINING, group)
    train_one_epoch(learner, loader, group, label="epoch", progress=False)
    weights = torch.cat([p.detach().flatten() for p in learner.average.module.parameters()])
    note = {
        "seen": [index for _, index in loader.sampler],
        "batches": len(loader),
        "weights": hashlib.sha256(weights.numpy().tobytes()).hexdigest(),
    }
    (notes / f"rank-{group.rank}.json").write_text(json.dumps(note))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
