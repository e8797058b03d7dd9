"""Starts `python app.py` as a user would, for tests and for the screenshot."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flask import Flask

from web import WebConfig
from web.server import Server

ROOT = Path(__file__).resolve().parents[2]
_START_SECONDS = 90


@dataclass(frozen=True)
class RunningApp:
    """A running application: its address, its process and the file with its log."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path


@contextmanager
def run_app(model: Path, log: Path) -> Iterator[RunningApp]:
    """Run the application on a free port until the block ends."""
    command = [sys.executable, "app.py", "--port", "0", "--model", str(model)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=output)
    try:
        yield RunningApp(_wait_for_address(process, log), process, log)
    finally:
        process.terminate()
        process.wait(timeout=20)


def _wait_for_address(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        found = re.search(r"serving on (http://\S+)", log.read_text(encoding="utf-8"))
        if found:
            return found[1]
        if process.poll() is not None:
            raise RuntimeError(f"app.py ended at once: {log.read_text(encoding='utf-8')}")
        time.sleep(0.05)
    raise RuntimeError(f"app.py did not start within {_START_SECONDS} seconds")


@contextmanager
def serve_in_thread(app: Flask, config: WebConfig) -> Iterator[str]:
    """Serve an application on a free port until the block ends."""
    server = Server(app, config)
    stopping = threading.Event()
    thread = threading.Thread(target=server.run, args=(stopping.is_set,), daemon=True)
    thread.start()
    try:
        yield server.address
    finally:
        stopping.set()
        server.wake()
        thread.join(timeout=10)
        server.finish(5.0)
    assert not thread.is_alive()
