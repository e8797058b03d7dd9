"""``predict``: files to lines, folders to a table, with what the gate and the abstention say."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from resformer.abstention import Reason
from resformer.checkpoint import load_checkpoint, save_checkpoint
from resformer.cli import main
from resformer.images import decode_image
from resformer.orientation import Correction
from resformer.phantom import draw_chest_phantom
from resformer.predict import Predictor
from tests.data_sets import CLASS_NAMES
from tests.dicom_files import radiograph, write
from tests.web import checkpoints

COLUMNS = [
    *("file", "predicted_class", "confidence", "abstained", "reason"),
    *(f"probability_{name}" for name in CLASS_NAMES),
    *("gate_accepted", "gate_score", "gate_threshold", "gate_orientation"),
    *("warnings", "error_code", "error", "invert", "rotate", "model_sha256"),
]
FILM = draw_chest_phantom(96)


@pytest.fixture(autouse=True)
def _log_everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "resformer")


@pytest.fixture(scope="module")
def gated(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that takes every picture with contrast for a film."""
    path = tmp_path_factory.mktemp("gated") / "model.pth"
    return checkpoints.write_gated_checkpoint(tiny_checkpoint, path, accepts=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "films"
    (root / "deep" / "er").mkdir(parents=True)
    for number in range(18):
        place = root if number % 2 else root / "deep" / "er"
        Image.fromarray(draw_chest_phantom(64, seed=number)).save(place / f"{number:02}.png")
    (root / "broken.jpg").write_bytes(b"\xff\xd8\xff not a film")
    return root


@pytest.fixture
def film(tmp_path: Path) -> Path:
    path = tmp_path / "film.png"
    Image.fromarray(FILM).save(path)
    return path


@pytest.fixture
def blank(tmp_path: Path) -> Path:
    path = tmp_path / "blank.png"
    Image.new("L", (96, 96), 90).save(path)
    return path


def predict(model: Path, *arguments: str | Path) -> int:
    return main(["predict", "--model", str(model), "--device", "cpu", *map(str, arguments)])


def read(path: Path) -> dict[str, dict[str, str]]:
    """The rows of a table by the names of their files."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        table = csv.DictReader(file)
        rows = list(table)
    assert table.fieldnames == COLUMNS
    by_name = {row["file"]: row for row in rows}
    assert len(by_name) == len(rows)
    return by_name


def save_film(path: Path) -> None:
    Image.fromarray(FILM).save(path, format="PNG")


def test_a_line_for_each_file(
    tiny_checkpoint: Path,
    film: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken, absent, huge, empty = (
        film.with_name(f"{name}.png") for name in ("broken", "absent", "huge", "empty")
    )
    broken.write_bytes(b"not an image")
    empty.touch()
    with huge.open("wb") as file:
        file.truncate(2**31)
    assert predict(tiny_checkpoint, "--json", film, broken, film, absent, huge, empty) == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (expected,) = Predictor.from_file(tiny_checkpoint, "cpu").predict([FILM])
    assert [line["success"] for line in lines] == [True, False, True, False, False, False]
    for line in (lines[0], lines[2]):
        assert line["file"] == film.as_posix()
        assert line["all_probabilities"] == pytest.approx(expected.probabilities, abs=1e-6)
        assert line["predicted_class"] == expected.predicted_class
        assert line["confidence"] == max(line["all_probabilities"].values())
        assert (line["abstained"], line["gate"], line["warnings"]) == (False, None, [])
    codes = [line["code"] for line in lines if not line["success"]]
    assert codes == ["unsupported_format", "unreadable_file", "image_too_large", "empty_file"]
    assert lines[1]["predicted_class"] is None
    assert f"{broken}: This is not an image" in caplog.text

    assert predict(tiny_checkpoint, film, broken) == 1
    out = capsys.readouterr().out
    assert out.startswith(f"{film}: {expected.predicted_class} {expected.confidence:.3f} (COVID ")
    assert len(out.splitlines()) == 1


@pytest.mark.parametrize("reason", ["undecided", "unfamiliar", None])
def test_what_the_model_abstains_from(
    reason: Reason | None, tiny_checkpoint: Path, film: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = film.with_name("model.pth")
    checkpoints.write_abstaining_checkpoint(tiny_checkpoint, path, reason)
    assert predict(path, film, "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["abstained"], shown["reason"]) == (reason is not None, reason)
    assert [warning["code"] for warning in shown["warnings"]] == ["uncertain"] * bool(reason)
    assert predict(path, film) == 0
    words = f"{reason}, " if reason else ""
    assert capsys.readouterr().out.startswith(f"{film}: {words}{shown['predicted_class']}")


def test_what_the_gate_refuses_gets_no_class(
    gated: Path, film: Path, blank: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(gated, film, blank) == 1
    accepted, refused = capsys.readouterr().out.splitlines()
    assert accepted.endswith(f"), gate {checkpoints.ACCEPTED:.3f}")
    assert refused.startswith(f"{blank}: This image was not classified. It is blank")
    assert not any(name in refused for name in CLASS_NAMES)

    assert predict(gated, film, blank, "--json") == 1
    accepted, refused = map(json.loads, capsys.readouterr().out.splitlines())
    assert accepted["gate"] == {
        "accepted": True,
        "score": pytest.approx(checkpoints.ACCEPTED),
        "threshold": 0.5,
        "orientation": None,
        "correction": None,
    }
    assert (refused["success"], refused["code"]) == (False, "not_a_chest_xray")
    assert refused["gate"]["accepted"] is False
    assert (refused["predicted_class"], refused["all_probabilities"]) == (None, None)


def test_force_names_a_class_with_a_warning(
    gated: Path, blank: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(gated, blank, "--force") == 0
    assert "blank.png: does not look like a chest X-ray, " in capsys.readouterr().out
    assert predict(gated, blank, "--force", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["predicted_class"] in CLASS_NAMES
    assert [warning["code"] for warning in shown["warnings"]] == ["not_a_chest_xray"]
    assert "The estimate may mean nothing." in shown["warnings"][0]["message"]


def test_a_table_carries_gate_warnings_and_abstention(
    tiny_checkpoint: Path, gated: Path, folder: Path, blank: Path, tmp_path: Path
) -> None:
    shutil.copy(blank, folder)
    both = checkpoints.write_abstaining_checkpoint(gated, tmp_path / "both.pth")
    out = tmp_path / "new" / "results.csv"
    assert predict(both, folder, "--out", out) == 1
    rows = read(out)
    assert len(rows) == 20
    row = rows["deep/er/04.png"]
    film = decode_image((folder / "deep/er/04.png").read_bytes())
    (expected,) = Predictor.from_file(tiny_checkpoint, "cpu").predict([film])
    assert row["predicted_class"] == expected.predicted_class
    assert (row["abstained"], row["reason"]) == ("true", "undecided")
    assert row["warnings"] == "uncertain"
    assert (row["gate_accepted"], row["gate_threshold"]) == ("true", "0.500000")
    assert float(row["gate_score"]) == pytest.approx(checkpoints.ACCEPTED, abs=1e-6)
    for name, probability in expected.probabilities.items():
        assert float(row[f"probability_{name}"]) == pytest.approx(probability, abs=1e-5)
    assert (row["error_code"], row["error"]) == ("", "")

    refused = rows["blank.png"]
    assert [refused[column] for column in COLUMNS[1:9]] == [""] * 8
    assert (refused["gate_accepted"], refused["error_code"]) == ("false", "not_a_chest_xray")
    assert rows["broken.jpg"]["error_code"] == "unreadable_image"
    assert [rows["broken.jpg"][column] for column in COLUMNS[1:14]] == [""] * 13

    out = tmp_path / "forced.csv"
    predict(both, folder, "--out", out, "--force")
    assert read(out)["blank.png"]["predicted_class"] in CLASS_NAMES
    assert read(out)["blank.png"]["warnings"] == "not_a_chest_xray uncertain"


def test_a_film_on_its_side_is_told_how_to_turn_it_and_then_read(
    tiny_checkpoint: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = checkpoints.write_upright_checkpoint(tiny_checkpoint, tmp_path / "model.pth", film=FILM)
    film = tmp_path / "film.png"
    Image.fromarray(Correction(invert=True, rotate=270).apply(FILM)).save(film)
    assert predict(model, film) == 1
    told = "It looks like a chest X-ray that is inverted and sideways. Try --invert --rotate 90."
    assert f"{film}: This image was not classified. {told}" in capsys.readouterr().out
    assert predict(model, film, "--json") == 1
    gate = json.loads(capsys.readouterr().out)["gate"]
    assert gate["orientation"] == "inverted_sideways"
    assert gate["correction"] == {"invert": True, "rotate": 90}
    assert predict(model, film, "--json", "--force") == 0
    (warning,) = json.loads(capsys.readouterr().out)["warnings"]
    assert warning["message"].startswith(
        "It looks like a chest X-ray that is inverted and sideways"
    )
    assert predict(model, film, "--json", "--invert", "--rotate", "90") == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["gate"]["orientation"], answer["gate"]["correction"]) == (None, None)
    upright = Predictor.from_file(model, "cpu").predict(FILM)
    assert answer["all_probabilities"] == pytest.approx(upright.probabilities, abs=1e-6)
    out = tmp_path / "results.csv"
    (tmp_path / "turned").mkdir()
    shutil.copy(film, tmp_path / "turned")
    assert predict(model, tmp_path / "turned", "--out", out) == 1
    assert read(out)["film.png"]["gate_orientation"] == "inverted_sideways"


def test_the_track_record_of_the_class_is_told(
    tiny_checkpoint: Path, film: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = checkpoints.write_recorded_checkpoint(tiny_checkpoint, film.with_name("model.pth"))
    assert predict(path, film, "--json") == 0
    assert json.loads(capsys.readouterr().out)["track_record"] == {"called": 9, "right": 7}


def test_force_does_not_go_on_with_a_table_of_refused_films(
    tiny_checkpoint: Path, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    refusing = checkpoints.write_gated_checkpoint(
        tiny_checkpoint, tmp_path / "model.pth", accepts=False
    )
    out = tmp_path / "results.csv"
    predict(refusing, folder, "--out", out)
    assert float(read(out)["01.png"]["gate_score"]) == pytest.approx(checkpoints.REFUSED, abs=1e-6)
    assert predict(refusing, folder, "--out", out, "--force") == 1
    assert "refused without --force: name another file" in caplog.text

    forced = tmp_path / "forced.csv"
    assert predict(refusing, folder, "--out", forced, "--force") == predict(
        refusing, folder, "--out", forced, "--force"
    )
    before = forced.read_bytes()
    assert predict(refusing, folder, "--out", forced) == 1
    assert "answered by --force: use it again" in caplog.text
    assert forced.read_bytes() == before


@pytest.mark.parametrize("other", [("--invert",), ("--rotate", "90"), ()])
def test_a_table_holds_the_answers_of_one_model_to_films_that_lie_alike(
    tiny_checkpoint: Path,
    gated: Path,
    folder: Path,
    tmp_path: Path,
    other: tuple[str, ...],
    caplog: pytest.LogCaptureFixture,
) -> None:
    out = tmp_path / "results.csv"
    predict(tiny_checkpoint, folder, "--out", out)
    row = read(out)["01.png"]
    assert (row["invert"], row["rotate"]) == ("0", "0")
    assert row["model_sha256"] == hashlib.sha256(tiny_checkpoint.read_bytes()).hexdigest()
    whole = out.read_bytes()
    out.write_bytes(b"".join(whole.splitlines(keepends=True)[:8]))
    before = out.read_bytes()
    model = tiny_checkpoint if other else gated
    assert predict(model, folder, "--out", out, *other) == 1
    assert "another model answered, or that were inverted or turned otherwise" in caplog.text
    assert out.read_bytes() == before


@pytest.mark.parametrize("cut", [5, -1])
def test_a_later_run_goes_on_where_the_first_was_cut_off(
    tiny_checkpoint: Path,
    folder: Path,
    tmp_path: Path,
    cut: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    out = tmp_path / "results.csv"
    predict(tiny_checkpoint, folder, "--out", out)
    whole = out.read_bytes()
    lines = whole.splitlines(keepends=True)
    out.write_bytes(b"".join(lines[:8]) + lines[8][:cut])
    caplog.clear()
    predict(tiny_checkpoint, folder, "--out", out)
    assert "classified 11 films, refused 0 that do not look like chest X-rays" in caplog.text
    assert "could not read 1, found 7 done before" in caplog.text
    assert out.read_bytes() == whole


def test_the_exit_status_is_the_same_when_all_was_done_before(
    tiny_checkpoint: Path, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "results.csv"
    assert predict(tiny_checkpoint, folder, "--out", out) == 1
    assert predict(tiny_checkpoint, folder, "--out", out) == 1
    assert "found 19 done before, 1 of them without a class" in caplog.text
    (folder / "broken.jpg").unlink()  # its row stays, and is none of the films asked for now
    assert predict(tiny_checkpoint, folder, "--out", out) == 0


def test_a_table_that_a_spreadsheet_saved_again_is_gone_on_with(
    tiny_checkpoint: Path, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "results.csv"
    predict(tiny_checkpoint, folder, "--out", out)
    out.write_bytes(b"\xef\xbb\xbf" + b"".join(out.read_bytes().splitlines(keepends=True)[:10]))
    predict(tiny_checkpoint, folder, "--out", out)
    assert "found 9 done before" in caplog.text
    assert len(read(out)) == 19


@pytest.mark.parametrize(
    "content", [b"file,something else\n", b"\xff\xfef\0i\0l\0e\0\n", b'"' + b"x" * 200_000 + b"\n"]
)
def test_a_table_of_another_kind_is_left_alone(
    tiny_checkpoint: Path,
    folder: Path,
    tmp_path: Path,
    content: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    out = tmp_path / "results.csv"
    out.write_bytes(content)
    assert predict(tiny_checkpoint, folder, "--out", out) == 1
    assert "was not written by a model with these classes" in caplog.text
    assert out.read_bytes() == content


def test_two_runs_do_not_write_to_the_same_table(
    tiny_checkpoint: Path, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "many").mkdir()
    for number in range(160):
        save_film(tmp_path / "many" / f"{number}.png")
    out = tmp_path / "results.csv"
    command = [sys.executable, "-m", "resformer", "predict", "--model", str(tiny_checkpoint)]
    command += ["--device", "cpu", "--out", str(out), str(tmp_path / "many")]
    root = Path(__file__).parent.parent
    with subprocess.Popen(command, cwd=root, stderr=subprocess.DEVNULL) as other:
        while not out.exists() or out.read_bytes().count(b"\n") < 2:
            assert other.poll() is None
            time.sleep(0.01)
        other.send_signal(signal.SIGSTOP)
        assert predict(tiny_checkpoint, tmp_path / "many", "--out", out) == 1
        assert "another run is writing to" in caplog.text
        other.kill()
    assert predict(tiny_checkpoint, tmp_path / "many", "--out", out) == 0
    assert len(read(out)) == 160


HARD_NAMES = {
    b"no\xe9l.png": "no\\xe9l.png",
    b"two\nlines.png": "two\\nlines.png",
    b"two\\nlines.png": "two\\\\nlines.png",
    "Röntgen 影像.png".encode(): "Röntgen 影像.png",
    b"\xe2\x80\xa8.png": "\\u2028.png",
    b"=1+1.png": "./=1+1.png",
    b"+1.png": "./+1.png",
    b"-1.png": "./-1.png",
    b"@SUM(A1).png": "./@SUM(A1).png",
    "\uff1d1.png".encode(): "./\uff1d1.png",
    b'comma, "quote".png': 'comma, "quote".png',
}


def test_names_that_are_hard_to_write_are_films_like_others(
    tiny_checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    root, out = tmp_path / "films", tmp_path / "results.csv"
    root.mkdir()
    paths = [Path(os.fsdecode(os.fsencode(root) + b"/" + name)) for name in HARD_NAMES]
    for path in paths:
        save_film(path)
    assert predict(tiny_checkpoint, root, "--out", out) == 0
    assert set(read(out)) == set(HARD_NAMES.values())
    assert out.read_bytes().count(b"\n") == 1 + len(HARD_NAMES)
    content = out.read_bytes()
    assert predict(tiny_checkpoint, root, "--out", out) == 0
    assert f"found {len(HARD_NAMES)} done before" in caplog.text
    assert out.read_bytes() == content

    assert predict(tiny_checkpoint, *paths) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(HARD_NAMES)
    assert predict(tiny_checkpoint, "--json", *paths) == 0
    names = [json.loads(line)["file"] for line in capsys.readouterr().out.splitlines()]
    assert len(set(names)) == len(HARD_NAMES)


def test_films_are_found_by_content_and_through_links(
    tiny_checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root, outside = tmp_path / "films", tmp_path / "outside"
    for place in (root / "series", root / "@eaDir", root / "$RECYCLE.BIN", outside / "deep"):
        place.mkdir(parents=True)
    dicom = write(radiograph(FILM))
    films = ["1.2.840.113", "IM000001", "a.dic", "b.IMA", "c.dcm", "series/00000001.7f3"]
    for name in films:
        (root / name).write_bytes(dicom)
    for name in ("e.jfif", "f.jpe", "g", "h.png.bak", "series/k.tiff"):
        save_film(root / name)
        films.append(name)
    save_film(outside / "deep" / "linked.png")
    (root / "link").symlink_to(outside)
    (root / "series" / "again").symlink_to(outside / "deep")
    (root / "series" / "loop").symlink_to(root)
    (root / "broken").symlink_to(tmp_path / "nowhere")
    (root / "itself").symlink_to("itself")
    (root / "empty.png").touch()
    for name in (".hidden.png", "@eaDir/thumb.png", "$RECYCLE.BIN/deleted.png"):
        save_film(root / name)
    (root / "notes.txt").write_text("no film")
    (root / "report.pdf").write_text("%PDF-1.7")
    (root / "DICOMDIR").write_bytes(write(radiograph(FILM, SOPClassUID="1.2.840.10008.1.3.10")))

    out = root / "results.csv"
    for _ in range(2):
        assert predict(tiny_checkpoint, root, "--out", out) == 1
        rows = read(out)
        assert set(rows) == {*films, "link/deep/linked.png", "empty.png"}
        assert [name for name in rows if rows[name]["error"]] == ["empty.png"]
    for words in (
        "left out 2 (neither an image nor DICOM): ",
        "left out 3 (hidden, or of the system): ",
        "left out 1 (tables of contents (DICOMDIR)): ",
        "left out 2 (links to folders that are looked at already): ",
        "left out 2 (broken links and other things that are no files): ",
    ):
        assert words in caplog.text
    assert "DICOM): notes.txt; report.pdf" in caplog.text
    assert "results.csv.lock" not in caplog.text


@pytest.mark.parametrize("name", ["absent", "empty"])
def test_a_folder_without_films_is_a_clear_error(
    tiny_checkpoint: Path, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no film")
    assert predict(tiny_checkpoint, tmp_path / name, "--out", tmp_path / "results.csv") == 1
    assert "name the folder" in caplog.text or "check the path" in caplog.text
    assert not (tmp_path / "results.csv").exists()


@pytest.mark.parametrize("out", ["/dev/full", "/proc/results.csv", "."])
def test_a_table_that_cannot_be_written_is_a_clear_error(
    out: str, tiny_checkpoint: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert predict(tiny_checkpoint, folder, "--out", out) == 1
    assert "is not a file: name a CSV file to write" in caplog.text or "No such file" in caplog.text


def test_names_of_classes_are_no_formulas_and_no_lines(
    tiny_checkpoint: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("=1+1", "@sum", "+2", "-b")
    model, out = tmp_path / "model.pth", tmp_path / "results.csv"
    checkpoint = dataclasses.replace(load_checkpoint(tiny_checkpoint), class_names=names)
    save_checkpoint(checkpoint, model)
    predict(model, folder, "--out", out)
    assert out.read_bytes().count(b"\n") == 20
    with out.open(newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not any(cell.startswith(("=", "+", "-", "@")) for cell in cells)
    assert predict(model, folder / "01.png") == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_usage_is_checked_before_the_model_is_loaded(
    folder: Path, film: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out, model = tmp_path / "results.csv", tmp_path / "absent.pth"
    assert predict(model, folder) == 1
    assert "name a CSV file for its films with --out" in caplog.text
    assert predict(model, film, "--out", out) == 1
    assert "--out takes one folder" in caplog.text
    assert predict(model, folder, "--out", out, "--json") == 1
    assert "--json is for files" in caplog.text


@pytest.mark.skipif(sys.platform == "win32", reason="pipes break there in another way")
def test_a_reader_who_has_enough_is_no_error(gated: Path, folder: Path) -> None:
    films = [str(path) for path in sorted(folder.rglob("*.png"))]
    command = [sys.executable, "-m", "resformer", "predict", "--model", str(gated), *films]
    root = Path(__file__).resolve().parent.parent
    with subprocess.Popen(
        command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout
        assert running.stderr
        running.stdout.close()
        assert "roken pipe" not in running.stderr.read()
    assert running.returncode == 1
