"""The model's file is replaced while people ask: who asks notices nothing but the new answers."""

from __future__ import annotations

import gc
import json
import logging
import os
import shutil
import signal
import sys
import threading
import time
import urllib.request
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from resformer.predict import Predictor
from tests.data_sets import CLASS_NAMES
from tests.web.checkpoints import OTHER_CLASSES, write_other_checkpoint
from tests.web.posting import CONTENT_TYPE, PATIENCE, encode, figures, form, post_file
from tests.web.serving import RunningApp, run_app, run_gunicorn
from web import WebConfig, create_app
from web.monitoring import SHARED_FOLDER
from web.reload import watch
from web.service import hash_file

not_on_windows = pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX system")

FILM = encode()
Shares = dict[str, float]


def replace_file(target: Path, source: Path) -> None:
    """Put a copy into place at once, as operators should."""
    beside = target.with_suffix(".new")
    shutil.copyfile(source, beside)
    os.replace(beside, target)


def replace_by_rubbish(target: Path) -> None:
    target.with_suffix(".new").write_bytes(target.read_bytes()[:1000])
    os.replace(target.with_suffix(".new"), target)


def wait_for(found: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module")
def other_checkpoint(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_other_checkpoint(tiny_checkpoint, tmp_path_factory.mktemp("other") / "other.pth")


@pytest.fixture(scope="module")
def expected(tiny_checkpoint: Path, other_checkpoint: Path) -> dict[str, Shares]:
    """What each model says of the film, by the hash of its file."""
    return {
        hash_file(path): Predictor.from_file(path, "cpu").predict(FILM).probabilities
        for path in (tiny_checkpoint, other_checkpoint)
    }


@pytest.fixture
def model(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A file that may be replaced."""
    return Path(shutil.copy(tiny_checkpoint, tmp_path / "model.pth"))


@pytest.fixture(params=["waitress", pytest.param("gunicorn", marks=not_on_windows)])
def server(request: pytest.FixtureRequest, model: Path, tmp_path: Path) -> Iterator[RunningApp]:
    run = run_app if request.param == "waitress" else run_gunicorn
    with run(model, tmp_path / "log.txt") as running:
        yield running


def fetch(url: str, body: bytes | None = None) -> Any:
    request = urllib.request.Request(url, body, {"Content-Type": CONTENT_TYPE} if body else {})
    with urllib.request.urlopen(request, timeout=PATIENCE) as response:
        assert response.status == 200
        content = response.read()
        return json.loads(content) if "json" in response.headers["Content-Type"] else content


def counted(url: str, name: str) -> float:
    lines = fetch(f"{url}/metrics").decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


def ask_until(url: str, stopping: threading.Event) -> list[list[dict[str, Any]]]:
    """Ask for one film, for several and for an explanation; the answers of each request."""
    one, many = form([("file", "a.png", FILM)]), form([("files", "a.png", FILM)] * 5)
    answers = []
    while not stopping.is_set():
        answers.append([fetch(f"{url}/predict?explain=1", one)])
        answers.append(fetch(f"{url}/predict/batch?preview=0", many)["results"])
    return answers


def check_answers(answers: list[list[dict[str, Any]]], expected: dict[str, Shares]) -> None:
    """Each request was answered by one model, whose hash stands beside its probabilities."""
    for request in answers:
        (sha256,) = {answer["model"]["sha256"] for answer in request}
        for answer in request:
            shares = answer["prediction"]["all_probabilities"]
            assert shares == pytest.approx(expected[sha256], abs=1e-4)


def test_a_new_model_answers_without_a_failed_request_or_a_mixed_answer(
    server: RunningApp,
    model: Path,
    tiny_checkpoint: Path,
    other_checkpoint: Path,
    expected: dict[str, Shares],
) -> None:
    old, new = map(hash_file, (tiny_checkpoint, other_checkpoint))
    workers = 2 if "gunicorn" in str(server.process.args) else 1
    wait_for(lambda: counted(server.url, f'resformer_model_processes{{sha256="{old}"') == workers)
    stopping = threading.Event()
    with ThreadPoolExecutor(3) as threads:
        asked = [threads.submit(ask_until, server.url, stopping) for _ in range(3)]
        try:
            replace_file(model, other_checkpoint)
            serving = f'resformer_model_processes{{sha256="{new}"'
            wait_for(lambda: counted(server.url, serving) == workers)
            if sys.platform != "win32":
                replace_by_rubbish(model)
                server.process.send_signal(signal.SIGHUP)
                refused = 'resformer_model_changes_total{outcome="refused"'
                wait_for(lambda: counted(server.url, refused) == workers)
        finally:
            stopping.set()
        answers = [request for thread in asked for request in thread.result(PATIENCE)]
    check_answers(answers, expected)
    assert {request[0]["model"]["sha256"] for request in answers} == {old, new}
    assert counted(server.url, f'resformer_model_processes{{sha256="{old}"') == 0
    assert counted(server.url, 'resformer_model_changes_total{outcome="served"') == workers
    ready = fetch(f"{server.url}/readyz")
    assert ready["status"] == "ready"
    assert "model.pth is damaged" in ready["model_refused"]
    assert str(model.parent) not in ready["model_refused"]
    log = server.log.read_text()
    assert f"the model stays as it is: cannot load the model: {model} is damaged" in log
    assert "Traceback" not in log


def test_the_file_is_looked_at_again_after_a_bad_one_and_the_old_model_is_let_go(
    model: Path, tiny_checkpoint: Path, other_checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)  # what keeps records keeps no model
    app = create_app(WebConfig(model, "cpu"))
    client = app.test_client()
    first = weakref.ref(app.extensions["resformer_model"].current)

    def classes() -> tuple[str, ...]:
        return tuple(post_file(client, FILM).get_json()["prediction"]["all_probabilities"])

    def refusal() -> str:
        return str(client.get("/readyz").get_json().get("model_refused", ""))

    with watch(app) as look_at_once:
        assert (classes(), refusal()) == (CLASS_NAMES, "")
        model.unlink()
        look_at_once()
        wait_for(lambda: "cannot read the model's file" in refusal())
        assert figures(client)["resformer_model_refused"] == 1
        assert classes() == CLASS_NAMES
        replace_file(model, tiny_checkpoint)  # the one that is served
        wait_for(lambda: not refusal())  # without being told
        replace_file(model, other_checkpoint)
        look_at_once()
        wait_for(lambda: classes() == OTHER_CLASSES)
    counted = figures(client)
    assert counted["resformer_model_refused"] == 0
    assert counted['resformer_model_changes_total{outcome="served"}'] == 1
    gc.collect()
    assert first() is None


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads the processes of Linux")
def test_a_worker_that_begins_beside_a_bad_file_serves_what_the_others_do(
    model: Path, tmp_path: Path, expected: dict[str, Shares]
) -> None:
    with run_gunicorn(model, tmp_path / "log", RESFORMER_WORKERS="1") as running:
        parent = running.process.pid
        children = Path(f"/proc/{parent}/task/{parent}/children")
        before = children.read_text()
        replace_by_rubbish(model)
        os.kill(int(before), signal.SIGKILL)
        wait_for(lambda: children.read_text() not in ("", before))
        check_answers(
            [[fetch(f"{running.url}/predict", form([("file", "a.png", FILM)]))]], expected
        )
        assert "model.pth is damaged" in fetch(f"{running.url}/readyz")["model_refused"]


def test_a_model_is_served_though_no_copy_of_it_can_be_kept(
    model: Path, other_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the folder that processes share has gone, or its disk is full."""
    app = create_app(WebConfig(model, "cpu", port=0))
    monkeypatch.setenv(SHARED_FOLDER, str(tmp_path / "gone"))
    replace_file(model, other_checkpoint)
    client, wanted = app.test_client(), hash_file(other_checkpoint)
    with watch(app) as look_at_once:
        look_at_once()
        wait_for(lambda: post_file(client, FILM).get_json()["model"]["sha256"] == wanted)
        replace_by_rubbish(model)  # and it is looked after further on
        look_at_once()
        wait_for(lambda: "model_refused" in client.get("/readyz").get_json())
