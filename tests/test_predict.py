"""Prediction: one answer whatever the batch, the backend and the form in which a film is given."""

from __future__ import annotations

import copy
import importlib.util
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from resformer import find_shipped_model
from resformer.abstention import Abstention
from resformer.backends import NetworkOutputs, choose_backend
from resformer.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from resformer.cli import main
from resformer.devices import choose_device
from resformer.export import add_graph
from resformer.inference import StretchAndNormalise, fold_batch_norm
from resformer.model import IdentityMappingResFormer, ResFormerConfig
from resformer.phantom import draw_chest_phantom
from resformer.predict import Prediction, Predictor
from resformer.training.gate_alterations import ALTERATIONS
from resformer.transforms import InputSpec, normalise_pixels, resize_pixels, to_input
from tests.data_sets import CLASS_NAMES, encode

CPU = torch.device("cpu")
PIXELS = np.stack([draw_chest_phantom(64, seed=seed) for seed in range(3)])
FILMS = [draw_chest_phantom(size, seed=size) for size in (64, 96, 150)]


@pytest.fixture(scope="module")
def predictor(tiny_checkpoint: Path) -> Predictor:
    return Predictor.from_file(str(tiny_checkpoint), device="cpu")


@pytest.fixture(scope="module")
def exported(tiny_config: ResFormerConfig) -> Checkpoint:
    """A checkpoint with all optional parts of the network, and its graph."""
    config = replace(tiny_config, lung_head=True, infection_head=True)
    torch.manual_seed(0)
    model = IdentityMappingResFormer(config)
    model(torch.randn(8, 1, 64, 64))  # in training mode: batch normalisation has seen something
    return add_graph(Checkpoint(config, CLASS_NAMES, InputSpec(size=64), model.state_dict()))


def test_probabilities_are_the_softmax_of_the_tempered_logits(tiny_checkpoint: Path) -> None:
    checkpoint = replace(load_checkpoint(tiny_checkpoint), temperature=2.0)
    film = draw_chest_phantom(120, seed=1)
    with torch.inference_mode():
        logits = checkpoint.build_model()(to_input(film, checkpoint.input_spec)[None])
    expected = torch.softmax(logits.double() / 2.0, dim=1)[0].tolist()
    prediction = Predictor(checkpoint, "cpu").predict(film)
    assert list(prediction.probabilities) == list(checkpoint.class_names)
    assert list(prediction.probabilities.values()) == pytest.approx(expected, abs=1e-5)
    assert sum(prediction.probabilities.values()) == pytest.approx(1, abs=1e-12)


def test_a_batch_of_different_sizes_gives_what_each_film_gives(predictor: Predictor) -> None:
    assert predictor.predict([]) == []
    for film, prediction in zip(FILMS, predictor.predict(FILMS), strict=True):
        alone = predictor.predict(film)
        assert alone.probabilities == pytest.approx(prediction.probabilities, abs=1e-5)


def test_threads_can_share_a_predictor(predictor: Predictor) -> None:
    films = [draw_chest_phantom(64, seed=seed) for seed in range(8)]
    expected = [predictor.predict(film).probabilities for film in films]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda film: predictor.predict(film).probabilities, films))
    for answer, known in zip(answers, expected, strict=True):
        assert answer == pytest.approx(known, abs=1e-6)


def test_a_film_is_the_same_in_whatever_form_it_is_given(
    predictor: Predictor, tmp_path: Path
) -> None:
    film = draw_chest_phantom(90, seed=6)
    path = tmp_path / "film.png"
    path.write_bytes(encode(film))
    turned = Image.fromarray(np.ascontiguousarray(np.rot90(film)))
    turned.getexif()[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    forms = (
        path,
        str(path),
        path.read_bytes(),
        Image.fromarray(film),
        Image.fromarray(film).convert("RGB"),
        Image.fromarray(film).convert("RGBA"),
        Image.fromarray(film.astype(np.int32)),
        turned,
        (film.astype(np.uint16) * 257),
    )
    expected = predictor.predict(film).probabilities
    for form, prediction in zip(forms, predictor.predict(forms), strict=True):
        assert prediction.probabilities == pytest.approx(expected, abs=1e-5), form
    assert isinstance(predictor.predict(path), Prediction)


@pytest.mark.parametrize(
    ("film", "told"),
    [
        (np.zeros((80, 80, 3), np.uint8), "3) and type uint8: give several films as a list"),
        (np.zeros((80, 80)), "float64: scale its values to 0 (black) to 255 (white) and convert"),
        (np.zeros((0, 0), np.uint8), "got an array of shape (0, 0) and type uint8"),
        (np.zeros((0, 9), np.uint16), "got an array of shape (0, 9) and type uint16"),
        (3, "got int"),
        (None, "got NoneType"),
    ],
)
def test_what_is_no_film_is_refused(predictor: Predictor, film: Any, told: str) -> None:
    for given, place in ((film, ""), ([PIXELS[0], film], "films[1]: ")):
        with pytest.raises(ValueError, match=r"expected a path, the bytes of a file") as refusal:
            predictor.predict(given)
        assert str(refusal.value).startswith(f"{place}expected")
        assert told in str(refusal.value)


def test_a_prediction_explains_itself_at_the_films_size(predictor: Predictor) -> None:
    film = draw_chest_phantom(130, seed=2)[:100]
    prediction = predictor.predict(film)
    evidence = prediction.explain("COVID")
    assert evidence.shape == (100, 130)
    assert evidence.dtype == np.float32
    assert 0 <= evidence.min() < evidence.max() <= 1
    np.testing.assert_array_equal(
        prediction.explain(), prediction.explain(prediction.predicted_class)
    )
    with pytest.raises(ValueError, match="no class 'Cat': choose one of COVID, Lung_Opacity"):
        prediction.explain("Cat")
    with pytest.raises(ValueError, match=r"only a prediction of Predictor\.predict"):
        Prediction({"a": 1.0}).explain()


def test_a_prediction_names_its_most_probable_class() -> None:
    prediction = Prediction({"a": 0.2, "b": 0.7, "c": 0.1})
    assert prediction.predicted_class == "b"
    assert prediction.confidence == 0.7


def test_a_device_that_is_not_here_is_refused() -> None:
    assert choose_device().type in {"cpu", "cuda", "mps"}
    for name in ("gpu", "xpu", "meta"):
        with pytest.raises(ValueError, match=f"unknown device '{name}'"):
            choose_device(name)
    with pytest.raises(ValueError, match="not on this machine"):
        choose_device("cuda:99")


def test_the_shipped_graph_is_the_shipped_network_on_a_thousand_films() -> None:
    """In all its outputs, on drawn films as they are and altered in every way that is refused."""
    shipped = load_checkpoint(find_shipped_model())
    size, rng = shipped.input_spec.size, np.random.default_rng(0)
    backends = [choose_backend(shipped, CPU, name) for name in ("torch", "onnxruntime")]
    count = 0
    for seed in range(84):
        film = draw_chest_phantom(size, seed)
        altered = [resize_pixels(alter(film, rng), size) for alter in ALTERATIONS.values()]
        films = np.stack([film, *altered])
        reference, found = (backend.compute(films) for backend in backends)
        for field in fields(NetworkOutputs):
            expected, ours = getattr(reference, field.name), getattr(found, field.name)
            np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5, err_msg=field.name)
        count += len(films)
    assert count >= 1000


def test_one_pass_gives_what_the_network_makes_of_the_films(exported: Checkpoint) -> None:
    model = exported.build_model()
    with torch.inference_mode():
        images = torch.stack([to_input(film, exported.input_spec) for film in PIXELS])
        features = model.forward_features(images)
        probabilities = torch.softmax(model.classify(features) / exported.temperature, dim=1)
        lungs = torch.sigmoid(model.lungs(features)[:, 0])
        expected = [x.numpy() for x in (probabilities, model.pool(features), lungs)]
    for name in ("torch", "onnxruntime"):
        found = choose_backend(exported, CPU, name).compute(PIXELS)
        assert (found.gate_score, found.distance) == (None, None)  # it has no such part
        assert found.lungs is not None
        assert found.lungs.shape == (3, 16, 16)
        ours: list[Any] = [found.probabilities, found.features, found.lungs]
        for one, reference in zip(ours, expected, strict=True):
            np.testing.assert_allclose(one, reference, atol=1e-5, rtol=1e-5)


def test_a_prediction_brings_the_lungs_where_the_network_looks_for_them(
    exported: Checkpoint,
) -> None:
    lungs = Predictor(exported, "cpu").predict(FILMS[1]).lungs
    assert lungs is not None
    assert lungs.shape == (16, 16)
    assert 0 < lungs.min() < lungs.max() < 1


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
    with pytest.raises(ValueError, match=r"call eval\(\) first"):
        fold_batch_norm(IdentityMappingResFormer())


def test_a_graph_of_another_checkpoint_is_not_used(
    exported: Checkpoint, caplog: pytest.LogCaptureFixture
) -> None:
    others: tuple[dict[str, Any], ...] = (
        {"state_dict": {**exported.state_dict, "fc.bias": exported.state_dict["fc.bias"] + 1}},
        {"temperature": 2.0},
        {"class_names": CLASS_NAMES[::-1]},
        {"abstention": _abstention(exported.model_config.pooled_width)},
    )
    for changes in others:
        other = replace(exported, **changes)
        caplog.clear()
        assert choose_backend(other, CPU).name == "torch"
        assert "python -m resformer export --overwrite makes it anew" in caplog.text
        with pytest.raises(ValueError, match="not exported from what the checkpoint holds now"):
            choose_backend(other, CPU, "onnxruntime")


def _abstention(width: int) -> Abstention:
    return Abstention(torch.zeros(width), torch.eye(width, 1), torch.zeros(4, 1), 0.5, 1.0)


def _with_graph(checkpoint: Checkpoint, change: Callable[[onnx.ModelProto], object]) -> Checkpoint:
    assert checkpoint.graph is not None
    model = onnx.load_from_string(checkpoint.graph.content)
    change(model)
    content = model.SerializeToString()
    return replace(checkpoint, graph=replace(checkpoint.graph, content=content))


def _flatten_probabilities(model: onnx.ModelProto) -> None:
    _replace_output(model, "probabilities", "Sqrt")


def _flip_a_bit(model: onnx.ModelProto) -> None:
    """Flip the highest bit of an exponent in a weight of the first convolution."""
    weight = next(tensor for tensor in model.graph.initializer if "stem.0.conv" in tensor.name)
    data = bytearray(weight.raw_data)
    data[3] ^= 0x40
    weight.raw_data = bytes(data)


def _swap_lungs(model: onnx.ModelProto) -> None:
    _replace_output(model, "lungs", "Neg")


def _replace_output(model: onnx.ModelProto, output: str, operator: str) -> None:
    for node in model.graph.node:
        node.output[:] = ["before" if name == output else name for name in node.output]
    model.graph.node.append(onnx.helper.make_node(operator, ["before"], [output]))


def _drop_lungs(model: onnx.ModelProto) -> None:
    model.graph.output.remove(next(o for o in model.graph.output if o.name == "lungs"))


def _take_another_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 96


@pytest.mark.parametrize("change", [_flatten_probabilities, _flip_a_bit, _swap_lungs, _drop_lungs])
@pytest.mark.parametrize("backend", ["auto", "onnxruntime"])
def test_a_graph_that_is_not_the_network_is_refused(
    exported: Checkpoint, change: Callable[[onnx.ModelProto], object], backend: str
) -> None:
    with pytest.raises(CheckpointError, match="does not compute what its weights do") as refusal:
        Predictor(_with_graph(exported, change), "cpu", backend)
    assert "\n" not in str(refusal.value)


def test_a_graph_that_cannot_be_run_is_refused(exported: Checkpoint) -> None:
    with pytest.raises(CheckpointError, match="it cannot be run") as refusal:
        Predictor(_with_graph(exported, _take_another_input), "cpu")
    assert "\n" not in str(refusal.value)


def test_onnx_runtime_is_taken_where_it_can_run(
    exported: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert choose_backend(exported, CPU).name == "onnxruntime"
    assert choose_backend(replace(exported, graph=None), CPU).name == "torch"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert choose_backend(exported, CPU).name == "torch"
    with pytest.raises(ValueError, match="pip install onnxruntime"):
        choose_backend(exported, CPU, "onnxruntime")


def test_what_cannot_run_says_why(exported: Checkpoint) -> None:
    assert exported.graph is not None
    broken = replace(exported, graph=replace(exported.graph, content=b"no graph"))
    assert choose_backend(broken, CPU).name == "torch"
    for checkpoint, device, name, message in (
        (broken, "cpu", "onnxruntime", "refuses the graph"),
        (
            replace(exported, graph=None),
            "cpu",
            "onnxruntime",
            "python -m resformer export --overwrite",
        ),
        (exported, "meta", "onnxruntime", "cannot run on meta"),
        (exported, "cpu", "tensorrt", "unknown backend 'tensorrt'"),
    ):
        with pytest.raises(ValueError, match=message):
            choose_backend(checkpoint, torch.device(device), name)


def test_export_adds_the_graph_and_writes_it_for_other_programs(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    out, graph = tmp_path / "with_graph.pth", tmp_path / "graphs" / "network.onnx"
    command = ["export", "--model", str(tiny_checkpoint), "--out", str(out), "--onnx", str(graph)]
    assert main(command) == 0
    for name in ("onnxruntime", "torch"):
        predictor = Predictor.from_file(out, "cpu", name)
        assert predictor.backend == name
        assert predictor.predict(FILMS[1]).lungs is None  # the network has no lung head
    (described,) = (p.value for p in onnx.load(graph).metadata_props if p.key == "resformer")
    assert json.loads(described)["class_names"] == list(CLASS_NAMES)


def test_export_leaves_a_valid_graph_alone_and_replaces_files_only_when_told_to(
    exported: Checkpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "resformer")
    model, graph = tmp_path / "model.pth", tmp_path / "network.onnx"
    save_checkpoint(exported, model)
    before = model.read_bytes()
    for overwrite in ([], ["--overwrite"]):
        assert main(["export", "--model", str(model), *overwrite]) == 0
        assert f"{model} holds a valid graph: left as it is" in caplog.text
        assert model.read_bytes() == before

    for graphless in (replace(exported, graph=None), _with_graph(exported, _flip_a_bit)):
        save_checkpoint(graphless, model)
        before = model.read_bytes()
        caplog.clear()
        assert main(["export", "--model", str(model)]) == 1
        assert f"{model} is there already: pass --overwrite" in caplog.text
        assert model.read_bytes() == before
        assert main(["export", "--model", str(model), "--overwrite"]) == 0
        assert Predictor.from_file(model, "cpu").backend == "onnxruntime"

    before = model.read_bytes()
    graph.write_bytes(b"of another network")
    command = ["export", "--model", str(model), "--onnx", str(graph)]
    assert main(command) == 1
    assert graph.read_bytes() == b"of another network"
    assert main([*command, "--overwrite"]) == 0
    onnx.load(graph)
    assert model.read_bytes() == before
