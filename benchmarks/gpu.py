"""Try everything that a GPU changes, in one go of under five minutes.

    pip install -r requirements-test.txt
    python -m benchmarks.gpu

First the tests marked ``gpu`` run. Then films are answered as the service and ``score`` do it, and
trained on as ``train`` does it, in batches of 256, each beside torchvision's ResNet-18 in the same
loop. A share of the peak is that of the rate at which the device multiplies large matrices in the
same type in the same run; operations are counted as in :mod:`benchmarks.network`, three times as
many for a step of a training.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import nn

from benchmarks.common import build_parser, describe_machine, draw_film, publish, time_together
from benchmarks.network import BASELINES, OURS, count_flops
from benchmarks.training import LOADER, RESNET, measure, training_config
from resformer.backends import Backend, OnnxRuntimeBackend, PyTorchBackend
from resformer.checkpoint import Checkpoint, load_checkpoint
from resformer.devices import can_compile, choose_device, place_model
from resformer.evaluation.tables import render_table
from resformer.inference import StretchAndNormalise
from resformer.training.baselines import build_baseline
from resformer.training.distributed import ProcessGroup
from resformer.training.optim import choose_precision
from resformer.training.timing import draw_films

logger = logging.getLogger(__name__)

_MATRIX_SIDE = 8192


def main(arguments: Sequence[str] | None = None) -> None:
    """Test, measure, and write the table."""
    options = _parse(arguments)
    device = choose_device(options.device)
    if not options.without_tests:
        tests = ["pytest", "-q", "-m", "gpu", "tests/test_gpu.py"]
        subprocess.run([sys.executable, "-m", *tests], check=True)
    checkpoint = load_checkpoint(options.model)
    size = options.size or checkpoint.input_spec.size
    checkpoint = replace(checkpoint, input_spec=replace(checkpoint.input_spec, size=size))
    image = torch.zeros(1, 1, size, size)
    classes = len(checkpoint.class_names)
    flops = {
        name: count_flops(network.eval(), image)
        for name, network in ((OURS, checkpoint.build_model()), (RESNET, _build_resnet(classes)))
    }
    served = _measure_serving(checkpoint, device, options.batch, options.seconds)
    config = training_config(
        checkpoint,
        input_size=size,
        batch_size=options.batch,
        workers=options.workers,
        epochs=options.epochs + 1,
        device=str(device),
    )
    group = ProcessGroup(0, 1, device)
    films = draw_films(options.films, size, classes, config)
    rates = measure(films, checkpoint.model_config, config, options.epochs, group)
    trained = {name: statistics.median(found) for name, found in rates.items()}
    precision = choose_precision(config.precision, device)
    serving_peak = _measure_peak(device, torch.float32, options.matrix, options.seconds)
    training_peak = _measure_peak(device, precision, options.matrix, options.seconds)
    rows = []
    for what, found, work, peak in (
        ("answered", served, 1, serving_peak),
        ("trained", trained, 3, training_peak),
    ):
        for name, rate in found.items():
            share = "-" if name == LOADER else f"{_flops_of(flops, name) * work * rate / peak:.1%}"
            rows.append((what, name, f"{rate:.0f}", share))
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "no GPU"
    compiled = "compiled" if can_compile(device) else "not compiled"
    publish(
        f"{card}; {describe_machine(torch.get_num_threads())}\n\n{size} x {size}, batches of "
        f"{options.batch}; answered in float32, trained in {precision}, {compiled}, augmented by "
        f"{config.workers} processes. Medians. The device multiplies matrices at "
        f"{serving_peak / 1e12:.1f} and {training_peak / 1e12:.1f} TFLOP/s in these types.\n\n"
        f"{render_table(('films', 'network', 'images/s', 'share of the peak'), rows)}",
        options.out,
    )


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = build_parser(__doc__, "gpu")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--size", type=int, help="side of the input (default: the model's own)")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--films", type=int, default=8192, help="in an epoch")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seconds", type=float, default=5.0, help="that each is answered for")
    parser.add_argument("--matrix", type=int, default=_MATRIX_SIDE, help="side, for the peak")
    parser.add_argument("--without-tests", action="store_true")
    return parser.parse_args(arguments)


def _build_resnet(classes: int) -> nn.Module:
    return build_baseline(BASELINES[RESNET], classes)


def _flops_of(flops: dict[str, float], name: str) -> float:
    return flops[RESNET if name == RESNET else OURS]


def _measure_serving(
    checkpoint: Checkpoint, device: torch.device, batch: int, seconds: float
) -> dict[str, float]:
    """Return the films answered a second, by network, from bytes in memory to arrays there."""
    size = checkpoint.input_spec.size
    films = np.stack([draw_film(size, size, seed) for seed in range(4)]).astype(np.uint8)
    pixels = np.resize(films, (batch, size, size))
    backends: dict[str, Backend] = {OURS: PyTorchBackend(checkpoint, device)}
    try:
        backends[f"{OURS}, ONNX Runtime"] = OnnxRuntimeBackend(checkpoint, device)
    except ValueError as error:
        logger.warning("ONNX Runtime is left out: %s", error)
    runs: dict[str, Callable[[], object]] = {
        name: partial(backend.compute, pixels) for name, backend in backends.items()
    }
    normalise = StretchAndNormalise(checkpoint.input_spec).to(device)
    resnet = place_model(_build_resnet(len(checkpoint.class_names)).eval(), device)

    @torch.inference_mode()
    def run_resnet() -> object:
        images = normalise(torch.tensor(pixels, device=device))
        return resnet(images.contiguous(memory_format=torch.channels_last)).cpu().numpy()

    runs[RESNET] = run_resnet
    timings = time_together(runs, seconds)
    return {name: batch / timing.median for name, timing in timings.items()}


def _measure_peak(device: torch.device, precision: torch.dtype, side: int, seconds: float) -> float:
    """Return the best rate of matrix products in FLOP/s."""
    one, other = torch.rand(2, side, side, device=device).to(precision).unbind(0)
    product = time_together({"": lambda: torch.mm(one, other)[0, 0].item()}, seconds)[""]
    return 2 * side**3 / product.fastest


if __name__ == "__main__":
    main()
