"""The notebook tells its story on drawn films, and its published outputs tell nothing private."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

from resformer.checkpoint import load_checkpoint
from resformer.cli.report import JSON_NAME
from resformer.cli.train import MANIFEST_NAME
from resformer.evaluation.lineage import list_stages
from resformer.evaluation.tables import class_table, overall_table
from resformer.model import ResFormerConfig
from resformer.training.state import STATE_NAME
from tests import notebook_runner
from tests.conftest import CLASS_NAMES
from tests.notebook_privacy import FILMS_TAG, cells_tagged, find_private
from tests.notebook_runner import NOTEBOOK, read_notebook, run_notebook
from tests.training_setup import TINY_TRAINING

_SECONDS_A_CELL = 900
BRANCHES = ("one", "two")


@pytest.fixture(scope="module")
def run(
    image_folder: Path, tiny_config: ResFormerConfig, tmp_path_factory: pytest.TempPathFactory
) -> tuple[NotebookNode, Path]:
    """The notebook after a run on drawn films, and the folder that it wrote to."""
    folder = tmp_path_factory.mktemp("notebook")
    parameters = {
        "dataset_path": image_folder,
        "run_folder": folder / "run",
        "checkpoint_path": folder / "best_model.pth",
        "config": TINY_TRAINING,
        "stages": {
            "first": replace(TINY_TRAINING, epochs=1),
            "second": replace(TINY_TRAINING, epochs=2, input_size=96),
        },
        "branches": {
            name: replace(TINY_TRAINING, epochs=1, input_size=96, seed=seed)
            for seed, name in enumerate(BRANCHES)
        },
        "network": tiny_config,
        "progress": False,
    }
    return run_notebook(NOTEBOOK, parameters, timeout=_SECONDS_A_CELL), folder


def kinds(cell: NotebookNode) -> list[str]:
    return [kind for output in cell.outputs for kind in output.get("data", {})]


def cell_calling(notebook: NotebookNode, text: str) -> NotebookNode:
    cell: NotebookNode
    (cell,) = (c for c in notebook.cells if c.cell_type == "code" and f"{text}(" in c.source)
    return cell


def text_of(cell: NotebookNode) -> str:
    return "".join(output.get("text", "") for output in cell.outputs)


def test_a_run_leaves_a_checkpoint_that_can_be_served(run: tuple[NotebookNode, Path]) -> None:
    checkpoint = load_checkpoint(run[1] / "best_model.pth")
    assert checkpoint.class_names == CLASS_NAMES
    assert checkpoint.input_spec.size == 96
    *stages, mean = list_stages(checkpoint.training)
    assert [len(stage["history"]) for stage in stages] == [1, 2, 1, 1]
    assert mean["history"] == []
    assert sum(checkpoint.training["films"].values()) == 48
    assert (run[1] / "run" / MANIFEST_NAME).is_file()
    for stage in ("first", "second", *BRANCHES):
        assert (run[1] / "run" / stage / STATE_NAME).is_file()


def test_a_run_shows_tables_and_curves_but_no_films(run: tuple[NotebookNode, Path]) -> None:
    notebook = run[0]
    assert kinds(cell_calling(notebook, "plot_history")).count("image/png") == len(BRANCHES)
    assert kinds(cell_calling(notebook, "plot_roc")).count("image/png") == 3
    assert kinds(cell_calling(notebook, "class_table")).count("text/html") == 2
    assert "image/png" in kinds(cell_calling(notebook, "plot_probabilities"))
    assert "0 files could not be read" in text_of(cell_calling(notebook, "build_manifest"))
    assert text_of(cell_calling(notebook, "train")).count("epoch 1: loss") == 2 + len(BRANCHES)
    films = cells_tagged(notebook, FILMS_TAG)
    assert len(films) == 4
    assert all(cell.outputs for cell in films)
    assert find_private(notebook) == []


def test_a_run_keeps_the_notebook_but_for_its_outputs(run: tuple[NotebookNode, Path]) -> None:
    committed = read_notebook()
    assert [cell.source for cell in run[0].cells] == [cell.source for cell in committed.cells]
    assert run[0].metadata == committed.metadata


def test_the_command_finishes_a_stopped_training_and_fills_the_notebook(
    run: tuple[NotebookNode, Path], image_folder: Path, tmp_path: Path
) -> None:
    """The second run, on a .zip, finds the training done: its evaluation is that of the first."""
    archive = shutil.make_archive(str(tmp_path / "films"), "zip", image_folder)
    path = tmp_path / "copy.ipynb"
    notebook = read_notebook()
    (parameters,) = cells_tagged(notebook, notebook_runner.PARAMETERS_TAG)
    state = run[1] / "run"
    checkpoint = load_checkpoint(run[1] / "best_model.pth")
    configs = [stage["config"] for stage in list_stages(checkpoint.training)[:-1]]
    parameters.source += (
        f"\nfirst, second, one, two = [TrainingConfig(**options) for options in {configs!r}]"
        '\nstages, branches = {"first": first, "second": second}, {"one": one, "two": two}'
        f"\nconfig, network = first, {checkpoint.model_config!r}"
    )
    nbformat.write(notebook, path)
    arguments = ["--data", archive, "--run-dir", state, "--notebook", path]
    assert notebook_runner.main([str(argument) for argument in arguments]) == 0
    filled = read_notebook(path)
    assert "epoch 1: loss" not in text_of(cell_calling(filled, "train"))
    first, second = (cell_calling(n, "class_table").outputs for n in (run[0], filled))
    assert first == second
    assert sorted(p.name for p in tmp_path.iterdir()) == ["copy.ipynb", "films.zip"]


def _notebook(tmp_path: Path, *sources: str) -> Path:
    parameters = nbformat.v4.new_code_cell(
        "from pathlib import Path\n"
        "dataset_path = run_folder = checkpoint_path = Path()\n"
        "progress = True",
        metadata={"tags": ["parameters"]},
    )
    cells = [parameters, *map(nbformat.v4.new_code_cell, sources)]
    path = tmp_path / "small.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


def test_a_result_that_tells_where_it_ran_is_not_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = _notebook(tmp_path, "print(dataset_path)")
    before = path.read_bytes()
    assert notebook_runner.main(["--data", str(tmp_path), "--notebook", str(path)]) == 1
    assert "not written: cell 1 tells the path /" in caplog.text
    assert path.read_bytes() == before


def test_a_failing_cell_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = _notebook(tmp_path, "raise ValueError('no such data set')")
    with pytest.raises(CellExecutionError, match="no such data set"):
        run_notebook(path, {})
    assert notebook_runner.main(["--data", str(tmp_path), "--notebook", str(path)]) == 1
    assert "no such data set" in caplog.text


def test_a_parameter_must_be_one_of_the_notebook() -> None:
    with pytest.raises(ValueError, match="no parameter data_path"):
        run_notebook(NOTEBOOK, {"data_path": Path()})


def test_the_published_notebook_is_short_and_tells_nothing_private() -> None:
    notebook = read_notebook()
    nbformat.validate(notebook)
    assert len(notebook.cells) < 25
    assert find_private(notebook) == []
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(line.startswith("class ") for s in sources for line in s.splitlines())


def test_the_published_notebook_carries_the_outputs_of_one_whole_run() -> None:
    """Fill it with ``python -m tests.notebook_runner`` (see there) before it is committed."""
    notebook = read_notebook()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert "image/png" in kinds(cell_calling(notebook, "plot_history"))
    assert kinds(cell_calling(notebook, "plot_roc")).count("image/png") == 3
    assert "text/html" in kinds(cell_calling(notebook, "class_table"))
    assert "Viral Pneumonia" in json.dumps(cell_calling(notebook, "class_table").outputs)


def test_the_published_notebook_has_the_figures_of_the_report() -> None:
    report = json.loads((NOTEBOOK.parent / JSON_NAME).read_text(encoding="utf-8"))["test"]
    shown = json.dumps(cell_calling(read_notebook(), "class_table").outputs)
    cells = [*overall_table(report).values()]
    cells += [str(cell) for row in class_table(report).values() for cell in row.values()]
    assert [cell for cell in cells if cell not in shown] == []
