"""Several processes under torchrun: the same data seen, the same weights, one writer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from resformer.checkpoint import load_checkpoint
from resformer.data.dataset import EpochSampler

ROOT = Path(__file__).parent.parent


def _torchrun(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return subprocess.run(
        [*command, "--nproc-per-node", "2", "-m", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
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
    result = _torchrun("tests.distributed_worker", image_folder, tmp_path)
    assert result.returncode == 0, result.stderr
    notes = [json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in (0, 1)]
    assert sorted(notes[0]["seen"] + notes[1]["seen"]) == list(range(32))
    assert notes[0]["batches"] == notes[1]["batches"] == 4
    assert notes[0]["weights"] == notes[1]["weights"]


def test_the_command_line_trains_with_two_processes_and_writes_once(
    image_folder: Path, tmp_path: Path
) -> None:
    out, run = tmp_path / "best_model.pth", tmp_path / "run"
    options = ("--epochs", "1", "--batch-size", "8", "--input-size", "64", "--workers", "0")
    result = _torchrun(
        "resformer",
        "train",
        "--data",
        image_folder,
        "--out",
        out,
        "--run-dir",
        run,
        *options,
        "--device",
        "cpu",
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("wrote ") == 1
    checkpoint = load_checkpoint(out)
    assert sum(checkpoint.training["films"].values()) == 48
    assert {path.name for path in run.iterdir()} >= {"manifest.csv", "last.pt", "metrics.json"}
