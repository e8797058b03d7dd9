"""Pictures of an evaluation, and the folders that they are written to."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.lines import Line2D
from PIL import Image

from resformer.checkpoint import Checkpoint
from resformer.evaluation import plots
from resformer.evaluation.metrics import evaluate_predictions
from resformer.evaluation.predictions import Predictions, evaluate_abstention
from resformer.evaluation.report import write_evaluation, write_training_report
from resformer.model import IdentityMappingResFormer, ResFormerConfig, list_parts
from resformer.phantom import draw_chest_phantom
from resformer.predict import Predictor
from resformer.transforms import InputSpec

NAMES = ("COVID", "Lung_Opacity", "Viral Pneumonia")
LABELS = np.array([0, 0, 0, 1, 1, 1])
PROBABILITIES = np.array(
    [
        [0.8, 0.1, 0.1],
        [0.6, 0.3, 0.1],
        [0.4, 0.5, 0.1],
        [0.1, 0.8, 0.1],
        [0.2, 0.7, 0.1],
        [0.1, 0.3, 0.6],
    ]
)
HISTORY = [
    {
        "epoch": epoch,
        "train_loss": 1.0 / epoch,
        "validation_loss": 1.1 / epoch,
        "validation_accuracy": 0.5 + 0.1 * epoch,
        "validation_macro_f1": score,
    }
    for epoch, score in ((1, 0.5), (2, 0.8), (3, 0.8))
]


def legend(axes: Axes) -> list[str]:
    found = axes.get_legend()
    assert found is not None
    return [text.get_text() for text in found.get_texts()]


def points(line: Line2D) -> list[list[float]]:
    return [[float(x), float(y)] for x, y in np.asarray(line.get_xydata()).round(9)]


def test_history_draws_the_curves_and_marks_the_first_best_epoch() -> None:
    losses, scores = plots.plot_history(HISTORY).axes
    assert legend(losses) == ["Training", "Validation", "Best epoch (2)"]
    assert legend(scores) == ["Accuracy", "Macro F1", "Best epoch (2)"]
    assert points(losses.lines[0]) == [[1, 1], [2, 0.5], [3, pytest.approx(1 / 3)]]
    assert points(scores.lines[1]) == [[1, 0.5], [2, 0.8], [3, 0.8]]
    assert [x for x, _ in points(losses.lines[2])] == [2, 2]


def test_history_must_be_complete() -> None:
    with pytest.raises(ValueError, match="history is empty"):
        plots.plot_history([])
    with pytest.raises(ValueError, match=r"missing: \['train_loss'\]"):
        plots.plot_history([HISTORY[0], {k: v for k, v in HISTORY[1].items() if k != "train_loss"}])


def test_confusion_matrix_shows_counts_and_shares() -> None:
    report = evaluate_predictions(LABELS, PROBABILITIES, NAMES, bootstrap=0)
    (axes,) = plots.plot_confusion_matrix(report).axes
    cells = np.reshape([text.get_text() for text in axes.texts], (3, 3))
    assert cells[0].tolist() == ["2\n66.7%", "1\n33.3%", "0\n0.0%"]
    assert cells[1].tolist() == ["0\n0.0%", "2\n66.7%", "1\n33.3%"]
    assert cells[2].tolist() == ["0\n0.0%"] * 3
    assert [text.get_text() for text in axes.get_yticklabels()] == [
        "COVID\n(n = 3)",
        "Lung_Opacity\n(n = 3)",
        "Viral\nPneumonia\n(n = 0)",
    ]


def test_roc_names_the_area_of_each_class() -> None:
    whole, corner = plots.plot_roc(LABELS, PROBABILITIES, NAMES).axes
    assert legend(whole) == [
        "Chance",
        "COVID (AUC 1.000)",
        "Lung_Opacity (AUC 0.833)",
        "Viral Pneumonia (AUC undefined)",
    ]
    assert len(corner.lines) == 2
    assert points(whole.lines[1]) == [
        [0, 0],
        [0, pytest.approx(1 / 3)],
        [0, 1],
        [pytest.approx(1 / 3), 1],
        [1, 1],
    ]


def test_reliability_places_accuracy_over_confidence() -> None:
    curve, histogram = plots.plot_reliability(LABELS, PROBABILITIES).axes
    # Bins of 1/15: {0.5}, {0.6, 0.6}, {0.7}, {0.8, 0.8}.
    assert points(curve.lines[-1]) == [[0.5, 0], [0.6, 0.5], [0.7, 1], [0.8, 1]]
    (bars,) = histogram.containers
    assert isinstance(bars, BarContainer)
    heights = np.asarray(bars.datavalues)
    assert heights[heights > 0].tolist() == [1, 2, 1, 2]
    found = curve.get_legend()
    assert found is not None
    assert found.get_title().get_text() == "Expected calibration error 0.233"


def test_risk_is_drawn_over_coverage_and_the_shipped_model_as_a_point() -> None:
    labels, films = np.array([0, 1, 0, 1]), np.arange(4)
    given = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    found = evaluate_abstention(labels, Predictions(given, films == 3, films < 0))
    curve, shipped = plots.plot_risk_coverage(labels, given, found).axes[0].lines
    assert points(curve) == [[0.25, 0], [0.5, 0.5], [0.75, pytest.approx(1 / 3)], [1, 0.5]]
    assert points(shipped) == [[0.75, pytest.approx(1 / 3)]]


def test_films_are_drawn_in_rows_each_under_its_title() -> None:
    films = [np.full((side, side), grey, np.uint8) for grey, side in ((0, 4), (90, 8), (255, 4))]
    figure = plots.plot_films(films, ["a", "b\nc", "d"], columns=2)
    drawn = figure.axes[:3]
    assert [axes.get_title() for axes in drawn] == ["a", "b\nc", "d"]
    assert [int(np.max(np.asarray(axes.images[0].get_array()))) for axes in drawn] == [0, 90, 255]
    assert {axes.images[0].get_clim() for axes in drawn} == {(0.0, 255.0)}
    assert not any(axes.axison for axes in figure.axes)
    assert not figure.axes[3].images
    assert len(plots.plot_films(films[:1], ["one"]).axes) == 1
    for count, titles in ((0, []), (2, ["one"]), (1, ["one", "two"])):
        with pytest.raises(ValueError, match="one title for each film"):
            plots.plot_films(films[:count], titles)


@pytest.mark.parametrize(("lung_head", "boxes"), [(True, 16), (False, 15)])
def test_the_network_is_drawn_with_the_shapes_of_its_parts(lung_head: bool, boxes: int) -> None:
    config = ResFormerConfig(num_classes=3, lung_head=lung_head)
    (axes,) = plots.plot_network(config, 96).axes
    assert len(axes.patches) == boxes
    texts = "\n".join(text.get_text() for text in axes.texts)
    assert all(text in texts for text in ("1 x 96 x 96", "64 x 12 x 12", "3 logits"))
    assert ("lung head" in texts) == lung_head
    parts = list_parts(config, 96)
    weights = IdentityMappingResFormer(config).parameters()
    assert sum(part.parameters for part in parts) == sum(weight.numel() for weight in weights)


def test_evidence_is_drawn_with_the_outline_of_the_lungs() -> None:
    torch.manual_seed(0)
    config = ResFormerConfig(num_classes=3, lung_head=True)
    weights = IdentityMappingResFormer(config).state_dict()
    predictor = Predictor(Checkpoint(config, NAMES, InputSpec(size=64), weights), "cpu")
    film = draw_chest_phantom(96)
    plain, evidence = plots.plot_evidence(film, predictor.predict(film), "Lung_Opacity").axes
    assert plain.get_title() == "Film and outline of the lungs"
    assert evidence.get_title().startswith("Evidence for Lung_Opacity, P = ")
    assert [len(axes.images) for axes in (plain, evidence)] == [1, 2]
    with pytest.raises(ValueError, match="no class 'Normal'"):
        plots.plot_evidence(film, predictor.predict(film), "Normal")


def test_an_evaluation_folder_holds_the_numbers_and_the_pictures(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "report"
    report = evaluate_predictions(LABELS, PROBABILITIES, NAMES, bootstrap=20)
    paths = write_evaluation(report, LABELS, PROBABILITIES, folder)
    names = ["metrics.json", "confusion_matrix.png", "roc.png", "reliability.png"]
    assert [path.name for path in paths] == names
    assert sorted(folder.iterdir()) == sorted(paths)
    assert json.loads(paths[0].read_text(encoding="utf-8")) == report
    for path in paths[1:]:
        with Image.open(path) as image:
            assert image.format == "PNG"
            assert min(image.size) >= 600
            assert len(set(image.convert("L").tobytes())) > 20
    assert plt.get_fignums() == []


def test_training_report_holds_every_split_and_the_history(tmp_path: Path) -> None:
    report = evaluate_predictions(LABELS, PROBABILITIES, NAMES, bootstrap=0)
    paths = write_training_report({"validation": report, "test": report}, HISTORY, tmp_path)
    assert [path.name for path in paths] == [
        "metrics.json",
        "history.json",
        "history.png",
        "confusion_matrix_validation.png",
        "confusion_matrix_test.png",
    ]
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    metrics, history = (json.loads(path.read_text(encoding="utf-8")) for path in paths[:2])
    assert metrics == {"validation": report, "test": report}
    assert history == HISTORY


def test_tiles_are_drawn_row_by_row() -> None:
    films = [np.full((8, 6), 60 * number, dtype=np.uint8) for number in range(4)]
    (axes,) = plots.plot_tiles(films, "four", columns=3).axes
    grid = np.asarray(axes.images[0].get_array())
    assert grid.shape == (2 * 12 + 4, 3 * 10 + 4)
    assert [int(grid[8, column]) for column in (7, 17, 27)] == [0, 60, 120]
    assert (grid[20, 7], grid[20, 17]) == (180, 255)
    with pytest.raises(ValueError, match="all of one size"):
        plots.plot_tiles([films[0], films[0][:4]], "two")
