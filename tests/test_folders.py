"""A folder of films to CSV: every film a row, errors in their column, resumable."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from PIL import Image

from resformer.cli import main
from resformer.folders import FolderSummary, predict_folder
from resformer.images import decode_image
from resformer.predict import Predictor
from tests.abstaining import write_abstaining_checkpoint
from tests.phantom import draw_chest_phantom

COLUMNS = [
    *("file", "predicted_class", "confidence", "abstained"),
    *(f"probability_{name}" for name in ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia")),
    "error",
]


@pytest.fixture(scope="module")
def predictor(tiny_checkpoint: Path) -> Predictor:
    return Predictor.from_file(tiny_checkpoint, "cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "films"
    (root / "deep" / "er").mkdir(parents=True)
    (root / ".hidden").mkdir()
    for number in range(18):
        place = root if number % 2 else root / "deep" / "er"
        Image.fromarray(draw_chest_phantom(64, seed=number)).save(place / f"{number:02}.png")
    (root / "broken.jpg").write_bytes(b"\xff\xd8\xff not a film")
    (root / "notes.txt").write_text("no film")
    Image.new("L", (64, 64)).save(root / ".hidden" / "left-out.png")
    return root


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        table = csv.DictReader(file)
        rows = list(table)
    assert table.fieldnames == COLUMNS
    return rows


def test_every_film_is_a_row_with_the_predictors_own_answer(
    predictor: Predictor, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "results.csv"
    assert predict_folder(predictor, folder, out) == FolderSummary(18, 1, 0)
    rows = {row["file"]: row for row in _read(out)}
    assert len(rows) == 19
    row = rows["deep/er/04.png"]
    (expected,) = predictor.predict([decode_image((folder / "deep/er/04.png").read_bytes())])
    assert row["predicted_class"] == expected.predicted_class
    assert row["abstained"] == "false"
    for name, probability in expected.probabilities.items():
        assert float(row[f"probability_{name}"]) == pytest.approx(probability, abs=1e-5)
    assert row["error"] == ""
    assert rows["broken.jpg"]["predicted_class"] == ""
    assert "read" in rows["broken.jpg"]["error"] or "damaged" in rows["broken.jpg"]["error"]


def test_what_is_abstained_on_has_its_probabilities_all_the_same(
    tiny_checkpoint: Path, folder: Path, tmp_path: Path
) -> None:
    path = write_abstaining_checkpoint(tiny_checkpoint, tmp_path / "model.pth")
    predict_folder(Predictor.from_file(path, "cpu"), folder, tmp_path / "results.csv")
    rows = [row for row in _read(tmp_path / "results.csv") if not row["error"]]
    assert {row["abstained"] for row in rows} == {"true"}
    for row in rows:
        total = sum(float(row[name]) for name in COLUMNS if name.startswith("probability"))
        assert total == pytest.approx(1, abs=1e-5)


def test_a_later_run_goes_on_where_the_first_was_cut_off(
    predictor: Predictor, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "results.csv"
    predict_folder(predictor, folder, out)
    whole = out.read_bytes()
    lines = whole.splitlines(keepends=True)
    out.write_bytes(b"".join(lines[:8]) + lines[8][:5])
    assert predict_folder(predictor, folder, out) == FolderSummary(11, 1, 7)
    assert out.read_bytes() == whole


def test_a_table_of_other_classes_is_left_alone(
    predictor: Predictor, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "results.csv"
    out.write_text("file,something else\n")
    with pytest.raises(ValueError, match="was not written by a model with these classes"):
        predict_folder(predictor, folder, out)
    assert out.read_text() == "file,something else\n"


def test_the_table_may_stand_in_the_folder_itself(predictor: Predictor, folder: Path) -> None:
    out = folder / "results.csv"
    predict_folder(predictor, folder, out)
    assert predict_folder(predictor, folder, out) == FolderSummary(0, 0, 19)


@pytest.mark.parametrize("name", ["absent", "empty"])
def test_a_folder_without_films_is_a_clear_error(
    predictor: Predictor, tmp_path: Path, name: str
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="check the path"):
        predict_folder(predictor, tmp_path / name, tmp_path / "results.csv")
    assert not (tmp_path / "results.csv").exists()


def test_the_command_line_takes_a_folder(
    tiny_checkpoint: Path,
    folder: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    out, model = str(tmp_path / "results.csv"), ["--model", str(tiny_checkpoint)]
    assert main(["predict", str(folder), *model]) == 1
    assert "name a CSV file for its films with --out" in caplog.text
    assert main(["predict", str(folder / "01.png"), "--out", out, *model]) == 1
    assert "--out takes one folder" in caplog.text
    (folder / "broken.jpg").unlink()
    assert main(["predict", str(folder), "--out", out, "--device", "cpu", *model]) == 0
    assert len(_read(Path(out))) == 18
