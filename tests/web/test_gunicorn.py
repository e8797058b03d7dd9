"""gunicorn with two workers, and how both servers stop."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import logging
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.web.posting import CONTENT_TYPE, PATIENCE, connect, encode, multipart, post_to_server
from tests.web.serving import ROOT, RunningApp, run_command, run_gunicorn, wait_for_log
from web.monitoring import SHARED_FOLDER

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="gunicorn needs a POSIX system")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The temporary folder of the server."""
    return tmp_path_factory.mktemp("gunicorn")


@pytest.fixture(scope="module")
def server(
    tiny_checkpoint: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningApp]:
    log = tmp_path_factory.mktemp("log") / "log.txt"
    settings = {"TMPDIR": str(folder), "RESFORMER_LOG": "json", "RESFORMER_RECEIVE_LIMIT": "3600"}
    with run_gunicorn(tiny_checkpoint, log, **settings) as running:
        yield running
    assert list(folder.glob("resformer-metrics-*")) == []


def read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=PATIENCE) as response:
        return str(response.read().decode())


def counted(server: RunningApp, name: str) -> float:
    lines = read(f"{server.url}/metrics").splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


def workers(server: RunningApp) -> set[int]:
    pid = server.process.pid
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return set(map(int, text.split()))


def test_the_figures_of_all_workers_add_up(server: RunningApp, folder: Path) -> None:
    name = 'resformer_requests_total{endpoint="/predict",status="200"}'
    before = counted(server, name)
    sent, deadline = 0, time.monotonic() + PATIENCE
    # Whichever worker is awake takes a connection: until both have answered at least once.
    with ThreadPoolExecutor(4) as threads:
        while len(list(folder.glob("resformer-metrics-*/counter_*.db"))) < 2 or sent < 20:
            answers = threads.map(post_to_server, [server.url] * 4, [encode()] * 4)
            assert [status for status, _ in answers] == [200] * 4
            sent += 4
            assert time.monotonic() < deadline
    assert {counted(server, name) - before for _ in range(10)} == {sent}


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads the maps of Linux")
def test_the_parent_never_loads_pytorch(server: RunningApp) -> None:
    parent = server.process.pid
    assert "libtorch" not in Path(f"/proc/{parent}/maps").read_text()
    children = workers(server)
    assert len(children) == 2
    for child in children:
        assert "libtorch" in Path(f"/proc/{child}/maps").read_text()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads the processes of Linux")
def test_a_worker_that_dies_is_replaced_and_its_figures_stay(server: RunningApp) -> None:
    for _ in range(5):
        assert post_to_server(server.url, encode())[0] == 200
    name = 'resformer_requests_total{endpoint="/predict",status="200"}'
    before, first = counted(server, name), workers(server)
    os.kill(min(first), signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE
    while len(workers(server)) < 2 or min(first) in workers(server):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert post_to_server(server.url, encode())[0] == 200
    assert counted(server, name) == before + 1


def test_the_log_is_of_json_lines_and_quotes_no_client(server: RunningApp) -> None:
    read(f"{server.url}/")
    with connect(server.url) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nName-of-a-client\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 400 ")
    lines = server.log.read_text(encoding="utf-8").splitlines()
    assert lines
    assert [line for line in lines if not (line.startswith("{") and line.endswith("}"))] == []
    assert "Name-of-a-client" not in server.log.read_text()


def test_settings_share_the_cores_and_load_no_model() -> None:
    code = (
        "import logging, runpy, sys, os\n"
        "from types import SimpleNamespace\n"
        "from gunicorn.config import Config\n"
        "settings = runpy.run_path('gunicorn.conf.py')\n"
        "os.sched_getaffinity = lambda pid: set(range(8))\n"
        "cfg = Config()\n"
        "cfg.set('workers', 3)\n"
        "settings['on_starting'](SimpleNamespace(cfg=cfg, log=logging.getLogger()))\n"
        "settings['on_exit'](None)\n"
        "assert not {'torch', 'prometheus_client'} & set(sys.modules)\n"
        "print(os.environ['OMP_NUM_THREADS'], settings['bind'], settings['workers'])\n"
    )
    variables = {"RESFORMER_PORT": "81", "RESFORMER_WORKERS": "3", "RESFORMER_HOST": "0.0.0.0"}
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"} | variables
    command = [sys.executable, "-c", code]
    printed = subprocess.check_output(
        command, cwd=ROOT, env=environment, text=True, timeout=PATIENCE
    )
    assert printed == "2 0.0.0.0:81 3\n"


def test_on_a_read_only_system_figures_are_kept_in_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in (SHARED_FOLDER, "RESFORMER_HOST", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "1")  # to be put back
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    config = pytest.importorskip("gunicorn.config")
    settings = runpy.run_path(str(ROOT / "gunicorn.conf.py"))
    cfg = config.Config()
    settings["on_starting"](SimpleNamespace(cfg=cfg, log=logging.getLogger()))
    assert Path(os.environ[SHARED_FOLDER]).parent == Path(cfg.worker_tmp_dir) == Path("/dev/shm")
    settings["on_exit"](None)


def test_options_of_gunicorn_are_followed(tiny_checkpoint: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gunicorn", "--bind=0.0.0.0:0", "--workers=1"]
    command += ["--max-requests=5", "app:create_app()"]
    settings = {"RESFORMER_MAX_BITES": "7", "RESFORMER_HOST": "localhost"}
    with run_command(command, tiny_checkpoint, tmp_path / "log", **settings) as running:
        running = dataclasses.replace(running, url=running.url.replace("0.0.0.0", "127.0.0.1"))
        first = workers(running)
        request = urllib.request.Request(f"{running.url}/healthz")
        request.add_header("Host", "films.example")
        answered = 0
        while "Autorestarting worker" not in running.log.read_text():
            # Who connects to a worker in its last moment has to connect again.
            with (
                contextlib.suppress(ConnectionResetError, urllib.error.URLError),
                urllib.request.urlopen(request, timeout=PATIENCE) as response,
            ):
                assert response.status == 200  # everyone can reach it, by whatever name
                answered += 1
        assert answered >= 3
        assert post_to_server(running.url, encode())[0] == 200
        assert not workers(running) & first
        log = running.log.read_text()
    assert log.count("slow clients stop gunicorn: put a proxy in front") == 1
    assert log.count("RESFORMER_MAX_BITES is not a setting and has no effect") == 1
    assert "did you mean RESFORMER_MAX_BYTES?" in log


@pytest.mark.parametrize(
    ("option", "variables", "status", "reason"),
    [
        ("--preload", {"RESFORMER_MODEL": ""}, 1, "the model must be loaded after the fork"),
        ("", {"RESFORMER_PORT": "http"}, 1, "RESFORMER_PORT must be a whole number"),
        ("", {}, 4, "cannot load the model: no checkpoint at no-such-model.pth"),
    ],
)
def test_a_start_that_fails_ends_with_its_reason(
    tmp_path: Path, option: str, variables: dict[str, str], status: int, reason: str
) -> None:
    settings = {"RESFORMER_MODEL": "no-such-model.pth", "RESFORMER_PORT": "0", **variables}
    settings |= {"RESFORMER_WORKERS": "4", "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "gunicorn", *option.split(), "app:create_app()"],
        cwd=ROOT,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == status
    assert done.stderr.count("resformer: ") == done.stderr.count(reason) == 1
    assert "Traceback" not in done.stderr
    assert list(tmp_path.glob("resformer-*")) == []


SLOW_APP = [sys.executable, "-m", "tests.web.serving"]
# Only the limit that a test is about may end a request.
NO_HURRY = {
    "RESFORMER_PORT": "0",
    "RESFORMER_RECEIVE_LIMIT": "3600",
    "RESFORMER_STOP_LIMIT": "3600",
    "RESFORMER_TIME_LIMIT": "3600",
}


@pytest.fixture(params=["waitress", "gunicorn"])
def slow_app(
    request: pytest.FixtureRequest, tiny_checkpoint: Path, tmp_path: Path
) -> Iterator[RunningApp]:
    """A server whose model takes a second for an answer."""
    log = tmp_path / "log.txt"
    if request.param == "waitress":
        running = run_command(SLOW_APP, tiny_checkpoint, log, **NO_HURRY)
    else:
        app = "tests.web.serving:create_slow_app()"
        variables = {**NO_HURRY, "RESFORMER_WORKERS": "1"}
        running = run_gunicorn(tiny_checkpoint, log, app=app, **variables)
    with running as server:
        yield server


@contextmanager
def half_sent(server: RunningApp, body: bytes) -> Iterator[socket.socket]:
    """A request of which the server has read the headers and waits for the rest."""
    head = (
        f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {CONTENT_TYPE}\r\n"
        f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
    )
    with connect(server.url) as connection:
        connection.sendall(head.encode())
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body[:1000])
        yield connection


def test_what_has_begun_is_finished(slow_app: RunningApp) -> None:
    film = encode()
    body = multipart(film)
    with (
        ThreadPoolExecutor() as threads,
        half_sent(slow_app, body) as arriving,
        connect(slow_app.url) as idle,
    ):
        in_work = threads.submit(post_to_server, slow_app.url, film)
        wait_for_log(slow_app.process, slow_app.log, "thinking")
        slow_app.process.send_signal(signal.SIGTERM)
        stopping = "finishing what has begun|Handling signal: term"
        wait_for_log(slow_app.process, slow_app.log, stopping)
        arriving.sendall(body[1000:])
        assert idle.recv(1) == b""
        assert in_work.result(PATIENCE)[0] == 200
        response = http.client.HTTPResponse(arriving)
        response.begin()
        assert response.status == 200
        assert json.loads(response.read())["success"] is True
    assert slow_app.process.wait(timeout=PATIENCE) == 0
    assert "Traceback" not in slow_app.log.read_text()


def test_a_second_signal_ends_at_once(tiny_checkpoint: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    with (
        run_command(SLOW_APP, tiny_checkpoint, log, **NO_HURRY) as server,
        half_sent(server, encode()),
    ):
        server.process.send_signal(signal.SIGTERM)
        wait_for_log(server.process, log, "finishing what has begun")
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=PATIENCE) == -signal.SIGTERM


def test_the_time_to_finish_is_limited(tiny_checkpoint: Path, tmp_path: Path) -> None:
    settings = {**NO_HURRY, "RESFORMER_STOP_LIMIT": "1"}
    with (
        run_command(SLOW_APP, tiny_checkpoint, tmp_path / "log.txt", **settings) as server,
        half_sent(server, encode()),
    ):
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=PATIENCE) == 0
