"""The notebook runs on any folder of classes, and what is published of it is short and private."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat import NotebookNode
from PIL import Image

import resformer
from resformer.cli.report import JSON_NAME
from resformer.evaluation.tables import overall_table
from resformer.phantom import draw_chest_phantom
from tests import notebook_runner
from tests.data_sets import CLASS_NAMES, write_masked_films
from tests.notebook_runner import (
    FILMS_TAG,
    NOTEBOOK,
    cells_tagged,
    find_private,
    read_notebook,
    remove_films,
    run_notebook,
)

TINY = {
    "epochs": 1,
    "lung_epochs": 1,
    "input_size": 64,
    "start_size": 0,
    "batch_size": 8,
    "workers": 0,
    "device": "cpu",
}


def run_tiny(folder: Path, data: Path, **parameters: Any) -> NotebookNode:
    given = {"dataset_path": str(data), "run_folder": str(folder / "run"), "progress": False}
    given |= {"changes": TINY, **parameters}
    return run_notebook(NOTEBOOK, given, timeout=900)


def outputs_of(notebook: NotebookNode, code: str) -> str:
    """Everything that the one cell with a piece of code shows, as JSON."""
    (cell,) = (c for c in notebook.cells if c.cell_type == "code" and code in c.source)
    return json.dumps(cell.outputs)


def test_films_with_masks_become_a_model_that_can_be_served(tmp_path: Path) -> None:
    write_masked_films(tmp_path / "films", masked=2, darker=0.15)
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "clinic").mkdir(parents=True)
    Image.fromarray(draw_chest_phantom(96, seed=900)).save(elsewhere / "clinic" / "a.png")
    (elsewhere / "labels.csv").write_text("set,file,finding\nclinic,a.png,no finding\n")
    notebook = run_tiny(tmp_path, tmp_path / "films", external_path=str(elsewhere))

    model = resformer.load(tmp_path / "run" / "model" / "model.pth")
    assert model.class_names == CLASS_NAMES
    assert model.checkpoint.model_config.lung_head
    assert model.checkpoint.graph is not None
    assert model.backend == "onnxruntime"
    assert "1 epochs with" in outputs_of(notebook, "estimate_seconds")
    assert "resnet18" in outputs_of(notebook, "train_baseline")
    assert outputs_of(notebook, "run_controls").count("image/png") == 1
    assert "called COVID" in outputs_of(notebook, "examine_folder")
    assert all(cell.outputs for cell in cells_tagged(notebook, FILMS_TAG))
    assert find_private(notebook) == []
    sources = [cell.source for cell in read_notebook().cells]
    assert [cell.source for cell in notebook.cells] == sources


def test_two_classes_without_masks_and_without_normal_suffice(
    image_folder: Path, tmp_path: Path
) -> None:
    for name, kept in (("healthy", "Normal"), ("ill", "COVID")):
        shutil.copytree(image_folder / kept / "images", tmp_path / "films" / name)
    notebook = run_tiny(tmp_path, tmp_path / "films")
    model = resformer.load(tmp_path / "run" / "model" / "model.pth")
    assert model.class_names == ("healthy", "ill")
    assert model.checkpoint.model_config.lung_head  # the shipped model outlined the lungs
    assert "lungs blacked out" in outputs_of(notebook, "run_controls")
    assert "left out" in outputs_of(notebook, "examine_folder")


def _notebook(tmp_path: Path, *sources: str) -> Path:
    parameters = nbformat.v4.new_code_cell(
        'dataset_path = run_folder = external_path = changes = ""\nprogress = True',
        metadata={"tags": ["parameters"]},
    )
    cells = [parameters, *map(nbformat.v4.new_code_cell, sources)]
    path = tmp_path / "small.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


def test_the_command_fills_a_notebook_and_takes_films_out(tmp_path: Path) -> None:
    picture = "from PIL import Image\nImage.new('L', (8, 8))"
    path = _notebook(tmp_path, picture, picture)
    notebook = read_notebook(path)
    notebook.cells[1].metadata["tags"] = [FILMS_TAG]
    nbformat.write(notebook, path)
    assert notebook_runner.main(["--data", str(tmp_path), "--notebook", str(path)]) == 0
    film, drawing = read_notebook(path).cells[1:]
    assert "image/png" not in film.outputs[0].data
    assert "image/png" in drawing.outputs[0].data


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("print(dataset_path)", "not written: cell 1 tells the path /"),
        ("raise ValueError('no such data set')", "no such data set"),
    ],
)
def test_what_fails_or_tells_where_it_ran_is_not_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, source: str, message: str
) -> None:
    path = _notebook(tmp_path, source)
    before = path.read_bytes()
    assert notebook_runner.main(["--data", str(tmp_path), "--notebook", str(path)]) == 1
    assert message in caplog.text
    assert path.read_bytes() == before


def test_a_parameter_must_be_one_of_the_notebook() -> None:
    with pytest.raises(ValueError, match="no parameter data_path"):
        run_notebook(NOTEBOOK, {"data_path": ""})


def test_the_published_notebook_is_whole_short_and_tells_nothing_private() -> None:
    """Fill it with ``python -m tests.notebook_runner`` (see there) before it is committed."""
    notebook = read_notebook()
    nbformat.validate(notebook)
    assert len(notebook.cells) < 25
    assert find_private(notebook) == []
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    pictures = [c for c in code if "resformer.plots" in c.source and c not in _films(notebook)]
    assert all("image/png" in json.dumps(cell.outputs) for cell in pictures)


def _films(notebook: NotebookNode) -> list[NotebookNode]:
    return cells_tagged(notebook, FILMS_TAG)


def test_the_published_notebook_quotes_the_figures_of_the_shipped_model() -> None:
    report = json.loads((NOTEBOOK.parent / "docs" / JSON_NAME).read_text(encoding="utf-8"))
    shown = outputs_of(read_notebook(), 'load("best_model.pth")')
    assert [f for f in overall_table(report["test"]).values() if f not in shown] == []


def _output(**data: str) -> dict[str, Any]:
    return {"output_type": "display_data", "metadata": {}, "data": data}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("loaded /home/ann/films", "/home/ann"),
        ("at=/tmp/x1/run.", "/tmp/x1"),
        (r"C:\films\a.png", "C:\\"),
        ("see ~/films", "~/f"),
        ("file:///films", "file://"),
        ("COVID/images/COVID-1.png, 130 images/s, <td>1</td>, http://localhost:5000/predict", ""),
        ("<Class>/images/* or POST /predict", ""),
    ],
)
def test_paths_of_a_machine_are_found(text: str, told: str) -> None:
    cell = nbformat.v4.new_code_cell(outputs=[nbformat.from_dict(_output(html=text))])
    expected = [f"cell 0 tells the path {told}"] if told else []
    assert find_private(nbformat.v4.new_notebook(cells=[cell])) == expected


def test_films_and_errors_are_found_and_films_removed() -> None:
    picture = {"image/png": "iVBO", "text/plain": "<Figure>"}
    error = {"output_type": "error", "ename": "E", "evalue": "", "traceback": []}
    film = nbformat.v4.new_code_cell(
        outputs=[nbformat.from_dict(_output(**picture))], metadata={"tags": [FILMS_TAG]}
    )
    curve = nbformat.v4.new_code_cell(
        outputs=[nbformat.from_dict(o) for o in (_output(**picture), error)]
    )
    notebook = nbformat.v4.new_notebook(cells=[film, curve])
    assert find_private(notebook) == ["cell 0 shows films", "cell 1 ended in an error"]
    remove_films(notebook)
    assert list(film.outputs[0].data) == ["text/plain"]
    assert list(curve.outputs[0].data) == ["image/png", "text/plain"]
