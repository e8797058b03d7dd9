"""Measure what one request costs, part by part.

    python -m benchmarks.request

For a PNG of 299 x 299 and of 1024 x 1024 and a DICOM file of 2500 x 2000 with 16 bits: each part
that the app does for an answer, and the whole request through the app without a socket. What the
parts do not explain is the form, the queue and the log.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flask import Flask

from benchmarks.common import (
    Summary,
    SummaryRow,
    Timing,
    build_speed_parser,
    describe_machine,
    draw_film,
    encode_film,
    publish,
    time_together,
)
from benchmarks.service import fill_form
from resformer.backends import Backend, choose_backend
from resformer.checkpoint import Checkpoint
from resformer.evaluation.plots import COLOURS, new_figure
from resformer.evaluation.tables import render_table
from resformer.images import decode_image, encode_preview
from resformer.transforms import resize_pixels
from tests.web.posting import CONTENT_TYPE
from web import WebConfig, create_app
from web.service import ModelService

TOTAL, REST = "whole request", "rest"
_FILES = (("PNG", 299, 299), ("PNG", 1024, 1024), ("DICOM, 16 bits", 2500, 2000))

Parts = dict[str, Callable[[], Any]]


def main(arguments: Sequence[str] | None = None) -> Summary:
    """Measure, and write the table and its plot."""
    parser = build_speed_parser(__doc__, "request", seconds=1.0)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--scale", type=float, default=1.0, help="of all sides, for a trial")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    machine = describe_machine(options.threads)
    config = WebConfig(options.model, "cpu", port=0, backend=options.backend)
    service = ModelService(config.model_path, config.device, config.backend)
    service.load()
    app = create_app(config, service)
    backend = choose_backend(service.checkpoint, torch.device("cpu"), options.backend)

    def measure(data: bytes) -> dict[str, Timing]:
        parts = build_parts(data, app, service.checkpoint, backend, config.preview_side)
        return time_together(parts, options.seconds)

    found: dict[str, dict[str, float]] = {}
    for kind, *shape in _FILES:
        height, width = (round(options.scale * side) for side in shape)
        data = encode_film(draw_film(height, width), kind.split(",")[0])
        found[f"{kind}, {height} x {width}"] = explain(measure(data))
    publish(f"{machine} Backend: {backend.name}.\n\n{render(found)}", options.out)
    plot(found, options.out.with_suffix(".png"))
    return tuple(
        SummaryRow(
            f"request, {name}, ms",
            f"{parts.pop(TOTAL):.1f}",
            "of that " + ", ".join(f"{part} {taken:.1f}" for part, taken in parts.items()),
        )
        for name, parts in found.items()
    )


def build_parts(
    data: bytes, app: Flask, checkpoint: Checkpoint, backend: Backend, preview_side: int
) -> Parts:
    """Return the parts of a request with this file, each on what the one before it gives.

    Raises:
        RuntimeError: if the app does not answer with 200.
    """
    pixels = decode_image(data)
    resized = resize_pixels(pixels, checkpoint.input_spec.size)[np.newaxis]
    preview = encode_preview(pixels, max_side=preview_side)
    client, body = app.test_client(), fill_form(data)
    response = client.post("/predict", data=body, content_type=CONTENT_TYPE)
    if response.status_code != 200:
        raise RuntimeError(f"the app answered {response.status_code}: {response.text[:200]}")
    answer = response.get_json()
    return {
        "decode": lambda: decode_image(data),
        "resize": lambda: resize_pixels(pixels, checkpoint.input_spec.size),
        "network": lambda: backend.compute(resized),
        "preview": lambda: encode_preview(pixels, max_side=preview_side),
        "JSON": lambda: app.json.response(
            {**answer, "image": base64.b64encode(preview).decode("ascii")}
        ),
        TOTAL: lambda: client.post("/predict", data=body, content_type=CONTENT_TYPE),
    }


def explain(timings: Mapping[str, Timing]) -> dict[str, float]:
    """Return the median milliseconds of each part, of the rest that none explains, and in all."""
    taken = {name: 1000 * timing.median for name, timing in timings.items()}
    whole = taken.pop(TOTAL)
    return {**taken, REST: max(0.0, whole - sum(taken.values())), TOTAL: whole}


def render(found: Mapping[str, Mapping[str, float]]) -> str:
    """Return the table of milliseconds and shares."""
    rows = []
    for name, parts in found.items():
        *cells, (_, total) = parts.items()
        shares = (f"{taken:.2f} ({taken / total:.0%})" for _, taken in cells)
        rows.append((name, *shares, f"{total:.2f}"))
    header = ("file", *next(iter(found.values())))
    return f"Medians in ms, and their share of the request.\n\n{render_table(header, rows)}"


def plot(found: Mapping[str, Mapping[str, float]], path: Path) -> None:
    """Draw the parts of each request one after the other."""
    figure, (axes,) = new_figure(9, 2.6)
    names = list(found)
    left = np.zeros(len(names))
    parts = [part for part in found[names[0]] if part != TOTAL]
    for part, colour in zip(parts, COLOURS, strict=False):
        taken = np.array([found[name][part] for name in names])
        axes.barh(names, taken, left=left, color=colour, label=part)
        left += taken
    axes.invert_yaxis()
    axes.set_xlabel("ms")
    axes.legend(ncols=len(COLOURS), loc="lower center", bbox_to_anchor=(0.4, 1.0), frameon=False)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
