from __future__ import annotations

from typing import Any

import nbformat
import pytest

from tests.notebook_privacy import FILMS_TAG, find_private, remove_films


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
