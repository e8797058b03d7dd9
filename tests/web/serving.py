"""Start the application as a user would, for tests and for the screenshot."""

from __future__ import annotations

import logging.config
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flask import Flask

from tests.web.posting import PATIENCE
from web import WebConfig, create_app
from web.batching import Pixels
from web.monitoring import logging_config
from web.server import Server, serve
from web.service import ModelService

if TYPE_CHECKING:
    from resformer.predict import Prediction

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class RunningApp:
    """A running application: its address, its process and the file with its log."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path


@contextmanager
def run_app(model: Path, log: Path) -> Iterator[RunningApp]:
    """Run ``python app.py`` on a free port until the block ends."""
    with run_command([sys.executable, "app.py", "--port", "0"], model, log) as running:
        yield running


@contextmanager
def run_gunicorn(
    model: Path, log: Path, *, app: str = "app:create_app()", **variables: str
) -> Iterator[RunningApp]:
    """Run gunicorn with two workers on a free port until the block ends."""
    command = [sys.executable, "-m", "gunicorn", app]
    with run_command(command, model, log, **{"RESFORMER_PORT": "0", **variables}) as running:
        yield running


@contextmanager
def run_command(
    command: Sequence[str], model: Path, log: Path, **variables: str
) -> Iterator[RunningApp]:
    """Run a command that serves until the block ends."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "RESFORMER_MODEL": str(model),
        **variables,
    }
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=output)
    try:
        yield RunningApp(_wait_for_address(process, log), process, log)
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE)


@contextmanager
def run_nginx(upstream: str, folder: Path, *changes: tuple[str, str]) -> Iterator[RunningApp]:
    """Run nginx with the shipped configuration in front of a server until the block ends.

    Args:
        upstream: address of the server.
        folder: for its files.
        changes: of the configuration, by what stands there.
    """
    port = free_port()
    parts = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    folders = "".join(f" {part}_temp_path {folder / part};" for part in parts)
    text = (ROOT / "deploy" / "nginx.conf").read_text(encoding="utf-8")
    for old, new in (
        ("http {", f"http {{{folders}"),
        ("listen 80;", f"listen 127.0.0.1:{port};"),
        ("server 127.0.0.1:5000;", f"server {upstream.removeprefix('http://')};"),
        ("/dev/stdout", str(folder / "access.log")),
        *changes,
    ):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    (folder / "nginx.conf").write_text(text, encoding="utf-8")
    command = ["nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder), "-e", "stderr"]
    command += ["-g", f"daemon off; pid {folder / 'nginx.pid'};"]
    log = folder / "nginx.log"
    url = f"http://127.0.0.1:{port}"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stderr=output)
    try:
        _wait_until_taken(process, port)
        yield RunningApp(url, process, log)
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE)


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _wait_until_taken(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("nginx does not listen")


def wait_for_log(process: subprocess.Popen[bytes], log: Path, pattern: str) -> re.Match[str]:
    """Return the first match of a pattern in a log, as soon as it is there."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        text = log.read_text(encoding="utf-8")
        found = re.search(pattern, text)
        if found:
            return found
        if process.poll() is not None:
            raise RuntimeError(f"the server ended at once: {text}")
        time.sleep(0.05)
    raise RuntimeError(f"no {pattern!r} within {PATIENCE} seconds: {text}")


def _wait_for_address(process: subprocess.Popen[bytes], log: Path) -> str:
    url = wait_for_log(process, log, r"(?:[sS]erving on|Listening at:) (http://\S+)")[1]
    # gunicorn listens before its workers have loaded the model.
    with urllib.request.urlopen(f"{url}/readyz", timeout=PATIENCE) as response:
        assert response.status == 200
    return url


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
        thread.join(timeout=PATIENCE)
        server.finish(5.0)
    assert not thread.is_alive()


@contextmanager
def serve_checkpoint(path: Path) -> Iterator[str]:
    """Serve a checkpoint with the default settings on a free port until the block ends."""
    config = WebConfig(path, "cpu", port=0)
    with serve_in_thread(create_app(config), config) as address:
        yield address


class SlowService(ModelService):
    """Says that it has begun, and answers a second later."""

    def predict(self, films: Sequence[Pixels]) -> list[Prediction]:
        logging.getLogger("web.slow").info("thinking")
        time.sleep(1.0)
        return super().predict(films)


def create_slow_app() -> Flask:
    """The application, to be stopped in the middle of an answer; this module runs it."""
    config = WebConfig.from_environment()
    service = SlowService(config.model_path, config.device)
    service.load()
    return create_app(config, service)


if __name__ == "__main__":
    logging.config.dictConfig(logging_config("text"))
    serve(create_slow_app(), WebConfig.from_environment())
