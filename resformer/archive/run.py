"""The folder that an archive's answers are written to, part by part, and resumed from.

``_run.json`` says what is scored with what, ``_inputs`` holds the names of the films (see
:mod:`resformer.archive.inputs`), and ``part-000000.parquet`` and so on are the table, which
readers of Parquet take for one, since they leave out what begins with ``_``. A part is written at
once or not at all: a run that was stopped at any moment goes on with the parts that are missing,
and two workers at the same part write the same. A file in ``_begun`` stands for a part at work.
Where it is left behind, whoever scored the part was stopped or died, so the next one reads the
films in a process of its own: the film that kills it becomes a row.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

import fsspec
from filelock import FileLock, Timeout

from resformer.archive.answers import Failure, read_ahead
from resformer.archive.inputs import Listing, Source
from resformer.archive.parquet_table import (
    ReadFilm,
    Row,
    ScoredBy,
    answer_films,
    read_film,
    write_rows,
)
from resformer.predict import Predictor

_RUN, _INPUTS, _BEGUN, _LOCK = "_run.json", "_inputs", "_begun", ".lock"
_HALF = ".half-"  # what the name of a file begins with until it is whole
_NUL = b"\0"
# A process may be killed for another reason than the film that it reads.
_TRIES = 2
_DEADLY = Failure("unreadable_image", "The program that reads films dies of this one.")


@dataclass(frozen=True)
class ResultsFolder:
    """A folder on a disk, or in object storage by its URL.

    Attributes:
        place: path or URL.
    """

    place: str

    @property
    def is_local(self) -> bool:
        """Whether it is a path."""
        return "://" not in self.place

    def write(self, name: str, content: bytes) -> None:
        """Write a file whole, or not at all."""
        if not self.is_local:  # object storage shows nothing before all of it is there
            system, path = fsspec.url_to_fs(f"{self.place}/{name}")
            system.pipe_file(path, content)
            return
        target = Path(self.place, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        begun = target.with_name(f"{_HALF}{target.name}.{uuid.uuid4().hex}")
        try:
            with begun.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            begun.replace(target)
        finally:
            begun.unlink(missing_ok=True)

    def read(self, name: str) -> bytes:
        """Return the content of a file.

        Raises:
            FileNotFoundError: if there is none.
        """
        system, path = fsspec.url_to_fs(f"{self.place}/{name}")
        content: bytes = system.cat_file(path)
        return content

    def begin(self, part: int) -> bool:
        """Note that a part is at work; return whether somebody had begun it and not ended."""
        name = f"{_BEGUN}/{part:06}"
        with suppress(FileNotFoundError):
            self.read(name)
            return True
        self.write(name, b"")
        return False

    def end(self, part: int) -> None:
        """Forget that a part was at work."""
        system, path = fsspec.url_to_fs(f"{self.place}/{_BEGUN}/{part:06}")
        with suppress(FileNotFoundError):  # two workers may have been at it
            system.rm_file(path)

    def names(self) -> set[str]:
        """Return what is in the folder."""
        system, path = fsspec.url_to_fs(self.place)
        if not system.isdir(path):
            return set()
        return {found.rsplit("/", 1)[-1] for found in system.ls(path, detail=False)}

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other runs on this disk out, and remove what a stopped one had begun to write.

        Raises:
            ValueError: if another run writes to it, or it is no folder.
        """
        if not self.is_local:
            yield
            return
        folder = Path(self.place)
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"{folder} is not a folder: name another one for the table")
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(folder / _LOCK, timeout=0):
                for begun in folder.rglob(f"{_HALF}*"):
                    begun.unlink(missing_ok=True)
                yield
        except Timeout:
            raise ValueError(
                f"another run is writing to {folder}: wait until it ends, or name another folder"
            ) from None


@dataclass(frozen=True)
class Settings:
    """What the answers of a run depend on; a run goes on with the same ones alone."""

    source: str
    model_sha256: str
    force: bool
    part_size: int


@dataclass(frozen=True)
class Run:
    """An archive whose films are known.

    Attributes:
        results: where the table is written.
        settings: of the run.
        source: where the films are.
        films: how many there are.
        left_out: how many other files there are, by the reason why they are none.
    """

    results: ResultsFolder
    settings: Settings
    source: Source
    films: int
    left_out: dict[str, int] = field(default_factory=dict)

    def parts_to_do(self) -> list[int]:
        """Return the numbers of the parts that are not written, in order."""
        done = self.results.names()
        count = -(-self.films // self.settings.part_size)
        return [part for part in range(count) if part_name(part) not in done]

    def count_films(self, parts: Iterable[int]) -> int:
        """Return how many films some parts have together."""
        size = self.settings.part_size
        return sum(min(size, self.films - part * size) for part in parts)

    def inputs(self, part: int) -> Iterator[tuple[int, str]]:
        """Return the keys and the names of a part's films."""
        names = self.results.read(_inputs_name(part)).split(_NUL)[:-1]
        return enumerate(map(os.fsdecode, names), part * self.settings.part_size)

    def write(self, part: int, rows: list[Row], class_names: Iterable[str], by: str) -> None:
        """Write a finished part; ``by`` are the versions of the libraries."""
        scored_by = ScoredBy(self.settings.model_sha256, by)
        self.results.write(part_name(part), write_rows(rows, tuple(class_names), scored_by))


def part_name(part: int) -> str:
    """Return the name of a part of the table."""
    return f"part-{part:06}.parquet"


def _inputs_name(part: int) -> str:
    return f"{_INPUTS}/{part:06}"


def resume_run(results: ResultsFolder, settings: Settings) -> Run | None:
    """Go on with a run, if all its films had been listed.

    Raises:
        ValueError: if the folder holds answers to something else.
    """
    try:
        found = json.loads(results.read(_RUN))
    except FileNotFoundError:
        if any(name.startswith("part-") for name in results.names()):
            raise ValueError(f"{results.place} holds another table: name another folder") from None
        return None
    before, now = found["settings"], asdict(settings)
    for name, value in now.items():
        if before[name] != value:
            raise ValueError(
                f"{results.place} was begun with {name.replace('_', ' ')} {before[name]}, not "
                f"{value}: name another folder"
            )
    return Run(results, settings, Source(found["root"]), found["films"], found["left_out"])


def begin_run(results: ResultsFolder, settings: Settings, listing: Listing) -> Run:
    """List the films of an archive.

    Raises:
        ValueError: if there are none.
    """
    films = 0
    while names := list(islice(listing.names, settings.part_size)):
        content = b"".join(os.fsencode(name) + _NUL for name in names)
        results.write(_inputs_name(films // settings.part_size), content)
        films += len(names)
    if not films:
        raise ValueError(f"there is no image and no DICOM file at {settings.source}")
    run = Run(results, settings, listing.source, films, dict(listing.left_out))
    described = {
        "settings": asdict(settings),
        "root": listing.source.root,
        "films": films,
        "left_out": run.left_out,
    }
    results.write(_RUN, json.dumps(described, indent=1).encode())
    return run


def score_part(run: Run, part: int, predictor: Predictor, versions: str) -> Iterator[Counter[str]]:
    """Score a part on this machine and write it.

    Yields:
        how many films of the next few had which error; none is the empty text.
    """
    size = predictor.checkpoint.input_spec.size
    read = partial(_read_input, run.source, size)
    was_begun = run.results.begin(part)
    rows: list[Row] = []
    for films in (_read_apart if was_begun else read_ahead)(read, run.inputs(part)):
        answered = answer_films(predictor, films, force=run.settings.force)
        rows += answered
        yield Counter(row.answer.error_code for row in answered)
    run.write(part, rows, predictor.class_names, versions)
    run.results.end(part)


def _read_input(source: Source, size: int, film: tuple[int, str]) -> ReadFilm:
    return read_film(source, *film, size)


def _read_apart(
    read: partial[ReadFilm], films: Iterable[tuple[int, str]]
) -> Iterator[list[ReadFilm]]:
    """Read films one after the other in another process, begun anew where a film kills it."""
    start = partial(
        ProcessPoolExecutor,
        max_workers=1,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_end_with_parent,
    )
    pool = start()
    try:
        for film in films:
            found = ReadFilm(*film, None, _DEADLY)
            for _ in range(_TRIES):
                try:
                    found = pool.submit(read, film).result()
                    break
                except BrokenProcessPool:
                    pool = start()
            yield [found]
    finally:
        pool.shutdown()


def _end_with_parent() -> None:
    """End this process when the one that it works for is killed."""

    def watch() -> None:
        if parent := multiprocessing.parent_process():
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
