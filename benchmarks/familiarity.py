"""Measure what the model calls unfamiliar, and how often it is sure and wrong without a warning.

    python -m benchmarks.familiarity --data FOLDER

The distance is fitted anew without the films of one class or of one source, with a threshold from
the other validation films, and asked about the test films that it was not fitted on. The network
itself has learned from films like them: how it would place a class that it has never seen, only a
training without that class could tell. What is sure and wrong is counted with the checkpoint as it
is, on the test films and on those of other hospitals.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.common import build_data_parser, list_data_sets, publish, show_share
from resformer.abstention import AbstentionConfig, FilmFeatures, fit_abstention
from resformer.data.manifest import read_manifest
from resformer.data.unpack import open_data_roots
from resformer.evaluation.external import LABELS_NAME, expected_classes, read_findings
from resformer.evaluation.predictions import Predictions, predict_films
from resformer.evaluation.tables import FINDINGS, render_table
from resformer.images import decode_image
from resformer.predict import Predictor
from resformer.training.data import TrainingData
from resformer.training.finish import find_features

SURE = 0.9
Rows = dict[str, list[str]]


@dataclass(frozen=True)
class Films:
    """The films of one split: their features, and the source of each, ``(N,)``."""

    features: FilmFeatures
    sources: NDArray[np.str_]

    def subset(self, chosen: NDArray[np.bool_], num_classes: int) -> FilmFeatures:
        """Return the features of some films, with the classes that are left numbered anew."""
        mask, whole = torch.from_numpy(chosen), self.features
        left = torch.unique(whole.labels[mask])
        numbers = torch.full((num_classes,), -1).scatter(0, left, torch.arange(len(left)))
        return FilmFeatures(whole.pooled[mask], whole.confidence[mask], numbers[whole.labels[mask]])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write the tables."""
    options = build_data_parser(__doc__, "familiarity").parse_args(arguments)
    predictor = Predictor.from_file(options.model)
    checkpoint, names = predictor.checkpoint, list(predictor.class_names)
    device = torch.device("cpu")
    with (
        open_data_roots(list_data_sets(options.data)) as root,
        tempfile.TemporaryDirectory() as own,
    ):
        manifest = read_manifest(options.manifest, root)
        data = TrainingData(root, manifest, Path(own), checkpoint.input_spec)
        splits = {
            split: Films(find_features(checkpoint, data, split, device), data.sources(split))
            for split in ("train", "validation", "test")
        }
        test = predict_films(predictor, np.array(data.evaluation_films("test").films))
    labels = splits["test"].features.labels.numpy()
    wrong = {
        f"test split, {source}": count_sure(
            test.subset(splits["test"].sources == source),
            labels[splits["test"].sources == source],
        )
        for source in np.unique(splits["test"].sources).tolist()
    }
    wrong |= count_external(predictor, options.data / "external")
    left_out = ("left out", "films", "called unfamiliar", "of the others")
    sure = ("films", "number", f"wrong above {SURE:.0%}", "of these without a warning", "share")
    made = f"Made by `python -m benchmarks.familiarity` of the network {checkpoint.source[:12]}."
    tables = [
        render_table(left_out, rows_of(leave_out(splits, names, AbstentionConfig()))),
        render_table(sure, rows_of(wrong)),
    ]
    publish("\n\n".join(["# What is unfamiliar", made, *tables]), options.out)


def rows_of(rows: Mapping[str, list[str]]) -> list[list[str]]:
    """Return rows with their names in front, as people read them."""
    return [[name.replace("_", " "), *cells] for name, cells in rows.items()]


def leave_out(splits: Mapping[str, Films], names: Sequence[str], config: AbstentionConfig) -> Rows:
    """Fit the distance without a class, and without a source, and ask about what was left out."""
    kinds = {name: k for k, name in enumerate(names)}
    rows = {}
    sources = np.unique(splits["train"].sources).tolist()
    for left in [*names, *(sources if len(sources) > 1 else [])]:
        kept = {
            split: (
                films.features.labels.numpy() != kinds[left]
                if left in kinds
                else films.sources != left
            )
            for split, films in splits.items()
        }
        training, validation = (
            splits[split].subset(kept[split], len(names)) for split in ("train", "validation")
        )
        fitted = fit_abstention(training, validation, int(training.labels.max()) + 1, config)
        distance = fitted.distance(splits["test"].features.pooled).numpy()
        far = distance > fitted.greatest_distance
        inside = kept["test"]
        rows[left] = [
            str((~inside).sum()),
            show_share(int(far[~inside].sum()), int((~inside).sum())),
            show_share(int(far[inside].sum()), int(inside.sum())),
        ]
    return rows


def count_sure(predictions: Predictions, labels: NDArray[np.int64]) -> list[str]:
    """Count the films that are given a wrong class with more than :data:`SURE`.

    Args:
        predictions: of the films.
        labels: right classes, ``(N,)``; -1 where no class is right.
    """
    sure = predictions.probabilities.max(axis=1) > SURE
    wrong = sure & (predictions.predicted != labels)
    silent = int((wrong & predictions.shown).sum())
    count = len(predictions)
    return [str(count), str(wrong.sum()), str(silent), show_share(silent, count)]


def count_external(predictor: Predictor, folder: Path) -> Rows:
    """Count them by set and finding of other hospitals, where there are any."""
    if not (folder / LABELS_NAME).is_file():
        return {}
    films, names = read_findings(folder / LABELS_NAME), list(predictor.class_names)
    decoded = (decode_image((folder / film.path).read_bytes()) for film in films)
    found = predict_films(predictor, decoded)
    labels = np.array(
        [names.index(r) if r in names else -1 for r in expected_classes(films, names)]
    )
    keys = np.array(
        [f"{film.set_name}, {FINDINGS.get(film.finding, film.finding)}" for film in films]
    )
    return {
        str(key): count_sure(found.subset(keys == key), labels[keys == key])
        for key in np.unique(keys)
    }


if __name__ == "__main__":
    main()
