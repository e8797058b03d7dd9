"""What a GPU changes: the same tests on the processor, and marked ``gpu`` on a card."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from benchmarks import gpu
from benchmarks.network import OURS
from benchmarks.training import RESNET
from resformer.checkpoint import load_checkpoint
from resformer.export import add_graph
from resformer.model import ResFormerConfig
from resformer.phantom import draw_chest_phantom
from resformer.predict import Predictor
from resformer.training import epoch
from resformer.training.data import build_loader
from resformer.training.distributed import ProcessGroup
from resformer.training.epoch import build_learner, build_loss, train_one_epoch
from resformer.training.timing import draw_films
from tests.training_setup import LUNG_TRAINING


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    """A processor, and a GPU where there is one."""
    name: str = request.param
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU to test with")
    return name


def test_every_device_gives_a_film_the_same_answer(device: str, tiny_checkpoint: Path) -> None:
    films = [draw_chest_phantom(64 + number, seed=number) for number in range(40)]
    expected = Predictor.from_file(tiny_checkpoint, "cpu", "torch").predict(films)
    found = Predictor.from_file(tiny_checkpoint, device).predict(films)
    for one, other in zip(found, expected, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)


@pytest.mark.gpu
def test_onnx_runtime_computes_the_same_on_a_gpu(tiny_checkpoint: Path) -> None:
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("ONNX Runtime was installed without CUDA")
    checkpoint = add_graph(load_checkpoint(tiny_checkpoint))
    ours = Predictor(checkpoint, "cuda", "onnxruntime")
    reference = Predictor(checkpoint, "cpu", "torch")
    films = [np.asarray(draw_chest_phantom(64, seed=number)) for number in range(8)]
    for one, other in zip(ours.predict(films), reference.predict(films), strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)


def test_a_compiled_network_learns_as_one_that_is_not(
    device: str, tiny_config: ResFormerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a processor the network is traced, and not compiled: that would take a minute."""
    group = ProcessGroup(0, 1, torch.device(device))
    network = replace(tiny_config, lung_head=True)
    config = replace(LUNG_TRAINING, precision="float32", device=device, batch_size=4)
    films = draw_films(4, 64, network.num_classes, config)
    losses = {}
    for compiled in (False, True):
        monkeypatch.setattr(epoch, "can_compile", lambda _, compiled=compiled: compiled)
        if device == "cpu":
            monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
        loader = build_loader(films, config, group)
        loss = build_loss(network, config)
        made = build_learner(loss, len(loader), network, config, group)
        assert all("_orig_mod" not in name for name in made.averaged_weights())
        figures = train_one_epoch(made, loader, group, label="", progress=False)
        losses[compiled] = figures["train_loss"]
    assert losses[True] == pytest.approx(losses[False], rel=1e-3)


def test_the_script_for_a_gpu_runs(device: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "gpu.md"
    gpu.main(
        f"--model {tiny_checkpoint} --out {out} --device {device} --batch 4 --films 8 "
        "--epochs 1 --workers 0 --seconds 0.01 --matrix 64 --without-tests".split()
    )
    rows = [line.strip("| ").split(" | ") for line in out.read_text().splitlines() if "%" in line]
    names = {(what, name) for what, name, *_ in rows}
    wanted = {(what, name) for what in ("answered", "trained") for name in (OURS, RESNET)}
    assert wanted <= names
    assert all(float(rate) > 0 for *_, rate, _ in rows)
