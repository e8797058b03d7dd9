"""Measure networks on validation films that were changed as another hospital would change them.

    python -m benchmarks.elsewhere --data FOLDER --beside OTHER.pth

A training varies its films too; these changes are harsher, and come all at once in the end. What
they cost put networks of different recipes in the order of other hospitals, without a film from
there, but not three seeds of one recipe: docs/experiments.md ("What validation films can tell of
other hospitals") has the comparison.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import albumentations as A
import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from benchmarks.common import build_data_parser, list_data_sets, publish
from resformer.backends import PyTorchBackend
from resformer.data.augment import STRENGTHS, appearance_transforms, seed_transforms
from resformer.data.dataset import FilmDataset
from resformer.data.manifest import read_manifest
from resformer.data.surroundings import BackgroundReplacement, StyleExchange
from resformer.data.unpack import open_data_roots
from resformer.evaluation.metrics import evaluate_predictions
from resformer.evaluation.predictions import predict_films, predict_lungs
from resformer.evaluation.tables import render_table
from resformer.predict import Predictor
from resformer.training.data import TrainingData
from resformer.transforms import resize_pixels

Pixels = NDArray[np.uint8]
# From the index of a film to the changed film, ``(H, W)``.
Change = Callable[[int], Pixels]

HEALTHY, ASKED = "Normal", "COVID"
ALL_AT_ONCE = "all at once"
TONES = replace(
    STRENGTHS["strongest"],
    intensity_probability=1.0,
    tone_probability=1.0,
    equalisation_probability=0.5,
    illumination=(0.08, 0.2),
    illumination_probability=0.7,
)
# Factor by which the film is made wider or narrower, and higher or lower.
_STRETCH = (0.75, 1.25)
_SEED_OF_STYLE = 9999


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all networks, and write the table."""
    parser = build_data_parser(__doc__, "elsewhere")
    parser.add_argument(
        "--beside", type=Path, nargs="*", default=[], help="checkpoints to compare the model with"
    )
    options = parser.parse_args(arguments)
    paths = {path.stem: path for path in (options.model, *options.beside)}
    if len(paths) <= len(options.beside):
        parser.error("checkpoints are told apart by their names: give each another one")
    predictors = {name: Predictor.from_file(path) for name, path in paths.items()}
    first = predictors[options.model.stem]
    spec = first.checkpoint.input_spec
    with (
        open_data_roots(list_data_sets(options.data)) as root,
        tempfile.TemporaryDirectory() as cache,
    ):
        manifest = read_manifest(options.manifest, root)
        films = TrainingData(root, manifest, Path(cache), spec).evaluation_films("validation")
        backend = PyTorchBackend(first.checkpoint, first.device)
        lungs = predict_lungs(backend, films.films, spec.size)
        outlines = [resize_pixels(np.rint(255 * one).astype(np.uint8), spec.size) for one in lungs]
        rows = [
            (name, change, *measure(predictor, films, make, f"{name}, {change}"))
            for change, make in build_changes(films, np.stack(outlines)).items()
            for name, predictor in predictors.items()
        ]
    header = (
        "network",
        "films",
        "accuracy",
        "macro-F1",
        f"{HEALTHY} called {ASKED}",
        f"AUC, abnormal against {HEALTHY.lower()}",
        f"AUC, {ASKED} against {HEALTHY}",
    )
    publish(
        f"# Elsewhere\n\n{len(films):,} validation films; the lungs are those that "
        f"{options.model.stem} predicts.\n\n{render_table(header, rows)}",
        options.out,
    )


def build_changes(films: FilmDataset, outlines: Pixels) -> dict[str, Change]:
    """Return what is done to films, by name; each change is the same whenever it is made.

    Args:
        films: to change, all of one size.
        outlines: their lungs, ``(N, H, W)`` from 0, outside, to 255, inside.
    """
    pixels = np.asarray(films.films)
    surroundings = BackgroundReplacement(pixels, outlines, 1.0)
    style = StyleExchange(pixels, films.labels, 1.0)
    tones = A.Compose(appearance_transforms(TONES))

    def change_tone(film: Pixels, index: int) -> Pixels:
        seed_transforms(tones, index)
        varied: Pixels = tones(image=film)["image"]
        return varied

    def make_foreign(index: int) -> Pixels:
        moved = surroundings(index, np.random.default_rng(index))
        return style(moved, np.random.default_rng(index + _SEED_OF_STYLE))

    return {
        "as they are": lambda index: pixels[index],
        "another tone": lambda index: change_tone(pixels[index], index),
        "stretched": lambda index: stretch(pixels[index], index),
        "foreign surroundings and style": make_foreign,
        ALL_AT_ONCE: lambda index: stretch(change_tone(make_foreign(index), index), index),
    }


def stretch(film: Pixels, seed: int) -> Pixels:
    """Stretch or shrink a film ``(S, S)`` about its middle, in each direction by itself.

    What is uncovered is black, white, or as grey as the film's median.
    """
    rng, middle = np.random.default_rng(seed), len(film) / 2
    across, down = rng.uniform(*_STRETCH, 2)
    matrix = np.array([[across, 0, middle - middle * across], [0, down, middle - middle * down]])
    margin = int(rng.choice([0, 0, int(np.median(film)), 255]))
    stretched: Pixels = cv2.warpAffine(
        film, matrix.astype(np.float32), film.shape, flags=cv2.INTER_AREA, borderValue=margin
    ).astype(np.uint8)
    return stretched


def measure(
    predictor: Predictor, films: FilmDataset, change: Change, label: str
) -> tuple[str, str, str, str, str]:
    """Return the figures of a network on changed films, as they are shown.

    Returns:
        accuracy, macro-F1, how many healthy films are called ``ASKED``, and the areas under the
        curves of abnormal against healthy films and of ``ASKED`` against healthy ones.
    """
    changed = (change(index) for index in range(len(films)))
    found = predict_films(predictor, changed, total=len(films), label=label, progress=True)
    names, labels = predictor.class_names, films.labels
    healthy, asked = names.index(HEALTHY), names.index(ASKED)
    either = (labels == healthy) | (labels == asked)
    report = evaluate_predictions(labels, found.probabilities, names, bootstrap=0)
    area = roc_auc_score(labels[either] == asked, found.probabilities[either, asked])
    return (
        f"{report['accuracy']['value']:.3f}",
        f"{report['macro_f1']['value']:.3f}",
        str(report["confusion_matrix"][healthy][asked]),
        # By P(Normal), and so by 1 - P(Normal) for all that is abnormal.
        f"{report['per_class'][HEALTHY]['auc']['value']:.3f}",
        f"{area:.3f}",
    )


if __name__ == "__main__":
    main()
