"""The table of an archive's answers: from a film's bytes to its row, wherever that runs.

Reading and answering are two functions, because the first runs on every core of every machine and
the second only where a network is loaded.
"""

from __future__ import annotations

import errno
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from resformer.archive.answers import (
    TOO_LARGE,
    Answer,
    Failure,
    answer_batch,
    decode_film,
    escape_name,
    explain_unreadable,
)
from resformer.archive.inputs import Source
from resformer.image_errors import DecoderUnavailableError
from resformer.predict import Predictor, PreparedFilm

# What is the matter with one file, and not with the disk or the network that it is on. Object
# storage gives no number where it lets nobody in: a key that has expired is no fault of the film.
_OF_THE_FILE = {
    errno.ENOENT,
    errno.EACCES,
    errno.EPERM,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.ENAMETOOLONG,
    errno.ELOOP,
}


@dataclass(frozen=True)
class ScoredBy:
    """What a row owes its figures to.

    Attributes:
        model_sha256: of the checkpoint's file.
        versions: of the libraries, in one line.
    """

    model_sha256: str
    versions: str


@dataclass(frozen=True)
class ReadFilm:
    """A film of an archive, ready for the network.

    Attributes:
        key: its place in the order of the archive.
        name: as it is listed.
        sha256: of its bytes; None if there are none.
        film: or why it cannot be read.
    """

    key: int
    name: str
    sha256: str | None
    film: PreparedFilm | Failure


@dataclass(frozen=True)
class Row:
    """A film's answer with where it came from."""

    read: ReadFilm
    answer: Answer


def read_film(source: Source, key: int, name: str, size: int) -> ReadFilm:
    """Read one film for a network of this input size.

    Raises:
        OSError: if the disk or the network fails, or a decoder is missing: the film may be sound.
    """
    try:
        data = source.read(name)
    except OSError as error:
        if error.errno not in _OF_THE_FILE and not isinstance(error, FileNotFoundError):
            raise
        return ReadFilm(key, name, None, explain_unreadable(error))
    if data is None:
        return ReadFilm(key, name, None, TOO_LARGE)
    try:
        film = decode_film(data, size)
    except DecoderUnavailableError as error:
        raise OSError(f"{escape_name(name)}: {error}") from error
    return ReadFilm(key, name, hashlib.sha256(data).hexdigest(), film)


def answer_films(predictor: Predictor, films: Sequence[ReadFilm], *, force: bool) -> list[Row]:
    """Run the network once on films that were read, and answer for each in order."""
    names = [escape_name(film.name) for film in films]
    answers = answer_batch(predictor, names, [film.film for film in films], force=force)
    return [Row(*pair) for pair in zip(films, answers, strict=True)]


def build_schema(class_names: Sequence[str]) -> pa.Schema:
    """Return the columns of the table of a model with these classes."""
    text, repeated = pa.string(), pa.dictionary(pa.int32(), pa.string())
    return pa.schema(
        [
            pa.field("key", pa.int64(), nullable=False),
            pa.field("path", text, nullable=False),
            ("sha256", text),
            ("predicted_class", repeated),
            *((f"probability_{name}", pa.float32()) for name in class_names),
            ("abstained", pa.bool_()),
            ("reason", repeated),
            ("distance", pa.float32()),
            ("gate_accepted", pa.bool_()),
            ("gate_score", pa.float32()),
            ("gate_orientation", repeated),
            ("error_code", repeated),
            ("error", text),
            ("model_sha256", repeated),
            ("versions", repeated),
        ]
    )


def write_rows(rows: Sequence[Row], class_names: Sequence[str], scored_by: ScoredBy) -> bytes:
    """Return rows as a Parquet file."""
    plain = [_describe(row, scored_by) for row in rows]
    table = pa.Table.from_pylist(plain, build_schema(class_names))
    file = io.BytesIO()
    pq.write_table(table, file, compression="zstd")
    return file.getvalue()


def _describe(row: Row, scored_by: ScoredBy) -> dict[str, object]:
    answer = row.answer
    gate = answer.prediction.gate if answer.prediction else None
    described: dict[str, object] = {
        "key": row.read.key,
        "path": answer.name,
        "sha256": row.read.sha256,
        "error_code": answer.error_code or None,
        "error": answer.error or None,
        "model_sha256": scored_by.model_sha256,
        "versions": scored_by.versions,
    }
    if answer.orientation:
        described["gate_orientation"] = answer.orientation.name
    if gate:
        described |= {"gate_accepted": gate.accepted, "gate_score": gate.score}
    if answer.prediction and not answer.error:
        prediction = answer.prediction
        described |= {
            "predicted_class": prediction.predicted_class,
            "abstained": prediction.abstained,
            "reason": prediction.reason,
            "distance": prediction.distance,
        }
        probabilities = prediction.probabilities
        described |= {f"probability_{name}": value for name, value in probabilities.items()}
    return described
