"""The benchmark of other runtimes: how far int8 moves the answer, and the table it writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from benchmarks import runtimes
from benchmarks.network import export_network
from resformer.backends import fold_batch_norm
from resformer.checkpoint import load_checkpoint


def test_the_distance_is_that_of_probabilities_at_the_checkpoints_temperature(
    tiny_checkpoint: Path,
) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    level = np.zeros((1, 4), dtype=np.float32)
    raised = np.array([[checkpoint.temperature * np.log(3), 0, 0, 0]], dtype=np.float32)
    assert runtimes.distance(raised, level, checkpoint) == pytest.approx(3 / 6 - 1 / 4)


def test_int8_is_close_to_float32(tiny_checkpoint: Path) -> None:
    network = fold_batch_norm(load_checkpoint(tiny_checkpoint).build_model())
    graph = runtimes.quantize(export_network(network, 64), 64)
    kinds = {node.op_type for node in onnx.load_from_string(graph).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    images = runtimes.draw_images(3, 64)
    with torch.inference_mode():
        plain = network(torch.from_numpy(images)).numpy()
    found = runtimes._session(graph, 1)(images)
    assert found.shape == plain.shape
    assert 0 < np.abs(found - plain).max() < 0.1 * max(1, np.abs(plain).max())


def test_every_runtime_has_a_row(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        runtimes, "_openvino", lambda graph, threads, precision: runtimes._session(graph, threads)
    )
    out = tmp_path / "runtimes.md"
    runtimes.main(
        f"--model {tiny_checkpoint} --out {out} --size 64 --batch 2 --threads 1 --seconds 0".split()
    )
    text = out.read_text()
    for name in (runtimes.SHIPPED, "ONNX Runtime, int8", "OpenVINO, float32"):
        assert f"| {name} | " in text
