"""``score``: an archive to a table, stopped at any moment, on one machine and on a Ray cluster."""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from benchmarks import archive as archive_benchmark
from resformer.cli import main
from resformer.orientation import Correction
from resformer.phantom import draw_chest_phantom
from resformer.predict import Predictor
from tests.data_sets import CLASS_NAMES
from tests.web.checkpoints import write_gated_checkpoint, write_upright_checkpoint

FILMS, PART = 40, 8
Found = TypeVar("Found")


@pytest.fixture(autouse=True)
def _log_everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "resformer")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Films in two folders, among them a broken one, and a file that is none."""
    root = tmp_path_factory.mktemp("archive")
    (root / "b").mkdir()
    for number in range(FILMS - 1):
        place = root / "b" if number % 2 else root
        Image.fromarray(draw_chest_phantom(64, seed=number)).save(place / f"{number:02}.png")
    (root / "05 broken.jpg").write_bytes(b"\xff\xd8\xff not a film")
    (root / "notes.txt").write_text("no film")
    return root


@pytest.fixture(scope="module")
def expected(
    archive: Path, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> pa.Table:
    """The archive's table, written without a stop."""
    out = tmp_path_factory.mktemp("scored") / "results.parquet"
    assert score(tiny_checkpoint, archive, out) == 0
    return read(out)


def options_of(model: Path, source: object, out: object, *more: str) -> list[str]:
    same = ["--device", "cpu", f"--part-size={PART}", "--model", str(model), "--out", str(out)]
    return ["score", str(source), *same, *more]


def score(model: Path, source: object, out: object, *more: str) -> int:
    return main(options_of(model, source, out, *more))


def start(*options: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "resformer", *options],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
    )


def read(out: Path) -> pa.Table:
    """The table as anybody reads it, in the order of its keys."""
    return pq.read_table(out).sort_by("key")


def assert_same(found: pa.Table, expected: pa.Table, but: str = "") -> None:
    """Make sure that two tables agree, figures within what a number of threads changes."""
    assert found.schema == expected.schema
    for ours, theirs in zip(found.to_pylist(), expected.to_pylist(), strict=True):
        figures = [name for name, value in theirs.items() if isinstance(value, float)]
        assert [ours.pop(name) for name in figures] == pytest.approx(
            [theirs.pop(name) for name in figures], abs=1e-5
        )
        ours.pop(but, None), theirs.pop(but, None)
        assert ours == theirs


def parts(out: Path) -> list[Path]:
    return sorted(out.glob("part-*.parquet"))


def wait_for(find: Callable[[], Found | None]) -> Found:
    limit = time.monotonic() + 120
    while (found := find()) is None:
        assert time.monotonic() < limit
        time.sleep(0.005)
    return found


def wait_for_a_part(out: Path, process: subprocess.Popen[bytes]) -> None:
    wait_for(lambda: parts(out) or (None if process.poll() is None else []))
    assert process.poll() is None


def wait_for_end(pid: int) -> None:
    wait_for(lambda: None if Path(f"/proc/{pid}").exists() else True)


def test_a_row_for_each_film(archive: Path, tiny_checkpoint: Path, expected: pa.Table) -> None:
    rows = expected.to_pylist()
    assert [row["key"] for row in rows] == list(range(FILMS))
    assert [row["path"] for row in rows] == sorted(
        (path.relative_to(archive).as_posix() for path in archive.rglob("*.[pj][np]g")),
        key=lambda name: (name.startswith("b/"), name),
    )
    predictor = Predictor.from_file(tiny_checkpoint, "cpu")
    for row in rows:
        content = (archive / row["path"]).read_bytes()
        assert row["sha256"] == hashlib.sha256(content).hexdigest()
        assert row["model_sha256"] == hashlib.sha256(tiny_checkpoint.read_bytes()).hexdigest()
        assert "torch " in row["versions"]
        if row["path"] == "05 broken.jpg":
            assert row["error_code"] == "unreadable_image"
            assert "cannot be read" in row["error"]
            assert row["probability_COVID"] is row["predicted_class"] is None
        else:
            answer = predictor.predict(content)
            probabilities = [row[f"probability_{name}"] for name in CLASS_NAMES]
            assert probabilities == pytest.approx(list(answer.probabilities.values()), abs=1e-5)
            assert row["error_code"] is row["error"] is None


def test_the_gate_and_force(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    Image.fromarray(draw_chest_phantom(64)).save(tmp_path / "films" / "film.png")
    gated = write_gated_checkpoint(tiny_checkpoint, tmp_path / "gated.pth", accepts=False)
    for force in (False, True):
        out = tmp_path / f"{force}.parquet"
        assert score(gated, tmp_path / "films", out, *(["--force"] if force else [])) == 0
        (row,) = read(out).to_pylist()
        assert row["gate_accepted"] is False
        assert 0 < row["gate_score"] < 0.5
        assert row["error_code"] == (None if force else "not_a_chest_xray")
        assert (row["probability_Normal"] is not None) == force


def test_what_gets_no_class_is_counted_by_its_reason_and_advised_nothing_that_score_lacks(
    tiny_checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    film, films = draw_chest_phantom(96), tmp_path / "films"
    model = write_upright_checkpoint(tiny_checkpoint, tmp_path / "model.pth", film=film)
    films.mkdir()
    Image.fromarray(film).save(films / "a upright.png")
    Image.fromarray(Correction(rotate=270).apply(film)).save(films / "b sideways.png")
    (films / "c empty.png").touch()
    assert score(model, films, tmp_path / "out") == 0
    rows = read(tmp_path / "out").to_pylist()
    assert [row["error_code"] for row in rows] == [None, "not_a_chest_xray", "empty_file"]
    assert rows[1]["gate_orientation"] == "sideways"
    assert rows[1]["error"].endswith("It looks like a chest X-ray that is sideways.")
    assert "classified 1 films, refused 1 that do not look like chest X-rays, " in caplog.text
    assert "could not read 1, found 0 done before" in caplog.text


def test_lists_and_urls_give_the_same_rows(
    archive: Path, tiny_checkpoint: Path, tmp_path: Path, expected: pa.Table
) -> None:
    names = expected["path"].to_pylist()
    names[0] = str(archive / names[0])
    listed = archive / "list.txt"
    listed.write_text("\n".join(names) + "\n\n")
    memory = fsspec.filesystem("memory")
    memory.put(str(archive), "/bucket", recursive=True)
    memory.pipe_file("/bucket/b/1.2.840.7", b"no DICOM after all")
    sources = (str(listed), listed.as_uri(), archive.as_uri())
    for index, source in enumerate(sources):
        assert score(tiny_checkpoint, source, tmp_path / f"{index}.parquet") == 0
        table = read(tmp_path / f"{index}.parquet")
        assert_same(table, expected, but="path")
    url = "memory://results/table.parquet"
    assert score(tiny_checkpoint, "memory://bucket", url) == 0
    found = pq.read_table("/results/table.parquet", filesystem=memory).sort_by("key")
    rows = {row["path"]: row["sha256"] for row in found.to_pylist()}
    assert rows.pop("b/1.2.840.7")
    assert rows == {row["path"]: row["sha256"] for row in expected.to_pylist()}


@pytest.mark.parametrize("end", ["\n", "\0"])
def test_what_cannot_be_opened_is_a_row(tiny_checkpoint: Path, tmp_path: Path, end: str) -> None:
    (tmp_path / "list.txt").write_text(f"gone.png{end}{tmp_path.as_uri()}/gone.dcm{end}")
    assert score(tiny_checkpoint, tmp_path / "list.txt", tmp_path / "out") == 0
    rows = read(tmp_path / "out").to_pylist()
    assert [row["error_code"] for row in rows] == ["unreadable_file"] * 2
    assert [row["sha256"] for row in rows] == [None, None]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("absent", "there is no folder and no list"),
        ("memory://absent", "there is nothing at"),
        ("film.png", "is a film, no list"),
        ("empty", "no image and no DICOM file"),
    ],
)
def test_what_is_no_archive(
    tiny_checkpoint: Path,
    tmp_path: Path,
    source: str,
    message: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "empty").mkdir()
    Image.fromarray(draw_chest_phantom(64)).save(tmp_path / "film.png")
    place = source if "://" in source else tmp_path / source
    assert score(tiny_checkpoint, place, tmp_path / "out") == 1
    assert message in caplog.text


def test_a_table_is_gone_on_with_by_the_same_run_alone(
    archive: Path, tiny_checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out"
    assert score(tiny_checkpoint, archive, out) == 0
    parts(out)[1].unlink()
    assert score(tiny_checkpoint, archive, out) == 0
    assert f"found {FILMS - PART} done before" in caplog.text
    assert score(tiny_checkpoint, archive, out, "--force") == 1
    assert "was begun with force False, not True" in caplog.text
    (out / "_run.json").unlink()
    assert score(tiny_checkpoint, archive, out) == 1
    assert "holds another table" in caplog.text


def test_nothing_is_lost_when_the_driver_is_killed(
    archive: Path, tiny_checkpoint: Path, tmp_path: Path, expected: pa.Table
) -> None:
    out = tmp_path / "out"
    with start(*options_of(tiny_checkpoint, archive, out)) as process:
        wait_for_a_part(out, process)
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    written = {path: path.stat().st_mtime_ns for path in parts(out)}
    assert score(tiny_checkpoint, archive, out) == 0
    assert_same(read(out), expected)
    assert written.items() <= {path: path.stat().st_mtime_ns for path in parts(out)}.items()


def test_the_benchmark_scores_an_archive_of_drawn_films(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "archive.md"
    model = ["--model", str(tiny_checkpoint), "--out", str(out)]
    archive_benchmark.main([*model, "--films=24", "--part-size=8", "--runs", "one process"])
    (row,) = (line for line in out.read_text().splitlines() if line.startswith("| one process"))
    first, whole, rate = map(float, row.strip("| ").split(" | ")[1:])
    assert 0 < first <= whole
    assert rate > 0


def test_a_cluster_survives_the_death_of_worker_and_driver_and_a_film_that_kills(
    archive: Path, tiny_checkpoint: Path, tmp_path: Path, expected: pa.Table
) -> None:
    """One film is a pipe: whoever reads it waits in the middle of a part, and can be killed."""
    names = [str(archive / name) for name in expected["path"].to_pylist()]
    deadly = FILMS // 2
    names[deadly] = str(pipe := tmp_path / "pipe.png")
    os.mkfifo(pipe)
    (tmp_path / "list.txt").write_text("\n".join(names))
    out = tmp_path / "out"
    options = options_of(tiny_checkpoint, tmp_path / "list.txt", out, "--cluster", "auto")

    with start(*options) as process:
        wait_for_a_part(out, process)
        worker = kill_reader(pipe)
        with open_pipe(pipe) as (_, reader):
            assert reader != worker
            process.kill()
            process.communicate()
            wait_for_end(reader)
    written = {path: path.stat().st_mtime_ns for path in parts(out)}
    assert 0 < len(written) < FILMS // PART

    with start(*options) as process:
        kill_reader(pipe)
        kill_reader(pipe)
        _, messages = process.communicate(timeout=120)
    assert process.returncode == 0, messages.decode()
    assert len(parts(out)) == FILMS // PART
    assert written.items() <= {path: path.stat().st_mtime_ns for path in parts(out)}.items()
    (row,) = read(out).slice(deadly, 1).to_pylist()
    assert row["error_code"] == "unreadable_image"
    assert "dies of this one" in row["error"]
    others = [key for key in range(FILMS) if key != deadly]
    assert_same(read(out).take(others), expected.take(others), but="path")


def kill_reader(pipe: Path) -> int:
    """Kill the process that waits for a pipe, and return which it was."""
    with open_pipe(pipe) as (_, reader):
        os.kill(reader, signal.SIGKILL)
        wait_for_end(reader)
    return reader


@contextmanager
def open_pipe(pipe: Path) -> Iterator[tuple[int, int]]:
    """Wait until a process reads from a pipe; the pipe's end to write to, and the process."""
    end = wait_for(lambda: open_end(pipe))
    try:
        yield end, wait_for(lambda: find_reader(pipe))
    finally:
        os.close(end)


def open_end(pipe: Path) -> int | None:
    with suppress(OSError):  # nobody reads from it
        return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    return None


def find_reader(pipe: Path) -> int | None:
    for handle in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):  # it has gone, or is not ours to look at
            if handle.readlink() == pipe and handle.parts[2] != str(os.getpid()):
                return int(handle.parts[2])
    return None


@pytest.mark.skipif(find_spec("s3fs") is not None, reason="s3fs is installed here")
def test_storage_that_needs_another_library_names_it(
    tiny_checkpoint: Path, archive: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for source, out in (("s3://films", tmp_path / "table"), (archive, "s3://films/table")):
        caplog.clear()
        assert score(tiny_checkpoint, source, out) == 1
        assert "Install s3fs" in caplog.text


def test_a_decoder_that_is_missing_ends_the_run_in_one_line(
    tiny_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    film = tmp_path / "films" / "film.jpg"
    film.parent.mkdir()
    Image.fromarray(draw_chest_phantom(96)).save(film)
    monkeypatch.delattr("PIL.Image.core.jpeg_decoder")
    assert score(tiny_checkpoint, film.parent, tmp_path / "table") == 1
    assert f"{film.name}: JPEG images cannot be decoded here" in caplog.text
    assert not list((tmp_path / "table").glob("part-*"))
