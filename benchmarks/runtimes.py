"""Measures what else could run the network: OpenVINO, bfloat16, int8.

    pip install -r requirements-benchmarks.txt
    python -m benchmarks.runtimes

Our network without its preprocessing, exported once, in each runtime with the same threads, all
timed in turns; and the most that a probability of drawn films moves from PyTorch's. int8 is static,
per channel, for convolutions alone, calibrated on other drawn films.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
from scipy.special import softmax

from benchmarks.films import draw_film
from benchmarks.network import export_network, prepare
from benchmarks.reporting import Summary, SummaryRow, publish
from benchmarks.timing import time_together
from resformer.backends import open_session
from resformer.checkpoint import Checkpoint
from resformer.evaluation.tables import render_table
from resformer.transforms import InputSpec, to_input

Images = NDArray[np.float32]
Run = Callable[[Images], NDArray[np.float32]]

SHIPPED = "ONNX Runtime, float32 (shipped)"
_HEADER = ("runtime", "one image, ms", "images/s in batches", "a probability moves by, at most")
_CALIBRATION_SEED = 1000


def main(arguments: Sequence[str] | None = None) -> Summary:
    """Measure, and write the table."""
    options, machine, checkpoint, network = prepare(__doc__, __file__, arguments)
    graph = export_network(network, options.size)
    images = draw_images(options.batch, options.size)
    runtimes = {
        SHIPPED: _session(graph, options.threads),
        "ONNX Runtime, int8": _session(quantize(graph, options.size), options.threads),
        "OpenVINO, float32": _openvino(graph, options.threads, "f32"),
        "OpenVINO, bfloat16": _openvino(graph, options.threads, "bf16"),
    }
    with torch.inference_mode():
        plain = network(torch.from_numpy(images)).numpy()
    moved = {n: distance(run(images), plain, checkpoint) for n, run in runtimes.items()}
    one = time_together({n: _call(run, images[:1]) for n, run in runtimes.items()}, options.seconds)
    many = time_together({n: _call(run, images) for n, run in runtimes.items()}, options.seconds)
    rows = [
        (
            name,
            one[name].milliseconds,
            f"{options.batch / many[name].median:.0f}",
            f"{moved[name]:.2g}",
        )
        for name in runtimes
    ]
    text = (
        f"{machine}\n\n{options.size} x {options.size}; one image, and batches of {options.batch}. "
        f"Medians, and in brackets the fastest.\n\n{render_table(_HEADER, rows)}"
    )
    publish(text, options.out)
    beside = ", ".join(
        f"{name} {1000 * timing.median:.2f}" for name, timing in one.items() if name != SHIPPED
    )
    ours = f"{1000 * one[SHIPPED].median:.2f}"
    return (SummaryRow(f"other runtimes, one image of {options.size}, ms", ours, beside),)


def draw_images(count: int, size: int, seed: int = 0) -> Images:
    """Return drawn films as the network takes them, ``(count, 1, size, size)``."""
    films = [draw_film(size, size, seed + number).astype(np.uint8) for number in range(count)]
    return torch.stack([to_input(film, InputSpec(size=size)) for film in films]).numpy()


def distance(
    logits: NDArray[np.float32], plain: NDArray[np.float32], checkpoint: Checkpoint
) -> float:
    """Return the greatest difference of two probabilities, by logits ``(B, K)``."""
    one, other = (softmax(found / checkpoint.temperature, axis=1) for found in (logits, plain))
    return float(np.abs(one - other).max())


def quantize(graph: bytes, size: int) -> bytes:
    """Return the graph with its convolutions in int8."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        source.write_bytes(graph)
        quantize_static(
            *(source, target, _DrawnFilms(graph, size)),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            op_types_to_quantize=["Conv"],
        )
        return target.read_bytes()


class _DrawnFilms(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, graph: bytes, size: int) -> None:
        name = open_session(graph, 1).get_inputs()[0].name
        images = draw_images(32, size, _CALIBRATION_SEED)
        self._batches: Iterator[dict[str, Images]] = iter([{name: images}])

    def get_next(self) -> dict[str, Images] | None:
        """Return the next batch, until there is none."""
        return next(self._batches, None)


def _session(graph: bytes, threads: int) -> Run:
    session: onnxruntime.InferenceSession = open_session(graph, threads)
    name = session.get_inputs()[0].name
    return lambda images: np.asarray(session.run(None, {name: images})[0])


def _openvino(graph: bytes, threads: int, precision: str) -> Run:
    import openvino

    core = openvino.Core()
    model = core.compile_model(
        core.read_model(graph),
        "CPU",
        {
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": precision,
        },
    )
    request = model.create_infer_request()

    def run(images: Images) -> NDArray[np.float32]:
        return np.array(request.infer([images])[model.output(0)])

    return run


def _call(run: Run, images: Images) -> Callable[[], object]:
    return lambda: run(images)


if __name__ == "__main__":
    main()
