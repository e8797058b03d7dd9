"""Measures what one request costs, part by part.

    python -m benchmarks.request

For a PNG of 299 x 299 and of 1024 x 1024 and a DICOM file of 2500 x 2000 with 16 bits: each part
that the app does for an answer, and the whole request through the app without a socket. What the
parts do not explain is the form, the queue and the log. A second table shows what decoding a large
JPEG at half its scale would save and how far it would move the probabilities.
"""

from __future__ import annotations

import argparse
import base64
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flask import Flask

from benchmarks.films import FORM_TYPE, as_dicom, as_png, draw_film, put_in_a_form
from benchmarks.reduced_jpeg import describe_reduced_jpegs
from benchmarks.reporting import Summary, SummaryRow, publish, speed_parser
from benchmarks.timing import Timing, describe_machine, time_together
from resformer.backends import Backend, choose_backend
from resformer.checkpoint import Checkpoint
from resformer.evaluation.plots import COLOURS, new_figure
from resformer.evaluation.tables import render_table
from resformer.gate.gate import object_to_pixels
from resformer.images import decode_image, encode_preview
from resformer.transforms import resize_pixels
from web import WebConfig, create_app
from web.service import ModelService

TOTAL, REST = "whole request", "rest"

Parts = dict[str, Callable[[], Any]]
Timings = Mapping[str, Timing]


def main(arguments: Sequence[str] | None = None) -> Summary:
    """Measure, and write the tables and the plot."""
    options = _parse(arguments)
    torch.set_num_threads(options.threads)
    machine = describe_machine(options.threads)
    config = WebConfig(options.model, "cpu", port=0, backend=options.backend)
    service = ModelService(config.model_path, config.device, config.backend)
    service.load()
    app = create_app(config, service)
    backend = choose_backend(service.checkpoint, torch.device("cpu"), options.backend)
    found = {
        name: time_together(
            build_parts(data, app, service.checkpoint, backend, config.preview_side),
            options.seconds,
        )
        for name, data in draw_inputs(options.scale).items()
    }
    jpegs = describe_reduced_jpegs(service, options.films, options.seconds, options.scale)
    publish(f"{machine} Backend: {backend.name}.\n\n{render(found)}\n\n{jpegs}", options.out)
    plot(found, options.out.with_suffix(".png"))
    return summarise(found)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = speed_parser(__doc__, __file__, seconds=1.0)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--films", type=int, default=6, help="of the second table")
    parser.add_argument("--scale", type=float, default=1.0, help="of all sides, for a trial")
    return parser.parse_args(arguments)


def draw_inputs(scale: float) -> dict[str, bytes]:
    """Return the files, by their kind and size."""
    sizes = {"PNG": [(299, 299), (1024, 1024)], "DICOM, 16 bits": [(2500, 2000)]}
    files = {}
    for kind, shapes in sizes.items():
        for height, width in ((round(scale * h), round(scale * w)) for h, w in shapes):
            film = draw_film(height, width)
            files[f"{kind}, {height} x {width}"] = (as_png if kind == "PNG" else as_dicom)(film)
    return files


def build_parts(
    data: bytes, app: Flask, checkpoint: Checkpoint, backend: Backend, preview_side: int
) -> Parts:
    """Return the parts of a request with this file, each on what the one before it gives.

    Raises:
        RuntimeError: if the app does not answer with 200.
    """
    pixels = decode_image(data)
    resized = resize_pixels(pixels, checkpoint.input_spec.size)[np.newaxis]
    outputs = backend.compute(resized)
    preview = encode_preview(pixels, max_side=preview_side)
    client, body = app.test_client(), put_in_a_form(data)

    def request() -> dict[str, Any]:
        response = client.post("/predict", data=body, content_type=FORM_TYPE)
        if response.status_code != 200:
            raise RuntimeError(f"the app answered {response.status_code}: {response.text[:200]}")
        answer: dict[str, Any] = response.get_json()
        return answer

    answer = {name: part for name, part in request().items() if name != "image"}
    gate = checkpoint.gate
    judge: Parts = (
        {"gate": lambda: gate.judge(outputs.blocks, [object_to_pixels(pixels)])} if gate else {}
    )
    return {
        "decode": lambda: decode_image(data),
        "resize": lambda: resize_pixels(pixels, checkpoint.input_spec.size),
        "network": lambda: backend.compute(resized),
        **judge,
        "preview": lambda: encode_preview(pixels, max_side=preview_side),
        "JSON": lambda: app.json.response(
            {**answer, "image": base64.b64encode(preview).decode("ascii")}
        ),
        TOTAL: lambda: client.post("/predict", data=body, content_type=FORM_TYPE),
    }


def shares(timings: Timings) -> dict[str, float]:
    """Return what each part takes, in seconds, and the rest that no part explains."""
    parts = {name: timing.median for name, timing in timings.items() if name != TOTAL}
    return {**parts, REST: max(0.0, timings[TOTAL].median - sum(parts.values()))}


def render(found: Mapping[str, Timings]) -> str:
    """Return the table of milliseconds and shares."""
    header, rows = ["file"], []
    for name, timings in found.items():
        total = timings[TOTAL].median
        parts = shares(timings)
        header = ["file", *parts, TOTAL]
        cells = (f"{1000 * s:.2f} ({s / total:.0%})" for s in parts.values())
        rows.append((name, *cells, f"{1000 * total:.2f}"))
    return f"Medians in ms, and their share of the request.\n\n{render_table(header, rows)}"


def summarise(found: Mapping[str, Timings]) -> Summary:
    """Return the whole request of each file beside its parts."""
    return tuple(
        SummaryRow(
            f"request, {name}, ms",
            f"{1000 * timings[TOTAL].median:.1f}",
            "of that " + ", ".join(f"{part} {1000 * s:.1f}" for part, s in shares(timings).items()),
        )
        for name, timings in found.items()
    )


def plot(found: Mapping[str, Timings], path: Path) -> None:
    """Draw the parts of each request one after the other."""
    figure, (axes,) = new_figure(9, 2.6)
    for name, timings in found.items():
        left = 0.0
        for index, (part, seconds) in enumerate(shares(timings).items()):
            label = part if name == next(iter(found)) else None
            axes.barh(name, 1000 * seconds, left=left, color=COLOURS[index], label=label)
            left += 1000 * seconds
    axes.invert_yaxis()
    axes.set_xlabel("ms")
    axes.legend(ncols=len(COLOURS), loc="lower center", bbox_to_anchor=(0.4, 1.0), frameon=False)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
