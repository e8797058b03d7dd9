"""Measure the page that needs no server: its first visit, and its films against the server's way.

    python -m benchmarks.browser

A new browser opens an exported site: bytes over the wire and seconds until it is ready, and until
it has answered for the first film. Then the network runs in the browser (WebAssembly with SIMD, one
thread) and in ONNX Runtime as the server has it (one thread), in turns in the same run: what counts
on a busy machine is their ratio. Memory is the resident memory of the browser's processes with
this page, less that without one; what they share counts in each (Linux).
"""

from __future__ import annotations

import os
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import expect

from benchmarks.common import build_parser, describe_machine, publish, read_status, resident_bytes
from resformer.backends import open_session
from resformer.checkpoint import load_checkpoint
from resformer.cli import main as run_command
from resformer.evaluation.tables import render_table
from resformer.inference import FILMS
from tests.web.browser import choose, expect_result, image, open_chromium

_ROUNDS = 15
_PATIENCE = 180_000
# Runs one film of noise; the model stays for the next one.
_RUN = """async () => {
  const { Model } = await import(new URL("static/js/local/model.js", document.baseURI));
  globalThis.ours ??= await Model.load(new URL("local/model.json", document.baseURI));
  const { size } = globalThis.ours.facts;
  const pixels = new Uint8Array(size * size).map(() => 256 * Math.random());
  const start = performance.now();
  await globalThis.ours.run([{ pixels, width: size, height: size }]);
  return performance.now() - start;
}"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write the table."""
    options = build_parser(__doc__, "browser").parse_args(arguments)
    machine = describe_machine(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run_command(["export", "--model", str(options.model), "--site", str(folder)])
        with _serve(folder) as (url, sent), open_chromium() as browser:
            expect.set_options(timeout=_PATIENCE)
            before = _memory()
            page = browser.new_page()
            start = time.perf_counter()
            page.goto(url)
            expect(page.locator("#compute-text")).to_contain_text("without a connection")
            ready = time.perf_counter() - start
            visit = sum(sent)
            choose(page, image())
            expect_result(page)
            answered = time.perf_counter() - start
            memory = _memory() - before
            page.goto(f"{url}sample.png")  # no other page's policy, and no worker beside it
            here, there = _take_turns(page, options.model)
    rows = [
        ("first visit, MB over the wire", f"{visit / 1e6:.2f}"),
        ("… until it is ready, s", f"{ready:.1f}"),
        ("… until the first film has its answer, s", f"{answered:.1f}"),
        ("one film in the browser, ms", f"{here:.1f}"),
        ("one film in ONNX Runtime, one thread, ms", f"{there:.1f}"),
        ("ratio", f"{here / there:.1f}"),
        ("memory of the browser for the page and its model, MB", f"{memory / 1e6:.0f}"),
    ]
    publish(f"{machine}\n\n{render_table(('what', 'measured'), rows)}", options.out)


def _take_turns(page: Any, model: Path) -> tuple[float, float]:
    """Return the medians in milliseconds of a film in the browser and in ONNX Runtime."""
    checkpoint = load_checkpoint(model)
    size = checkpoint.input_spec.size
    session = open_session(checkpoint.graph.content if checkpoint.graph else b"", 1)
    film = np.random.default_rng(0).integers(0, 256, (1, size, size), dtype=np.uint8)
    page.evaluate(_RUN)
    session.run(None, {FILMS: film})
    here, there = [], []
    for _ in range(_ROUNDS):
        here.append(page.evaluate(_RUN))
        start = time.perf_counter()
        session.run(None, {FILMS: film})
        there.append(1000 * (time.perf_counter() - start))
    return statistics.median(here), statistics.median(there)


def _memory() -> int:
    """Return the resident bytes of the processes that this one started: the browser's."""
    return resident_bytes(os.getpid()) - read_status(os.getpid(), "VmRSS")


@contextmanager
def _serve(folder: Path) -> Iterator[tuple[str, list[int]]]:
    """Serve a folder as any web server does; the address, and the bytes of each answer."""
    sent: list[int] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def copyfile(self, source: Any, outputfile: Any) -> None:
            content = source.read()
            sent.append(len(content))
            outputfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://localhost:{server.server_port}/", sent
    finally:
        server.shutdown()
        server.server_close()


if __name__ == "__main__":
    main()
