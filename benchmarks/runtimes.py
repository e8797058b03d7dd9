"""Measure what else could run the network: OpenVINO, bfloat16, int8.

    pip install -r requirements-benchmarks.txt
    python -m benchmarks.runtimes

Our network without its preprocessing, exported once, in each runtime with the same threads, all
timed in turns; and the most that a probability of drawn films moves from PyTorch's. int8 is static,
per channel, for convolutions alone, calibrated on other drawn films. Without OpenVINO its rows are
left out.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import QuantFormat, quantize_static
from scipy.special import softmax

from benchmarks.common import Summary, compare, draw_film, publish
from benchmarks.network import (
    Images,
    Run,
    describe_sizes,
    export_network,
    prepare,
    run_in_onnx_runtime,
    time_runs,
)
from resformer.evaluation.markdown import render_table
from resformer.runtime.onnx_runtime import open_session
from resformer.transforms import InputSpec, to_input

logger = logging.getLogger(__name__)

SHIPPED = "ONNX Runtime, float32 (shipped)"
_CALIBRATION_FILMS, _CALIBRATION_SEED = 32, 1000


def main(arguments: Sequence[str] | None = None) -> Summary:
    """Measure, and write the table."""
    options, machine, checkpoint, network = prepare(__doc__, "runtimes", arguments)
    size, batch, threads = options.size, options.batch, options.threads
    graph = export_network(network, size)
    runs = {
        SHIPPED: run_in_onnx_runtime(graph, threads),
        "ONNX Runtime, int8": run_in_onnx_runtime(quantize(graph, size), threads),
        **run_in_openvino(graph, threads),
    }
    images = draw_images(batch, size)
    one = time_runs(runs, images[:1], options.seconds)
    many = time_runs(runs, images, options.seconds)
    with torch.inference_mode():
        expected = network(torch.from_numpy(images)).numpy()

    def probabilities(logits: Images) -> NDArray[np.float64]:
        found: NDArray[np.float64] = softmax(logits / checkpoint.temperature, axis=1)
        return found

    rows = [
        (
            name,
            one[name].milliseconds,
            f"{batch / many[name].median:.0f}",
            f"{np.abs(probabilities(run(images)) - probabilities(expected)).max():.2g}",
        )
        for name, run in runs.items()
    ]
    header = ("runtime", "one image, ms", "images/s in batches", "a probability moves by, at most")
    publish(f"{machine}\n\n{describe_sizes(options)}\n\n{render_table(header, rows)}", options.out)
    medians = {name: 1000 * timing.median for name, timing in one.items()}
    return (compare(f"other runtimes, one image of {size}, ms", medians, ".2f"),)


def draw_images(count: int, size: int, seed: int = 0) -> Images:
    """Return drawn films as the network takes them, ``(count, 1, size, size)``."""
    films = [draw_film(size, size, seed + number).astype(np.uint8) for number in range(count)]
    return torch.stack([to_input(film, InputSpec(size=size)) for film in films]).numpy()


class DrawnFilms:
    """One batch of drawn films, by which ONNX Runtime calibrates (a ``CalibrationDataReader``)."""

    def __init__(self, graph: bytes, size: int) -> None:
        name = open_session(graph, 1).get_inputs()[0].name
        images = draw_images(_CALIBRATION_FILMS, size, _CALIBRATION_SEED)
        self._batches: Iterator[dict[str, Images]] = iter([{name: images}])

    def get_next(self) -> dict[str, Images] | None:
        """Return the next batch, until there is none."""
        return next(self._batches, None)


def quantize(graph: bytes, size: int) -> bytes:
    """Return the graph with its convolutions in int8."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        source.write_bytes(graph)
        quantize_static(
            source,
            target,
            DrawnFilms(graph, size),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            op_types_to_quantize=["Conv"],
        )
        return target.read_bytes()


def run_in_openvino(graph: bytes, threads: int) -> dict[str, Run]:
    """Return the graph in OpenVINO, in float32 and in bfloat16; nothing where it is missing."""
    try:
        import openvino
    except ImportError:
        logger.warning("OpenVINO is left out: pip install -r requirements-benchmarks.txt")
        return {}
    core = openvino.Core()

    def compile_for(precision: str) -> Run:
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
        return lambda images: np.array(request.infer([images])[model.output(0)])

    return {
        "OpenVINO, float32": compile_for("f32"),
        "OpenVINO, bfloat16": compile_for("bf16"),
    }


if __name__ == "__main__":
    main()
