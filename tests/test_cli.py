"""The command line, from films to a checkpoint to probabilities, and its refusals."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from resformer.checkpoint import load_checkpoint
from resformer.cli import main
from resformer.data.manifest import read_manifest
from tests.data_sets import CLASS_NAMES, write_data_set

ROOT = Path(__file__).parent.parent
QUICK = [
    "--recipe=bare",
    "--start-size=0",
    "--batch-size=8",
    "--input-size=64",
    "--workers=0",
    "--device=cpu",
    "--precision=float32",
]


@pytest.fixture(scope="module")
def trained(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what ``train`` writes."""
    folder = tmp_path_factory.mktemp("trained")
    more = write_data_set(folder / "more", {"Normal": 5}, first_seed=900)
    archive = shutil.make_archive(str(more), "zip", more)
    (folder / "empty").mkdir()
    data = (f"--data={path}" for path in (image_folder, archive, folder / "empty"))
    where = (f"--out={folder / 'best_model.pth'}", f"--run-dir={folder / 'run'}")
    logger, log = logging.getLogger("resformer"), logging.FileHandler(folder / "log.txt")
    logger.addHandler(log)
    logger.setLevel(logging.INFO)
    # Drawn films look so much alike that many would be near-duplicates.
    status = main(["train", *data, *where, *QUICK, "--epochs=1", "--duplicate-threshold=1.1"])
    logger.setLevel(logging.NOTSET)
    logger.removeHandler(log)
    log.close()
    assert status == 0
    return folder


def test_train_writes_a_checkpoint_its_split_and_its_report(trained: Path) -> None:
    checkpoint = load_checkpoint(trained / "best_model.pth")
    assert checkpoint.class_names == CLASS_NAMES
    assert checkpoint.abstention is not None
    assert checkpoint.graph is not None
    metrics = json.loads((trained / "run" / "metrics.json").read_text())
    assert metrics == checkpoint.metrics
    assert (trained / "run" / "history.png").read_bytes().startswith(b"\x89PNG")
    rows = read_manifest(trained / "run" / "manifest.csv").rows
    assert sum(checkpoint.training["films"].values()) == len(rows) == 48 + 5
    joined = [row.path for row in rows if row.path.startswith("data-2/")]
    assert joined == [f"data-2/Normal/images/Normal-{n:03d}.png" for n in range(5)]


def test_train_says_what_it_does_after_the_epochs(trained: Path) -> None:
    log = (trained / "log.txt").read_text()
    after = log[log.index("the epochs are done") :]
    steps = (
        *("fitting the calibration", "measuring on the validation films"),
        *("measuring on the test films", "fitting the gate", "fitting the abstention"),
        *("counting on the test films", "writing the report", "exporting the graph"),
        *("validation accuracy after calibration: ", "test macro_f1 after calibration: "),
    )
    places = [after.index(step) for step in steps]
    assert places == sorted(places)


def test_evaluate_finds_what_train_found_on_the_test_split(
    trained: Path, image_folder: Path
) -> None:
    out = trained / "evaluation"
    data = [f"--data={image_folder}", f"--data={trained / 'more'}", "--device=cpu"]
    split = [f"--manifest={trained / 'run' / 'manifest.csv'}", f"--out={out}"]
    assert main(["evaluate", f"--model={trained / 'best_model.pth'}", *data, *split]) == 0
    report = json.loads((out / "metrics.json").read_text())
    expected = load_checkpoint(trained / "best_model.pth").metrics["test"]
    assert report["confusion_matrix"] == expected["confusion_matrix"]
    assert report["accuracy"] == pytest.approx(expected["accuracy"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--data", "absent"], "absent"),
        (["train", "--data", "absent", "--epochs", "0"], "epochs must be greater than 0"),
        (["evaluate", "--data", ".", "--model", "absent.pth"], "no checkpoint at absent.pth"),
        (["predict", "x.png", "--model", "absent.pth"], "no checkpoint at absent.pth"),
    ],
)
def test_a_mistake_is_one_clear_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    assert message in caplog.text
    assert "Traceback" not in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    listed = re.findall(r"^    ([a-z-]+) ", capsys.readouterr().out, re.MULTILINE)
    assert {"train", "predict", "score", "fit-gate", "export"} <= set(listed)
    for command in listed:
        with pytest.raises(SystemExit) as end:
            main([command, "--help"])
        assert end.value.code == 0
        text = capsys.readouterr().out
        assert f"python -m resformer {command}" in text
        assert ("--overwrite" in text) == (command in {"train", "fit-gate", "export"})


def _start_training(image_folder: Path, folder: Path, *extra: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "resformer", "train", "--data", str(image_folder)]
    command += ["--out", str(folder / "model.pth"), "--run-dir", str(folder / "run")]
    return subprocess.Popen(
        [*command, *QUICK, *extra],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let children be stopped by SIGINT, which the background jobs of a shell ignore."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_training_that_is_stopped_can_be_resumed(
    image_folder: Path, tmp_path: Path, how: signal.Signals
) -> None:
    process = _start_training(image_folder, tmp_path, "--epochs", "500")
    state = tmp_path / "run" / "last.pt"
    deadline = time.monotonic() + 600
    while not state.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(how)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == (130 if how == signal.SIGINT else -how), errors
    assert not (tmp_path / "model.pth").exists()
    assert "Traceback" not in errors
    assert ("--resume goes on" in errors) == (how == signal.SIGINT)

    resumed = _start_training(image_folder, tmp_path, "--epochs", "500", "--resume")
    assert resumed.stderr is not None
    lines = []
    for line in resumed.stderr:
        lines.append(line)
        if "validation loss" in line:
            break
    resumed.kill()
    resumed.communicate(timeout=600)
    assert "validation loss" in lines[-1], lines
