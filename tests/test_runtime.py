"""Backends: PyTorch and ONNX Runtime answer alike, and the choice between them is clear."""

from __future__ import annotations

import copy
import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from resformer.abstention import Abstention
from resformer.backends import NetworkOutputs, choose_backend, fold_batch_norm, run_network
from resformer.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from resformer.export import StretchAndNormalise, add_graph
from resformer.model import IdentityMappingResFormer, ResFormerConfig
from resformer.predict import Predictor
from resformer.transforms import InputSpec, normalise_pixels, to_input
from tests.conftest import CLASS_NAMES
from tests.phantom import draw_chest_phantom
from web.config import DEFAULT_MODEL

CPU = torch.device("cpu")
PIXELS = np.stack([draw_chest_phantom(64, seed=seed) for seed in range(3)])
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


def test_both_backends_give_the_same_in_one_pass(exported: Checkpoint) -> None:
    fast = choose_backend(exported, CPU, "onnxruntime").compute(PIXELS)
    plain = choose_backend(exported, CPU, "torch").compute(PIXELS)
    assert len(fast.blocks) == len(plain.blocks) == 5
    assert plain.pooled is not None
    assert plain.lungs is not None
    assert plain.pooled.shape == (3, exported.model_config.pooled_width)
    assert plain.lungs.shape == (3, 1, 16, 16)
    for ours, reference in zip(
        [*fast.blocks, fast.pooled, fast.lungs],
        [*plain.blocks, plain.pooled, plain.lungs],
        strict=True,
    ):
        torch.testing.assert_close(ours, reference, atol=1e-4, rtol=1e-4)


def test_one_pass_gives_what_the_network_makes_of_the_films(exported: Checkpoint) -> None:
    outputs = choose_backend(exported, CPU, "torch").compute(PIXELS)
    model = exported.build_model()
    with torch.inference_mode():
        images = torch.stack([to_input(film, exported.input_spec) for film in PIXELS])
        features = model.forward_features(images)
        expected = (model.classify(features), model.pool(features), model.lungs(features)[:, :1])
    for ours, reference in zip(
        (outputs.logits.float(), outputs.pooled, outputs.lungs), expected, strict=True
    ):
        torch.testing.assert_close(ours, reference, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("infection_head", [False, True])
def test_the_lung_head_runs_once_a_pass(tiny_config: ResFormerConfig, infection_head: bool) -> None:
    config = replace(tiny_config, lung_head=True, infection_head=infection_head)
    model = IdentityMappingResFormer(config).eval()
    assert model.lung_head is not None
    calls: list[int] = []
    model.lung_head.register_forward_hook(lambda *_: calls.append(1))
    outputs = NetworkOutputs.from_named(run_network(model, torch.zeros(2, 1, 64, 64)))
    assert len(calls) == 1
    assert outputs.lungs is not None
    assert outputs.lungs.shape == (2, 1, 16, 16)


def test_a_network_without_a_lung_head_gives_no_lungs(tiny_config: ResFormerConfig) -> None:
    torch.manual_seed(0)
    weights = IdentityMappingResFormer(tiny_config).state_dict()
    plain = add_graph(Checkpoint(tiny_config, CLASS_NAMES, InputSpec(size=64), weights))
    for name in ("onnxruntime", "torch"):
        outputs = choose_backend(plain, CPU, name).compute(PIXELS)
        assert outputs.lungs is None
        assert outputs.pooled is not None


def _as_before(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with a graph of the time before graphs gave pooled features and lungs."""
    assert checkpoint.graph is not None
    model = onnx.load_from_string(checkpoint.graph.content)
    for output in [o for o in model.graph.output if o.name in ("pooled", "lungs")]:
        model.graph.output.remove(output)
    content = model.SerializeToString()
    return replace(checkpoint, graph=replace(checkpoint.graph, content=content))


def test_a_graph_of_before_is_still_read(exported: Checkpoint) -> None:
    old, new = (
        choose_backend(checkpoint, CPU, "onnxruntime").compute(PIXELS)
        for checkpoint in (_as_before(exported), exported)
    )
    assert (old.pooled, old.lungs) == (None, None)
    for ours, reference in zip([old.logits, *old.blocks], [new.logits, *new.blocks], strict=True):
        torch.testing.assert_close(ours, reference, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("backend", ["auto", "onnxruntime"])
def test_a_graph_of_before_cannot_serve_a_checkpoint_that_abstains(
    exported: Checkpoint, backend: str
) -> None:
    width = exported.model_config.pooled_width
    abstention = Abstention(torch.zeros(width), torch.eye(width, 1), torch.zeros(4, 1), 0.5, 1.0)
    able = replace(exported, abstention=abstention)
    with pytest.raises(CheckpointError, match="run python -m resformer export"):
        choose_backend(_as_before(able), CPU, backend)
    assert choose_backend(add_graph(_as_before(able)), CPU, backend).name == "onnxruntime"


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
