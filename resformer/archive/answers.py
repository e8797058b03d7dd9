"""Which files are films, and what the model answers of each.

An answer holds what the web application's ``POST /predict`` answers with: a picture that the gate
refuses gets no class unless it is forced, and what is uncertain carries a warning.
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

from resformer.data.find import walk_films
from resformer.image_errors import DecoderUnavailableError
from resformer.images import ImageError, decode_image
from resformer.orientation import AS_IT_IS, Correction, Orientation
from resformer.predict import NOT_A_FILM, Prediction, Predictor, PreparedFilm, prepare_film

Item = TypeVar("Item")
Result = TypeVar("Result")

BATCH_SIZE = 16
# So many are read, or being read, while the network runs on one.
_BATCHES_AHEAD = 3
MAX_BYTES = 1 << 30
"""Of a file; no film is larger."""


@dataclass
class FolderContents:
    """What is below a folder.

    Attributes:
        films: images and DICOM files, sorted.
        left_out: everything else, by the reason why.
    """

    films: list[Path] = field(default_factory=list)
    left_out: dict[str, list[Path]] = field(default_factory=dict)

    def leave_out(self, path: Path, reason: str) -> None:
        """Note a file or folder that is not looked at."""
        self.left_out.setdefault(reason, []).append(path)


def find_films(folder: Path) -> FolderContents:
    """Find the films below a folder, as :func:`walk_films` does.

    Raises:
        ValueError: if there is no such folder.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}: check the path")
    contents = FolderContents()
    contents.films = sorted(walk_films(folder, contents.leave_out))
    return contents


class Failure(NamedTuple):
    """Why a file cannot be read: a code as in the API, and words for people."""

    code: str
    message: str


TOO_LARGE = Failure("image_too_large", "The file is larger than a gigabyte, which no film is.")


@dataclass(frozen=True)
class Answer:
    """What there is to say of one file.

    Attributes:
        name: of the file, fit to be shown, see ``escape_name``.
        prediction: None where the file cannot be read.
        error_code: why the file got no class, for programs, as in the API; empty if it got one.
        error: the same for people.
        orientation: how a film lies that the gate refuses for that.
    """

    name: str
    prediction: Prediction | None = None
    error_code: str = ""
    error: str = ""
    orientation: Orientation | None = None


def answer_files(
    predictor: Predictor,
    paths: Sequence[Path],
    *,
    folder: Path | None = None,
    force: bool = False,
    correction: Correction = AS_IT_IS,
) -> Iterator[list[Answer]]:
    """Classify files, some at a time.

    Args:
        predictor: the network.
        paths: of the files.
        folder: what the names in the answers are relative to.
        force: whether to name a class for what the gate refuses.
        correction: what is done to each film first.

    Yields:
        the answers for the next few files, in order.
    """
    size = predictor.checkpoint.input_spec.size
    batches = read_ahead(lambda path: (path, _read(path, size, correction)), paths)
    for batch in batches:
        names = [escape_name(path.relative_to(folder) if folder else path) for path, _ in batch]
        yield answer_batch(
            predictor, names, [film for _, film in batch], force=force, name_options=True
        )


def read_ahead(read: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[list[Result]]:
    """Read items in threads while the caller works on those that were read before.

    Args:
        read: decodes an item; Pillow and GDCM let go of Python's lock.
        items: any number; no more than a few batches are taken ahead.

    Yields:
        the results of the next few items, in order; a batch for the network.
    """
    remaining = iter(items)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        futures: deque[Future[Result]] = deque()
        try:
            while True:
                room = _BATCHES_AHEAD * BATCH_SIZE - len(futures)
                futures.extend(pool.submit(read, item) for item in islice(remaining, room))
                if not futures:
                    return
                count = min(BATCH_SIZE, len(futures))
                yield [futures.popleft().result() for _ in range(count)]
        finally:
            for future in futures:
                future.cancel()


def _read(path: Path, size: int, correction: Correction) -> PreparedFilm | Failure:
    try:
        if path.stat().st_size > MAX_BYTES:
            return TOO_LARGE
        return decode_film(path.read_bytes(), size, correction)
    except DecoderUnavailableError as error:
        raise OSError(f"{escape_name(path)}: {error}") from error
    except OSError as error:
        return explain_unreadable(error)


def decode_film(
    data: bytes, size: int, correction: Correction = AS_IT_IS
) -> PreparedFilm | Failure:
    """Return a film ready for a network with this input, or why its file cannot be read.

    Raises:
        DecoderUnavailableError: if a decoder is missing here; the film may be sound.
    """
    try:
        return prepare_film(decode_image(data), size, correction)
    except ImageError as error:
        return Failure(error.code, str(error))


def explain_unreadable(error: OSError) -> Failure:
    """Say why a file cannot be opened."""
    return Failure(
        "unreadable_file", f"The file cannot be opened: {error.strerror or 'it is not there'}."
    )


def answer_batch(
    predictor: Predictor,
    names: Sequence[str],
    films: Sequence[PreparedFilm | Failure],
    *,
    force: bool = False,
    name_options: bool = False,
) -> list[Answer]:
    """Run the network once on all files that could be read, and answer for all, in order.

    Args:
        predictor: the network.
        names: of the files, fit to be shown.
        films: what was read of each.
        force: whether to name a class for what the gate refuses.
        name_options: whether to name the options that put a refused film right, which not every
            command has.
    """
    readable = [film for film in films if isinstance(film, PreparedFilm)]
    predictions = iter(predictor.predict(readable))
    results = [film if isinstance(film, Failure) else next(predictions) for film in films]
    return [
        _answer(name, result, force=force, name_options=name_options)
        for name, result in zip(names, results, strict=True)
    ]


def _answer(name: str, result: Prediction | Failure, *, force: bool, name_options: bool) -> Answer:
    if isinstance(result, Failure):
        return Answer(name, None, *result)
    gate = result.gate
    orientation = result.find_orientation()
    if not gate or gate.accepted or force:
        return Answer(name, result, orientation=orientation)
    reason = orientation.sentence if orientation else gate.reason
    error = f"This image was not classified. {reason}"
    if orientation and name_options:
        error += f" Try {_flags(orientation.correction)}."
    return Answer(name, result, NOT_A_FILM, error, orientation)


def _flags(correction: Correction) -> str:
    """Return the options of the command line that ask for a correction."""
    flags = ["--invert"] if correction.invert else []
    return " ".join([*flags, f"--rotate {correction.rotate}"] if correction.rotate else flags)


def describe_counts(counts: Counter[str]) -> str:
    """Say in words how many files were answered how, counted by their error code."""
    refused = counts[NOT_A_FILM]
    unreadable = counts.total() - counts[""] - refused
    return (
        f"classified {counts['']} films, refused {refused} that do not look like chest X-rays, "
        f"could not read {unreadable}"
    )


def escape_name(path: Path | str) -> str:
    r"""Return a path as text that stands in one line, and that UTF-8 can hold.

    Bytes that are no UTF-8 and control characters become escapes such as ``\xe9`` and ``\n``, and
    backslashes in names are doubled, so that no two files have the same text.
    """
    raw = os.fsencode(path if isinstance(path, str) else path.as_posix()).replace(b"\\", b"\\\\")
    return escape_controls(raw.decode("utf-8", "backslashreplace"))


def escape_controls(text: str) -> str:
    """Return the text with escapes for control characters and ends of lines."""
    controls = {"Cc", "Zl", "Zp"}
    return "".join(
        letter.encode("unicode_escape").decode()
        if unicodedata.category(letter) in controls
        else letter
        for letter in text
    )
