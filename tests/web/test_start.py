"""Settings and ``python app.py``, from the start to the end of its process."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import app as application
from resformer.checkpoint import load_checkpoint, save_checkpoint
from tests.web.posting import PATIENCE, post_to_server
from tests.web.serving import ROOT, run_app, run_command, wait_for_log
from web import WebConfig, create_app
from web.config import StartError, describe_settings

pytestmark = pytest.mark.usefixtures("restored_logging")


def test_every_setting_has_its_variable() -> None:
    environment = {
        "RESFORMER_MODEL": "/models/mine.pth",
        "RESFORMER_DEVICE": "cpu",
        "RESFORMER_PORT": " 8080\n",
        "RESFORMER_TIME_LIMIT": "2.5",
        "RESFORMER_API_KEY": "secret",
        "RESFORMER_LOG": "json",
        "RESFORMER_RATE_LIMIT": "",
        "RESFORMER_KEEP_FEEDBACK": "1",
        "RESFORMER_UPLOADS": "/films/given",
        "RESFORMER_FEEDBACK_MAX_BYTES": "5000",
    }
    assert WebConfig.from_environment(environment) == WebConfig(
        model_path=Path("/models/mine.pth"),
        device="cpu",
        port=8080,
        time_limit=2.5,
        api_key="secret",
        log="json",
        keep_feedback=True,
        uploads_path=Path("/films/given"),
        feedback_max_bytes=5000,
    )
    assert WebConfig.from_environment({}) == WebConfig()


def test_help_lists_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        application.main(["--help"])
    printed = capsys.readouterr().out
    assert describe_settings() in printed
    lines = describe_settings().splitlines()
    assert len(lines) == len(dataclasses.fields(WebConfig))
    assert all(line.startswith("  RESFORMER_") for line in lines)
    assert any(line.startswith("  RESFORMER_PORT ") and "(default: 5000)" in line for line in lines)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_pixels": 0}, "max_pixels must be at least 1, got 0"),
        ({"workers": 0}, "workers must be at least 1, got 0"),
        ({"queue_size": -1}, "queue_size must be at least 0, got -1"),
        ({"time_limit": 0.5}, "time_limit must be at least 1, got 0.5"),
        ({"receive_limit": float("nan")}, "receive_limit must be at most 86400, got nan"),
        ({"feedback_max_bytes": 0}, "feedback_max_bytes must be at least 1, got 0"),
        ({"port": 65536}, "port must be at most 65535, got 65536"),
        ({"log": "xml"}, "log must be text or json, got 'xml'"),
        ({"api_key": "schlüssel"}, "api_key must be of printable ASCII characters"),
    ],
)
def test_impossible_values_are_named(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(StartError) as refused:
        WebConfig(**settings)
    assert str(refused.value) == words


def test_a_variable_that_cannot_be_read_ends_the_start_with_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value, message in (
        ("QUEUE_SIZE", "many", "a whole number, got 'many'"),
        ("KEEP_FEEDBACK", "yes", "0 or 1, got 'yes'"),
    ):
        with monkeypatch.context() as environment:
            environment.setenv(f"RESFORMER_{name}", value)
            assert application.main([]) == 1
        assert capsys.readouterr().err == f"resformer: RESFORMER_{name} must be {message}\n"


def test_a_variable_that_is_no_setting_is_named(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RESFORMER_API_KYE", "top-secret")
    assert application.main(["--model", "no-such-model.pth"]) == 1
    message = capfd.readouterr().err
    assert "RESFORMER_API_KYE is not a setting and has no effect; did you mean" in message
    assert "RESFORMER_API_KEY?" in message
    assert "top-secret" not in message


def test_the_key_is_never_shown() -> None:
    config = WebConfig(api_key="top-secret")
    assert "top-secret" not in repr(config)
    assert "top-secret" not in json.dumps(describe_settings())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_application_serves_and_ends_cleanly(
    tiny_checkpoint: Path, tmp_path: Path, phantom_png: bytes, number: signal.Signals
) -> None:
    with run_app(tiny_checkpoint, tmp_path / "log") as running:
        assert running.url.startswith("http://127.0.0.1:")
        status, answer = post_to_server(running.url, phantom_png, name="secret-name.png")
        assert (status, answer["success"]) == (200, True)
        running.process.send_signal(number)
        assert running.process.wait(timeout=PATIENCE) == 0
    log = running.log.read_text()
    assert log.count("serving on") == 1
    assert log.endswith("stopped\n")
    assert "Traceback" not in log
    assert "secret-name" not in log


@pytest.mark.skipif(not shutil.which("setsid"), reason="gives it a terminal by setsid")
def test_it_ends_when_its_terminal_is_closed(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """SIGHUP makes it look for another model, but comes from a closed terminal too."""
    ours, its = os.openpty()
    start = f"exec setsid --ctty {sys.executable} app.py --port 0 < {os.ttyname(its)}"
    with run_command(["sh", "-c", start], tiny_checkpoint, tmp_path / "log") as running:
        os.close(its)
        running.process.send_signal(signal.SIGHUP)
        wait_for_log(running.process, running.log, "the model's file holds the model")
        os.close(ours)
        assert running.process.wait(timeout=PATIENCE) == 0


def test_a_missing_or_broken_model_ends_the_start_with_one_line(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.pth"
    broken.write_bytes(tiny_checkpoint.read_bytes()[:1000])
    told = {"no-such-model.pth": "no checkpoint at no-such-model", str(broken): f"{broken} is dam"}
    for model, message in told.items():
        command = [sys.executable, "app.py", "--model", model, "--port", "0"]
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
        assert done.stderr.startswith(f"resformer: cannot load the model: {message}")


TOLD = {"bootstrap": {"samples": 0}, "class_names": [], "per_class": {}, "confusion_matrix": []}


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ("metrics", {"test": {"accuracy": 0.9}}),
        ("metrics", {"test": {**TOLD, "count": "many"}}),
        ("metrics", {"test": {**TOLD, "count": 9, "per_class": {"COVID": 7}}}),
        ("metrics", {"report": {"external": 7}}),
        ("training", {"films": "many"}),
        ("training", {"best_epoch": "last", "history": [{"train_loss": 1.0}] * 2}),
    ],
)
def test_a_model_that_tells_of_itself_what_no_page_can_show_ends_the_start(
    tiny_checkpoint: Path, tmp_path: Path, part: str, told: dict[str, Any]
) -> None:
    odd = tmp_path / "odd.pth"
    parts: dict[str, dict[str, Any]] = {"metrics": {}, "training": {}, part: told}
    checkpoint = dataclasses.replace(
        load_checkpoint(tiny_checkpoint), metrics=parts["metrics"], training=parts["training"]
    )
    save_checkpoint(checkpoint, odd)
    with pytest.raises(StartError, match=r"cannot load the model: .* cannot be shown") as refused:
        create_app(WebConfig(odd, "cpu"))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backend": "onnxruntime"}, "the checkpoint holds no graph"),
        ({"backend": "tensorrt"}, "unknown backend 'tensorrt'"),
        ({"device": "cuda:77"}, "cuda:77"),
    ],
)
def test_a_backend_or_a_device_that_cannot_run_is_a_clear_error(
    tiny_checkpoint: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(StartError, match=f"cannot load the model: .*{message}"):
        create_app(WebConfig(tiny_checkpoint, **settings))


@pytest.mark.parametrize("port", ["http", "-1", "65536", "²"])
def test_a_port_that_is_none_is_refused(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        application.main([f"--port={port}"])
    assert stopped.value.code == 2
    assert "a port is a number from 0 to 65535" in capsys.readouterr().err


def test_the_environment_sets_the_defaults_of_the_flags_which_win(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"HOST": "::1", "PORT": "8080", "MODEL": "others.pth", "BACKEND": "torch"}
    for name, value in settings.items():
        monkeypatch.setenv(f"RESFORMER_{name}", value)
    with pytest.raises(SystemExit):
        application.main(["--help"])
    printed = " ".join(capsys.readouterr().out.split())
    for value in settings.values():
        assert f"(default: {value})" in printed
    assert application.main(["--model", "mine.pth"]) == 1
    assert "no checkpoint at mine.pth" in capsys.readouterr().err


def test_a_wsgi_server_takes_the_model_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Path
) -> None:
    monkeypatch.setenv("RESFORMER_MODEL", str(tiny_checkpoint))
    page = application.create_app().test_client().get("/").get_data(as_text=True)
    assert "Viral pneumonia" in page


def test_serving_imports_neither_training_nor_plotting(tiny_checkpoint: Path) -> None:
    code = (
        "import sys, app\n"
        "assert 'torch' not in sys.modules\n"
        "app.create_app()\n"
        "heavy = {'albumentations', 'matplotlib', 'pandas', 'seaborn', 'sklearn', 'scipy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "RESFORMER_MODEL": str(tiny_checkpoint)},
        check=True,
        timeout=PATIENCE,
    )


COUNT_HEAPS = """
import ctypes, sys, threading
from pathlib import Path
from web import WebConfig, create_app
create_app(WebConfig(Path(sys.argv[1]), "cpu"))
together = threading.Barrier(12)
def work():
    kept = bytearray(5000)
    together.wait()
threads = [threading.Thread(target=work) for _ in range(12)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fopen(sys.argv[2].encode(), b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="heaps of glibc")
def test_threads_share_two_heaps(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Each would else keep what its largest film took: memory grew for an hour."""
    out = tmp_path / "heaps.xml"
    command = [sys.executable, "-c", COUNT_HEAPS, str(tiny_checkpoint), str(out)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=PATIENCE)
    assert out.read_text().count("<heap nr=") == 2
