"""Backends: PyTorch and ONNX Runtime answer alike, and the choice between them is clear."""

from __future__ import annotations

import copy
import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from resformer.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from resformer.inference import Predictor
from resformer.model import IdentityMappingResFormer, ResFormerConfig
from resformer.runtime.backend import choose_backend
from resformer.runtime.export import StretchAndNormalise, add_graph
from resformer.runtime.folding import fold_batch_norm
from resformer.transforms import InputSpec, normalise_pixels
from tests.conftest import CLASS_NAMES
from tests.phantom import draw_chest_phantom
from web.config import DEFAULT_MODEL

CPU = torch.device("cpu")
FILMS = [draw_chest_phantom(size, seed=size) for size in (64, 96, 150)]


@pytest.fixture(scope="module")
def exported(tiny_config: ResFormerConfig) -> Checkpoint:
    """A checkpoint with all optional parts of the network, and its graph."""
    config = replace(tiny_config, lung_head=True, infection_head=True)
    torch.manual_seed(0)
    model = IdentityMappingResFormer(config)
    model(torch.randn(8, 1, 64, 64))  # in training mode: batch normalisation has seen something
    return add_graph(Checkpoint(config, CLASS_NAMES, InputSpec(size=64), model.state_dict()))


def test_both_backends_give_the_same_probabilities(exported: Checkpoint) -> None:
    fast = Predictor(exported, "cpu", "onnxruntime")
    plain = Predictor(exported, "cpu", "torch")
    assert (fast.backend, plain.backend) == ("onnxruntime", "torch")
    for films in (FILMS, FILMS[:1], FILMS * 5):
        for ours, reference in zip(fast.predict(films), plain.predict(films), strict=True):
            assert ours.probabilities == pytest.approx(reference.probabilities, abs=1e-5)


def test_the_shipped_graph_is_the_shipped_network() -> None:
    shipped = load_checkpoint(DEFAULT_MODEL)
    if shipped.graph is None:
        pytest.skip("the shipped checkpoint holds no graph: python -m resformer export")
    plain, fast = (Predictor(shipped, "cpu", name) for name in ("torch", "onnxruntime"))
    for ours, reference in zip(fast.predict(FILMS), plain.predict(FILMS), strict=True):
        assert ours.probabilities == pytest.approx(reference.probabilities, abs=1e-3)
        if ours.gate and reference.gate:
            assert ours.gate.score == pytest.approx(reference.gate.score, abs=1e-3)


def test_both_backends_give_what_the_gate_looks_at(exported: Checkpoint) -> None:
    pixels = np.stack([draw_chest_phantom(64, seed=seed) for seed in range(3)])
    fast = choose_backend(exported, CPU, "onnxruntime").compute(pixels)
    plain = choose_backend(exported, CPU, "torch").compute(pixels)
    assert len(fast.blocks) == len(plain.blocks) == 5
    for ours, reference in zip(fast.blocks, plain.blocks, strict=True):
        torch.testing.assert_close(ours, reference, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("percentiles", [(1.0, 99.0), (0.0, 100.0), (2.3, 51.0)])
def test_the_graph_stretches_films_as_numpy_does(percentiles: tuple[float, float]) -> None:
    spec = InputSpec(64, *percentiles)
    even = np.full((64, 64), 77, np.uint8)
    for film in (FILMS[0], FILMS[0] // 4, even):
        stretched = StretchAndNormalise(spec)(torch.from_numpy(film)[None])[0, 0]
        np.testing.assert_allclose(stretched, normalise_pixels(film, spec), atol=1e-5)


def test_folding_leaves_the_network_what_it_is(exported: Checkpoint) -> None:
    model = exported.build_model()
    folded = fold_batch_norm(copy.deepcopy(model))
    assert not any(isinstance(unit, torch.nn.BatchNorm2d) for unit in folded.modules())
    images = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(folded(images), model(images), atol=1e-4, rtol=1e-4)


def test_a_network_in_training_is_not_folded() -> None:
    with pytest.raises(ValueError, match=r"call eval\(\) first"):
        fold_batch_norm(IdentityMappingResFormer())


def test_the_graph_survives_the_checkpoint_file(exported: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(exported, tmp_path / "model.pth")
    assert load_checkpoint(tmp_path / "model.pth").graph == exported.graph


def test_a_graph_of_other_weights_is_refused(exported: Checkpoint) -> None:
    other = {**exported.state_dict, "fc.bias": exported.state_dict["fc.bias"] + 1}
    with pytest.raises(CheckpointError, match="exported from other weights"):
        replace(exported, state_dict=other)


def test_onnx_runtime_is_taken_where_it_can_run(
    exported: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert choose_backend(exported, CPU).name == "onnxruntime"
    assert choose_backend(replace(exported, graph=None), CPU).name == "torch"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert choose_backend(exported, CPU).name == "torch"
    with pytest.raises(ValueError, match="pip install onnxruntime"):
        choose_backend(exported, CPU, "onnxruntime")


def test_a_graph_that_cannot_be_read_leaves_the_work_to_torch(exported: Checkpoint) -> None:
    assert exported.graph is not None
    broken = replace(exported, graph=replace(exported.graph, content=b"no graph"))
    assert choose_backend(broken, CPU).name == "torch"
    with pytest.raises(ValueError, match="refuses the graph"):
        choose_backend(broken, CPU, "onnxruntime")


def test_what_cannot_run_says_why(tiny_checkpoint: Path) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    with pytest.raises(ValueError, match="python -m resformer export"):
        choose_backend(checkpoint, CPU, "onnxruntime")
    with pytest.raises(ValueError, match="on the processor only"):
        choose_backend(checkpoint, torch.device("meta"), "onnxruntime")
    with pytest.raises(ValueError, match="unknown backend 'tensorrt'"):
        choose_backend(checkpoint, CPU, "tensorrt")
