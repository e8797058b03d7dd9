"""Measure what one request costs, part by part.

    python -m benchmarks.request

For a PNG of 299 x 299 and of 1024 x 1024 and a DICOM file of 2500 x 2000 with 16 bits, whole
requests go through the app without a socket, and each moment of them is given to what goes on
then. Where two things do, it is given to the one that the answer waits for longer, so that a part
that the network hides, as it mostly does the preview, takes no time.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from flask import Flask
from flask.testing import FlaskClient

import resformer.predict
import web.predict
from benchmarks.common import (
    Summary,
    SummaryRow,
    build_speed_parser,
    describe_machine,
    draw_film,
    encode_film,
    publish,
)
from benchmarks.service import fill_form
from resformer.backends import OnnxRuntimeBackend, PyTorchBackend
from resformer.evaluation.plots import COLOURS, new_figure
from resformer.evaluation.tables import render_table
from resformer.predict import Predictor
from tests.web.posting import CONTENT_TYPE
from web import WebConfig, create_app
from web.batching import Turn
from web.service import ModelService

TOTAL = "whole request"
_FILES = (("PNG", 299, 299), ("PNG", 1024, 1024), ("DICOM, 16 bits", 2500, 2000))
_FEWEST = 5
_SHOWN = 4  # parts of a request that the README names, the largest
# What a moment is given to, the first that goes on; of each, the functions that do it. The last
# ones hold all others, so theirs is what is left.
_PARTS: Mapping[str, Sequence[tuple[Any, str]]] = {
    "decode": [(web.predict, "decode_described")],
    "resize": [(resformer.predict, "resize_pixels")],
    "network": [(OnnxRuntimeBackend, "compute"), (PyTorchBackend, "compute")],
    "preview beyond it": [(web.predict, "encode_preview"), (web.predict, "_as_text")],
    "form": [(web.predict, "read_image")],
    "JSON": [(web.predict, "jsonify")],
    "prediction": [(Predictor, "predict")],
    "hand-overs": [(Turn, "classify")],
    "Flask, options, log": [(Flask, "full_dispatch_request")],
    "client": [(FlaskClient, "post")],
}


class Span(NamedTuple):
    """A call of a function: the part that it belongs to, and when it began and ended."""

    part: str
    begin: float
    end: float


def main(arguments: Sequence[str] | None = None) -> Summary:
    """Measure, and write the table and its plot."""
    parser = build_speed_parser(__doc__, "request", seconds=3.0)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--scale", type=float, default=1.0, help="of all sides, for a trial")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    machine = describe_machine(options.threads)
    config = WebConfig(options.model, "cpu", port=0, backend=options.backend)
    service = ModelService(config.model_path, config.device, config.backend)
    service.load()
    client = create_app(config, service).test_client()
    found: dict[str, dict[str, float]] = {}
    for kind, *shape in _FILES:
        height, width = (round(options.scale * side) for side in shape)
        data = encode_film(draw_film(height, width), kind.split(",")[0])
        found[f"{kind}, {height} x {width}"] = measure(client, data, options.seconds)
    publish(f"{machine}\n\n{render(found)}", options.out)
    plot(found, options.out.with_suffix(".png"))
    return tuple(
        SummaryRow(
            f"request, {name}, ms",
            f"{parts.pop(TOTAL):.1f}",
            "of that " + ", ".join(f"{part} {parts[part]:.1f}" for part in _largest(parts)),
        )
        for name, parts in found.items()
    )


def _largest(parts: Mapping[str, float]) -> list[str]:
    return sorted(parts, key=parts.__getitem__, reverse=True)[:_SHOWN]


def measure(client: FlaskClient, data: bytes, seconds: float) -> dict[str, float]:
    """Return the median milliseconds of each part of a request with a file, and of the whole.

    Raises:
        RuntimeError: if the app does not answer with 200.
    """
    body = fill_form(data)
    rounds: list[dict[str, float]] = []
    end = time.perf_counter() + seconds
    with record_spans() as spans:
        # The first ones warm up and do not count.
        while len(rounds) < 2 * _FEWEST or time.perf_counter() < end:
            spans.clear()
            response = client.post("/predict", data=body, content_type=CONTENT_TYPE)
            if response.status_code != 200:
                raise RuntimeError(f"the app answered {response.status_code}: {response.text:.200}")
            rounds.append(attribute(spans))
    wholes = [sum(parts.values()) for parts in rounds[_FEWEST:]]
    medians = {
        part: 1000 * statistics.median(parts[part] for parts in rounds[_FEWEST:]) for part in _PARTS
    }
    return {**medians, TOTAL: 1000 * statistics.median(wholes)}


@contextmanager
def record_spans() -> Iterator[list[Span]]:
    """Note every call of what :data:`_PARTS` names, in any thread, until the block ends."""
    spans: list[Span] = []

    def watch(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any, **options: Any) -> Any:
            begin = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                spans.append(Span(part, begin, time.perf_counter()))

        return watched

    with ExitStack() as stack:
        for part, functions in _PARTS.items():
            for owner, name in functions:
                watched = watch(part, getattr(owner, name))
                stack.enter_context(mock.patch.object(owner, name, watched))
        yield spans


def attribute(spans: Sequence[Span]) -> dict[str, float]:
    """Give each moment to the first of :data:`_PARTS` that goes on then; return seconds by part."""
    taken = dict.fromkeys(_PARTS, 0.0)
    for begin, end in pairwise(sorted({edge for span in spans for edge in span[1:]})):
        going_on = {span.part for span in spans if span.begin <= begin and end <= span.end}
        first = next((part for part in _PARTS if part in going_on), None)
        if first:
            taken[first] += end - begin
    return taken


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
    for part, colour in zip(parts, cycle(COLOURS), strict=False):
        taken = np.array([found[name][part] for name in names])
        axes.barh(names, taken, left=left, color=colour, label=part)
        left += taken
    axes.invert_yaxis()
    axes.set_xlabel("ms")
    axes.legend(ncols=6, loc="lower center", bbox_to_anchor=(0.4, 1.0), frameon=False)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
