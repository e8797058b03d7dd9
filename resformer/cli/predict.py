"""``python -m resformer predict``: class probabilities of image files and of whole folders."""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resformer.cli.options import Commands, add_command, add_flag, add_path, add_shared
from resformer.orientation import ROTATIONS, Correction

if TYPE_CHECKING:
    from resformer.archive.answers import Answer, FolderContents
    from resformer.predict import Predictor

logger = logging.getLogger(__name__)


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = add_command(
        commands,
        "predict",
        run,
        "classify image files, or a folder of them",
        "Write one line for each file to standard output: the class, its probability and those of "
        "all classes. The word undecided precedes the class if the classes are close, unfamiliar "
        "if the film is unlike those of the training. What does not look like an upright chest "
        "X-ray gets no class without --force; --invert and --rotate may put it right. Files that "
        "cannot be read are named on standard error. With --out, classify every image and DICOM "
        "file below a folder into a CSV file; run again, the command goes on where it was stopped. "
        "The exit status is 1 if a file got no class, in this run or an earlier one of that table.",
    )
    add_path(parser, "files", "an image, or with --out a folder", nargs="+", metavar="FILE")
    add_path(parser, "--out", "CSV file for the films of a folder")
    add_shared(parser, "model", "device", "backend")
    add_flag(parser, "--json", "write one JSON object per line")
    force = "name a class even for what does not look like a chest X-ray, with a warning"
    add_flag(parser, "--force", force)
    add_flag(parser, "--invert", "exchange black and white before classifying")
    turn = "turn films clockwise before classifying, by so many degrees (default: %(default)s)"
    parser.add_argument("--rotate", type=int, choices=ROTATIONS, default=0, help=turn)


def run(options: argparse.Namespace) -> int:
    """Classify. Return the exit status, 1 if a file got no class.

    Raises:
        ValueError: if --out is given with anything but one folder, or a folder without --out, or
            if the model cannot be used or the table not be written.
    """
    from resformer.predict import Predictor

    folders = [path for path in options.files if path.is_dir()]
    if options.out and (len(options.files) != 1 or not folders):
        raise ValueError("--out takes one folder: name the folder of your films")
    if folders and not options.out:
        raise ValueError(f"{folders[0]} is a folder: name a CSV file for its films with --out")
    if options.out and options.json:
        raise ValueError("--json is for files, --out writes CSV: leave one of them out")
    if options.out and options.out.exists() and not options.out.is_file():
        raise ValueError(f"{options.out} is not a file: name a CSV file to write")
    predictor = Predictor.from_file(options.model, options.device, options.backend)
    if options.out:
        return _predict_folder(predictor, folders[0], options)
    return _predict_files(predictor, options)


def _predict_files(predictor: Predictor, options: argparse.Namespace) -> int:
    from resformer.archive.answers import answer_files

    failures = 0
    asked = answer_files(
        predictor, options.files, force=options.force, correction=_correction(options)
    )
    for answers in asked:
        for answer in answers:
            failures += bool(answer.error)
            if answer.prediction is None:
                logger.error("%s: %s", answer.name, answer.error)
            if options.json:
                _print(json.dumps(_describe(answer)))
            elif answer.prediction is not None:
                _print(_printable(_line(answer)))
    return 1 if failures else 0


def _print(line: str) -> None:
    """Print a line at once; end quietly where its reader has read enough, as ``head`` does."""
    try:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # What Python still holds would break the pipe again when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _describe(answer: Answer) -> dict[str, Any]:
    """Return an answer as plain data, with the names that the API gives it."""
    from resformer.predict import list_warnings

    prediction, gate = answer.prediction, answer.prediction and answer.prediction.gate
    shown = None if answer.error else prediction
    record = shown and shown.track_record
    return {
        "file": answer.name,
        "success": not answer.error,
        "predicted_class": shown and shown.predicted_class,
        "confidence": shown and shown.confidence,
        "abstained": shown and shown.abstained,
        "reason": shown and shown.reason,
        "all_probabilities": shown and shown.probabilities,
        "track_record": record and asdict(record),
        "gate": gate
        and {
            "accepted": gate.accepted,
            "score": gate.score,
            "threshold": gate.threshold,
            "orientation": answer.orientation and answer.orientation.name,
            "correction": answer.orientation and asdict(answer.orientation.correction),
        },
        "warnings": [
            {"code": code, "message": message}
            for code, message in (list_warnings(shown, answer.orientation) if shown else {}).items()
        ],
        "code": answer.error_code or None,
        "error": answer.error or None,
    }


def _line(answer: Answer) -> str:
    prediction = answer.prediction
    assert prediction is not None
    gate = f", gate {prediction.gate.score:.3f}" if prediction.gate else ""
    if answer.error:
        return f"{answer.name}: {answer.error}{gate}"
    doubts = f"{prediction.reason}, " if prediction.reason else ""
    if prediction.gate and not prediction.gate.accepted:
        doubts = f"does not look like a chest X-ray, {doubts}"
    others = ", ".join(f"{name} {p:.3f}" for name, p in prediction.probabilities.items())
    best = f"{prediction.predicted_class} {prediction.confidence:.3f}"
    return f"{answer.name}: {doubts}{best} ({others}){gate}"


def _printable(line: str) -> str:
    """Return one line, with escapes for what the terminal's encoding cannot show."""
    from resformer.archive.answers import escape_controls

    encoding = sys.stdout.encoding or "utf-8"
    return escape_controls(line).encode(encoding, "backslashreplace").decode(encoding)


def _correction(options: argparse.Namespace) -> Correction:
    return Correction(options.invert, options.rotate)


def _predict_folder(predictor: Predictor, folder: Path, options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from resformer.archive.answers import answer_files, describe_counts, escape_name, find_films
    from resformer.archive.csv_table import MadeBy, lock_path, name_in_table, open_table

    out, force, correction = options.out, options.force, _correction(options)
    own = {os.path.realpath(out), os.path.realpath(lock_path(out))}
    contents = find_films(folder)
    films = [path for path in contents.films if os.path.realpath(path) not in own]
    _report_left_out(contents, folder, own)
    if not films:
        raise ValueError(f"{folder} holds no image and no DICOM file: check the path")
    counts: Counter[str] = Counter()
    with options.model.open("rb") as file:
        made_by = MadeBy(hashlib.file_digest(file, "sha256").hexdigest(), correction)
    with open_table(out, predictor.class_names, made_by, force=force) as table:
        names = [name_in_table(escape_name(path.relative_to(folder))) for path in films]
        waiting = [path for path, name in zip(films, names, strict=True) if name not in table.done]
        found = [table.done[name] for name in names if name in table.done]
        with tqdm(total=len(waiting), desc="classify", unit="img") as bar:
            asked = answer_files(
                predictor, waiting, folder=folder, force=force, correction=correction
            )
            for answers in asked:
                table.write(answers)
                counts.update(answer.error_code for answer in answers)
                bar.update(len(answers))
    before = f"found {len(found)} done before"
    if without_class := sum(map(bool, found)):
        before += f", {without_class} of them without a class"
    logger.info("%s, %s; wrote %s", describe_counts(counts), before, out)
    return 1 if without_class or counts.total() > counts[""] else 0


def _report_left_out(contents: FolderContents, folder: Path, own: set[str]) -> None:
    from resformer.archive.answers import escape_name
    from resformer.data.find import summarise

    for reason, paths in contents.left_out.items():
        names = [
            escape_name(path.relative_to(folder))
            for path in paths
            if os.path.realpath(path) not in own
        ]
        if names:
            logger.warning("left out %d (%s): %s", len(names), reason, summarise(names))
