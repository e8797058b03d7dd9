"""``python -m resformer score``: a table of answers to a whole archive."""

from __future__ import annotations

import argparse
import hashlib
import logging
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from resformer.cli.options import Commands, add_command, add_flag, add_shared

if TYPE_CHECKING:
    from resformer.archive.run import ResultsFolder, Run, Settings

logger = logging.getLogger(__name__)

_PART_SIZE = 1024


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = add_command(
        commands,
        "score",
        run,
        "classify an archive into a Parquet table",
        "Classify all films of SOURCE into a folder of Parquet files, with a row for each film; "
        "that of a file that cannot be read says why. If the command is stopped, at any moment, "
        "the same command goes on with the films that were found the first time. The exit status "
        "is 0 when all rows are written, whatever they say.",
    )
    source = "a folder; a text file with one path or URL per line; or the URL of either, such as "
    parser.add_argument("source", metavar="SOURCE", help=f"{source}s3://bucket/films (with s3fs)")
    parser.add_argument("--out", required=True, help="folder of the table, or its URL")
    add_shared(parser, "model", "device", "backend")
    parser.add_argument(
        "--cluster",
        metavar="ADDRESS",
        help="address of a Ray cluster whose machines all have the films and --out under the same "
        "path or URL; auto: the one that this machine belongs to, or else a new one on its cores "
        "(default: the cores of this machine, without Ray)",
    )
    parser.add_argument(
        "--part-size",
        type=_positive,
        default=_PART_SIZE,
        metavar="N",
        help="films per output file; at most this many are done again after an interruption "
        "(default: %(default)s)",
    )
    force = "give probabilities even for what does not look like a chest X-ray"
    add_flag(parser, "--force", force)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a part has 1 film or more, got {text!r}")
    return int(text)


def run(options: argparse.Namespace) -> int:
    """Score. Return the exit status.

    Raises:
        ValueError: if there are no films, the table is one of something else, or the model or the
            cluster cannot be used.
        OSError: if a disk, the network or the cluster fails.
    """
    try:
        from resformer.archive.run import ResultsFolder, Settings
    except ImportError as error:
        raise ValueError(f"score needs {error.name}: pip install 'resformer[archive]'") from error

    source = options.source if "://" in options.source else str(Path(options.source).resolve())
    with options.model.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    results = ResultsFolder(options.out.rstrip("/"))
    settings = Settings(source, digest, options.force, options.part_size)
    try:
        with results.lock():
            return _score(_list_films(results, settings), options)
    except ImportError as error:  # of what fsspec needs for such a URL, for instance
        raise ValueError(f"score needs another package: {error}") from error


def _list_films(results: ResultsFolder, settings: Settings) -> Run:
    from resformer.archive.inputs import open_source
    from resformer.archive.run import begin_run, resume_run

    run = resume_run(results, settings)
    if run is None:
        run = begin_run(results, settings, open_source(settings.source))
        for reason, count in run.left_out.items():
            logger.warning("left out %d files (%s)", count, reason)
    return run


def _score(run: Run, options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from resformer.archive.answers import describe_counts
    from resformer.archive.cluster import score_on_cluster
    from resformer.archive.run import score_part
    from resformer.checkpoint import library_versions, load_checkpoint
    from resformer.predict import Predictor

    parts = run.parts_to_do()
    waiting = run.count_films(parts)
    done = run.films - waiting
    counts: Counter[str] = Counter()
    if parts:
        checkpoint = load_checkpoint(options.model)
        versions = ", ".join(f"{name} {number}" for name, number in library_versions().items())
        runtime = {"device": options.device, "backend": options.backend}
        if options.cluster:
            counted = score_on_cluster(
                run, parts, checkpoint, versions, address=options.cluster, **runtime
            )
        else:
            predictor = Predictor(checkpoint, **runtime)
            counted = chain.from_iterable(
                score_part(run, part, predictor, versions) for part in parts
            )
        with tqdm(total=run.films, initial=done, desc="score", unit="img") as bar:
            for found in counted:
                counts += found
                bar.update(found.total())
    logger.info(
        "%s, found %d done before; wrote %s", describe_counts(counts), done, run.results.place
    )
    return 0
