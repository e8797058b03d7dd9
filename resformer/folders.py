"""A folder of films to a CSV of probabilities, resumable after any interruption.

Each film is a row of its own, written as soon as its batch is done. A later run on the same file
skips the films that are in it, so an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import csv
import io
import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from resformer.images import IMAGE_SUFFIXES, ImageError, decode_image
from resformer.predict import Prediction, Predictor

logger = logging.getLogger(__name__)

# Scanners write DICOM files with either suffix, or without one.
FILM_SUFFIXES = IMAGE_SUFFIXES | {".dcm", ".dicom", ""}
_BATCH_SIZE = 16


@dataclass(frozen=True)
class FolderSummary:
    """What a run did.

    Attributes:
        classified: films that were classified now.
        failed: films that could not be read now; their rows say why.
        skipped: films that the file held already.
    """

    classified: int
    failed: int
    skipped: int


def find_films(folder: Path) -> list[Path]:
    """Return the films below a folder, at any depth, sorted; hidden files and folders left out.

    Raises:
        ValueError: if there is no such folder, or no film in it.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}: check the path")
    films = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in FILM_SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )
    if not films:
        raise ValueError(f"{folder} holds no image and no DICOM file: check the path")
    return films


def predict_folder(
    predictor: Predictor, folder: Path, out: Path, *, progress: bool = False
) -> FolderSummary:
    """Classify every film below ``folder`` and add a row for each to the CSV ``out``.

    The columns are ``file`` (relative to the folder, forward slashes), ``predicted_class``,
    ``confidence``, ``abstained`` (true or false), one probability for each class, and ``error``.

    Args:
        predictor: the network.
        folder: where the films are.
        out: file to write, or to go on with.
        progress: whether to draw a progress bar.

    Raises:
        ValueError: if there is nothing to classify, or ``out`` was written for other classes.
        OSError: if ``out`` cannot be read or written.
    """
    columns = [
        *("file", "predicted_class", "confidence", "abstained"),
        *(f"probability_{name}" for name in predictor.class_names),
        "error",
    ]
    films = [path for path in find_films(folder) if path.resolve() != out.resolve()]
    done = _open_table(out, columns)
    waiting = [path for path in films if path.relative_to(folder).as_posix() not in done]
    classified = failed = 0
    with (
        out.open("a", encoding="utf-8", newline="") as file,
        tqdm(total=len(waiting), desc="classify", unit="img", disable=not progress) as bar,
    ):
        table = csv.writer(file)
        for batch in _batches(waiting):
            rows = _classify(predictor, folder, batch)
            table.writerows(rows)
            file.flush()
            failures = sum(bool(row[-1]) for row in rows)
            classified, failed = classified + len(rows) - failures, failed + failures
            bar.update(len(rows))
    return FolderSummary(classified, failed, len(films) - len(waiting))


def _batches(paths: Sequence[Path]) -> Iterator[Sequence[Path]]:
    return (paths[i : i + _BATCH_SIZE] for i in range(0, len(paths), _BATCH_SIZE))


def _open_table(out: Path, columns: list[str]) -> set[str]:
    """Start the table, or cut a half-written last row off it, and return the files it holds."""
    if not out.exists() or not out.stat().st_size:
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerow(columns)
        return set()
    text = out.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    rows = list(csv.reader(io.StringIO(whole.decode("utf-8"), newline="")))
    if not rows or rows[0] != columns:
        raise ValueError(
            f"{out} was not written by a model with these classes, or by an older version: "
            "name another file, or remove it"
        )
    if len(whole) < len(text):
        os.truncate(out, len(whole))
    return {row[0] for row in rows[1:]}


def _classify(predictor: Predictor, folder: Path, paths: Sequence[Path]) -> list[list[str]]:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        decoded = list(pool.map(_decode, paths))
    predictions = iter(predictor.predict([item for item in decoded if not isinstance(item, str)]))
    rows = []
    for path, item in zip(paths, decoded, strict=True):
        name = path.relative_to(folder).as_posix()
        if isinstance(item, str):
            # One row, one line: a run that goes on cuts off the last line if it is not whole.
            empty = [""] * (3 + len(predictor.class_names))
            rows.append([name, *empty, " ".join(item.split())])
        else:
            rows.append([name, *_figures(next(predictions)), ""])
    return rows


def _figures(prediction: Prediction) -> list[str]:
    probabilities = prediction.probabilities.values()
    return [
        *(prediction.predicted_class, f"{prediction.confidence:.6f}"),
        str(prediction.abstained).lower(),
        *(f"{probability:.6f}" for probability in probabilities),
    ]


def _decode(path: Path) -> NDArray[np.uint8] | str:
    """Return the film, or why it cannot be read."""
    try:
        return decode_image(path.read_bytes())
    except (ImageError, OSError) as error:
        return str(error)
