"""Measure the network against those that people would use instead, and in other runtimes.

    pip install -r requirements-benchmarks.txt
    python -m benchmarks.network

ResNet-18, MobileNetV3-Small and DenseNet-121 are torchvision's; TorchXRayVision's DenseNet comes
beside them, and so does the network of the earlier implementation, written anew from its
description. Every network gets the same input and the same threads, in PyTorch as it is (eager) and
exported to ONNX Runtime, one image and a batch; all are timed in turns. Ours runs with its
preprocessing left out, as the others do. The operations are those of PyTorch's counter, two for a
multiplication with an addition; the machine's limit is the rate of a large matrix product in the
same run.

A second table has our graph in int8 (static, per channel, for convolutions alone, calibrated on
drawn films) and in OpenVINO, and the most that a probability of other drawn films moves from
PyTorch's. What is not installed is left out.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from einops import rearrange
from numpy.typing import NDArray
from onnxruntime.quantization import QuantFormat, quantize_static
from scipy.special import softmax
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import (
    Summary,
    Timing,
    build_speed_parser,
    compare,
    describe_machine,
    draw_film,
    publish,
    save_bars,
    time_together,
)
from resformer.backends import SPIN_MICROSECONDS, open_session
from resformer.checkpoint import load_checkpoint
from resformer.evaluation.tables import render_table
from resformer.export import quiet_exporter
from resformer.inference import fold_batch_norm
from resformer.layers import ConvNormAct
from resformer.layers.attention import attend
from resformer.layers.conv import enlarge
from resformer.model import IdentityMappingResFormer, ResFormerConfig
from resformer.training.baselines import build_baseline
from resformer.transforms import InputSpec, to_input

logger = logging.getLogger(__name__)

OURS, EARLIER = "ResFormer (ours)", "earlier implementation"
BASELINES = {
    "ResNet-18": "resnet18",
    "MobileNetV3-Small": "mobilenet_v3_small",
    "DenseNet-121": "densenet121",
}
SHIPPED = "ONNX Runtime, float32 (shipped)"
_INSTALL = "pip install -r requirements-benchmarks.txt"
_MATRIX_SIDE = 1536
_CALIBRATION_FILMS, _CALIBRATION_SEED = 32, 1000

Images = NDArray[np.float32]
Run = Callable[[Images], Images]


@dataclass(frozen=True)
class Speed:
    """What was measured of one network.

    Attributes:
        parameters: how many.
        flops: floating-point operations of one image.
        eager: one image in PyTorch.
        exported: one image in ONNX Runtime.
        batch: a batch in ONNX Runtime.
    """

    parameters: int
    flops: float
    eager: Timing
    exported: Timing
    batch: Timing


def main(arguments: Sequence[str] | None = None) -> Summary:
    """Measure, and write the tables and the plot."""
    parser = build_speed_parser(__doc__, "network", seconds=3.0)
    parser.add_argument("--size", type=int, help="side of the image (default: the model's own)")
    parser.add_argument("--batch", type=int, default=32, help="images in a batch")
    parser.add_argument(
        "--against",
        nargs="*",
        choices=list(BASELINES),
        default=list(BASELINES),
        metavar="NAME",
        help=f"some of: {', '.join(BASELINES)} (default: all)",
    )
    options = parser.parse_args(arguments)
    batch, threads, seconds = options.batch, options.threads, options.seconds
    torch.set_num_threads(threads)
    machine = describe_machine(threads)
    checkpoint = load_checkpoint(options.model)
    size = options.size or checkpoint.input_spec.size
    networks = {
        OURS: fold_batch_norm(checkpoint.build_model()),
        **build_competitors(options.against, len(checkpoint.class_names)),
    }
    graphs = {name: export_network(network, size) for name, network in networks.items()}
    images = draw_images(batch, size)
    limit = measure_limit(seconds)
    found = measure_networks(networks, graphs, images, threads, seconds)
    limit = max(limit, measure_limit(seconds))
    rate = batch * found[OURS].flops / found[OURS].batch.median
    compared = measure_runtimes(
        graphs[OURS], networks[OURS], checkpoint.temperature, images, threads, seconds
    )
    sizes = f"{size} x {size}; one image, and batches of {batch}."
    publish(
        f"{machine}\n\n{sizes} Medians, and in brackets the fastest.\n\n{render(found, batch)}\n\n"
        f"The machine multiplies matrices at {limit / 1e9:.0f} GFLOP/s; in batches ours does "
        f"{rate / 1e9:.0f} GFLOP/s, {rate / limit:.0%} of it.\n\n{compared}",
        options.out,
    )
    exported = {name: 1000 * speed.exported.median for name, speed in found.items()}
    rates = {name: batch / speed.batch.median for name, speed in found.items()}
    save_bars(
        {"one image, exported (ms)": exported, f"images/s in batches of {batch}, exported": rates},
        options.out.with_suffix(".png"),
    )
    return (
        compare(f"network, one image of {size}, exported, ms", exported, ".2f"),
        compare(f"network, images/s in batches of {batch}", rates, ".0f"),
    )


def build_competitors(names: Sequence[str], num_classes: int) -> dict[str, nn.Module]:
    """Return what ours is compared with, in evaluation mode and with random weights."""
    networks: dict[str, nn.Module] = {EARLIER: build_earlier(num_classes)}
    networks |= {name: build_baseline(BASELINES[name], num_classes) for name in names}
    try:
        import torchxrayvision.models
    except ImportError:
        logger.warning("TorchXRayVision's DenseNet is left out: %s", _INSTALL)
    else:
        networks["TorchXRayVision DenseNet"] = torchxrayvision.models.DenseNet(
            weights=None, num_classes=num_classes, in_channels=1, apply_sigmoid=False
        )
    return {name: network.eval() for name, network in networks.items()}


class PlainBlock(nn.Module):
    """Transformer block whose attention looks from every position of a stage to every other."""

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norms = nn.ModuleList(nn.LayerNorm(embed_dim) for _ in range(2))
        self.query_key_value = nn.Linear(embed_dim, 3 * embed_dim)
        self.project = nn.Linear(embed_dim, embed_dim)
        self.mlp = nn.Sequential(
            nn.Linear(embed_dim, 2 * embed_dim), nn.GELU(), nn.Linear(2 * embed_dim, embed_dim)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, embed_dim, H, W)`` to the same shape."""
        tokens = rearrange(x, "b c y x -> b (y x) c")
        query, key, value = rearrange(
            self.query_key_value(self.norms[0](tokens)),
            "b n (three h d) -> three b h n d",
            three=3,
            h=self.num_heads,
        )
        attended = rearrange(attend(query, key, value), "b h n d -> b n (h d)")
        tokens = tokens + self.project(attended)
        tokens = tokens + self.mlp(self.norms[1](tokens))
        mapped: Tensor = rearrange(tokens, "b (y x) c -> b c y x", y=x.shape[-2])
        return mapped


class EarlierNetwork(IdentityMappingResFormer):
    """The earlier implementation's network, as far as it is described.

    Neither normalisation nor activation in its convolutional blocks, plain transformer blocks, and
    the class read off the last scale alone. The transformer blocks look at the stages from outside.
    Its widths are ours: those of the three scales that nothing was read off give the 24,768
    parameters without a gradient that it was known for.
    """

    def __init__(self, config: ResFormerConfig) -> None:
        super().__init__(config)
        for unit in self.backbone.stages.modules():
            if isinstance(unit, ConvNormAct):
                unit.norm, unit.activation = nn.Identity(), nn.Identity()
        self.blocks = nn.ModuleList(
            PlainBlock(width, heads)
            for width, heads in zip(config.channels, config.num_heads, strict=True)
        )
        self.backbone.auxiliary = nn.ModuleList(nn.Identity() for _ in self.blocks)
        self.fc = nn.Linear(config.channels[-1], config.num_classes)

    def fuse(self, features: list[Tensor]) -> list[Tensor]:
        """Map the backbone's four features to the fused ones, of the same shapes."""
        fused = self.imtm([block(x) for block, x in zip(self.blocks, features, strict=True)])
        return [
            identity + enlarge(mapped, identity.shape[-1] // mapped.shape[-1])
            for identity, mapped in zip(features, fused, strict=True)
        ]

    def pool(self, features: list[Tensor], lungs: Tensor | None = None) -> Tensor:
        """Average the coarsest features: ``(B, C_4)``."""
        return features[-1].mean(dim=(-2, -1))


def build_earlier(num_classes: int) -> nn.Module:
    """Return the network of the earlier implementation, with random weights."""
    return EarlierNetwork(ResFormerConfig(num_classes=num_classes)).eval()


def draw_images(count: int, size: int, seed: int = 0) -> Images:
    """Return drawn films as the network takes them, ``(count, 1, size, size)``."""
    films = [draw_film(size, size, seed + number).astype(np.uint8) for number in range(count)]
    return torch.stack([to_input(film, InputSpec(size=size)) for film in films]).numpy()


def measure_networks(
    networks: Mapping[str, nn.Module],
    graphs: Mapping[str, bytes],
    images: Images,
    threads: int,
    seconds: float,
) -> dict[str, Speed]:
    """Time networks and their graphs, by name, on one and on all of the images."""
    image = torch.from_numpy(images[:1])
    sessions = {name: run_in_onnx_runtime(graph, threads) for name, graph in graphs.items()}
    eager = time_together(
        {name: run_in_pytorch(network, image) for name, network in networks.items()}, seconds
    )
    alone = time_runs(sessions, images[:1], seconds)
    together = time_runs(sessions, images, seconds)
    return {
        name: Speed(
            sum(weight.numel() for weight in network.parameters()),
            count_flops(network, image),
            eager[name],
            alone[name],
            together[name],
        )
        for name, network in networks.items()
    }


def render(found: Mapping[str, Speed], batch: int) -> str:
    """Return the table of the networks."""
    header = ("network", "parameters", "GFLOP", "eager, ms", "exported, ms", "exported, images/s")
    rows = [
        (
            name,
            f"{speed.parameters / 1e6:.1f} M",
            f"{speed.flops / 1e9:.2f}",
            speed.eager.milliseconds,
            speed.exported.milliseconds,
            f"{batch / speed.batch.median:.0f} ({batch / speed.batch.fastest:.0f})",
        )
        for name, speed in found.items()
    ]
    return render_table(header, rows)


def measure_limit(seconds: float) -> float:
    """Return the best rate of float32 matrix multiplication on PyTorch's threads, in FLOP/s."""
    one, other = torch.rand(2, _MATRIX_SIDE, _MATRIX_SIDE).unbind(0)
    timing = time_together({"product": lambda: torch.mm(one, other)}, min(seconds, 2.0))["product"]
    return 2 * _MATRIX_SIDE**3 / timing.fastest


def count_flops(network: nn.Module, image: Tensor) -> float:
    """Return the floating-point operations of one image ``(1, 1, H, W)``."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(image)
    return float(counter.get_total_flops())


def export_network(network: nn.Module, size: int) -> bytes:
    """Write a network as an ONNX graph, for any batch."""
    with quiet_exporter():
        program = torch.onnx.export(
            network,
            (torch.rand(2, 1, size, size),),
            dynamo=True,
            verbose=False,
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=4096)},),
        )
    if program is None:
        raise RuntimeError("torch.onnx wrote no graph")
    graph: bytes = program.model_proto.SerializeToString()
    return graph


def run_in_pytorch(network: nn.Module, images: Tensor) -> Callable[[], Images]:
    """Return a call of a network as it is."""

    @torch.inference_mode()
    def run() -> Images:
        logits: Images = network(images).numpy()
        return logits

    return run


def run_in_onnx_runtime(graph: bytes, threads: int) -> Run:
    """Return a function that maps images ``(B, 1, H, W)`` to the logits of a graph."""
    alone: onnxruntime.InferenceSession = open_session(
        graph, threads, spin_microseconds=SPIN_MICROSECONDS
    )
    together: onnxruntime.InferenceSession = open_session(graph, threads)
    name = alone.get_inputs()[0].name

    def run(images: Images) -> Images:
        session = alone if len(images) == 1 else together
        return np.asarray(session.run(None, {name: images})[0])

    return run


def time_runs(runs: Mapping[str, Run], images: Images, seconds: float) -> dict[str, Timing]:
    """Time functions on the same images in turns."""

    def call(run: Run) -> Callable[[], Images]:
        return lambda: run(images)

    return time_together({name: call(run) for name, run in runs.items()}, seconds)


def measure_runtimes(
    graph: bytes,
    network: nn.Module,
    temperature: float,
    images: Images,
    threads: int,
    seconds: float,
) -> str:
    """Measure the network in each runtime, and return the table.

    Args:
        graph: of the network.
        network: whose probabilities are compared with those of the runtimes.
        temperature: what logits are divided by.
        images: ``(B, 1, size, size)``.
        threads: of each runtime.
        seconds: about how long each is timed.
    """
    runs = {
        SHIPPED: run_in_onnx_runtime(graph, threads),
        "ONNX Runtime, int8": run_in_onnx_runtime(quantize(graph, images.shape[-1]), threads),
        **run_in_openvino(graph, threads),
    }
    one, many = time_runs(runs, images[:1], seconds), time_runs(runs, images, seconds)
    expected = softmax(run_in_pytorch(network, torch.from_numpy(images))() / temperature, axis=1)
    rows = [
        (
            name,
            one[name].milliseconds,
            f"{len(images) / many[name].median:.0f}",
            f"{np.abs(softmax(run(images) / temperature, axis=1) - expected).max():.2g}",
        )
        for name, run in runs.items()
    ]
    header = ("runtime", "one image, ms", "images/s in batches", "a probability moves by, at most")
    return f"Ours in other runtimes:\n\n{render_table(header, rows)}"


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
        logger.warning("OpenVINO is left out: %s", _INSTALL)
        return {}
    core = openvino.Core()

    def compile_for(precision: str) -> Run:
        options = {
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": precision,
        }
        model = core.compile_model(core.read_model(graph), "CPU", options)
        request = model.create_infer_request()
        return lambda images: np.array(request.infer([images])[model.output(0)])

    return {
        "OpenVINO, float32": compile_for("f32"),
        "OpenVINO, bfloat16": compile_for("bf16"),
    }


if __name__ == "__main__":
    main()
