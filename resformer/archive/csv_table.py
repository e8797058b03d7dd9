"""A CSV of answers, a row for each film, that a later run goes on with.

A row is one line and is written when its film is done, so a run that was stopped at any moment
leaves whole rows and at most one half, which the next run cuts off.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from resformer.archive.answers import Answer, escape_controls
from resformer.orientation import AS_IT_IS, Correction
from resformer.predict import NOT_A_FILM, list_warnings

# What spreadsheets take for the beginning of a formula, in half and in full width.
_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def lock_path(out: Path) -> Path:
    """Return the file by which one run keeps others from the same table."""
    return out.with_name(f".{out.name}.lock")


def name_in_table(name: str) -> str:
    """Return a film's name as the table has it; ``./`` in front keeps it from being a formula."""
    return f"./{name}" if name.startswith(_FORMULA) else name


class MadeBy(NamedTuple):
    """What all rows of a table have in common; each row has it in its last three columns.

    Attributes:
        model_sha256: of the checkpoint's file.
        correction: what was done to each film first.
    """

    model_sha256: str
    correction: Correction = AS_IT_IS

    def cells(self) -> list[str]:
        """Return ``invert``, ``rotate`` and ``model_sha256`` as the table has them."""
        return [str(int(self.correction.invert)), str(self.correction.rotate), self.model_sha256]


class ResultsTable:
    """A table that is open for more rows; see ``open_table``.

    Attributes:
        done: error codes of the films that it held before, by their names; empty for those that
            got a class.
    """

    def __init__(self, out: Path, class_names: Sequence[str], made_by: MadeBy) -> None:
        self._out = out
        self._made_by = made_by.cells()
        self._class_names = class_names
        self._columns = [
            "file",
            "predicted_class",
            "confidence",
            "abstained",
            "reason",
            *(_text(f"probability_{name}") for name in class_names),
            "gate_accepted",
            "gate_score",
            "gate_threshold",
            "gate_orientation",
            "warnings",
            "error_code",
            "error",
            "invert",
            "rotate",
            "model_sha256",
        ]
        self.done: dict[str, str] = {}

    def start(self, *, force: bool) -> None:
        """Write the first line, or read what is there and cut off half a row at the end."""
        content = self._out.read_bytes()
        if self._first_line().startswith(content):  # nothing is there, or half of the first line
            self._out.write_bytes(self._first_line())
            return
        whole = content[: content.rfind(b"\n") + 1]
        try:
            # with or without the invisible first character that spreadsheets save
            rows = list(csv.reader(io.StringIO(whole.decode("utf-8-sig"), newline="")))
        except (UnicodeDecodeError, csv.Error):
            rows = []
        if not rows or rows[0] != self._columns:
            raise ValueError(
                f"{self._out} was not written by a model with these classes, or by an older "
                "version: name another file, or remove it"
            )
        warnings, code = map(self._columns.index, ("warnings", "error_code"))
        found = {row[0]: row[code] for row in rows[1:] if len(row) > code}
        if force and NOT_A_FILM in found.values():
            raise ValueError(
                f"{self._out} holds films that were refused without --force: name another file"
            )
        if not force and any(NOT_A_FILM in row[warnings].split() for row in rows[1:] if row):
            raise ValueError(
                f"{self._out} holds films that were answered by --force: use it again, or name "
                "another file"
            )
        if any(row[-3:] != self._made_by for row in rows[1:] if row):
            raise ValueError(
                f"{self._out} holds films that another model answered, or that were inverted or "
                "turned otherwise: name another file"
            )
        if len(whole) < len(content):
            os.truncate(self._out, len(whole))
        self.done = found

    def _first_line(self) -> bytes:
        line = io.StringIO(newline="")
        csv.writer(line).writerow(self._columns)
        return line.getvalue().encode()

    def write(self, answers: Iterable[Answer]) -> None:
        """Add a row for each answer."""
        with self._out.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(self._row(answer) for answer in answers)

    def _row(self, answer: Answer) -> list[str]:
        prediction = answer.prediction
        gate = prediction.gate if prediction else None
        figures = [""] * (4 + len(self._class_names))
        warnings: Iterable[str] = ()
        if prediction and not answer.error:
            figures = [
                _text(prediction.predicted_class),
                f"{prediction.confidence:.6f}",
                str(prediction.abstained).lower(),
                prediction.reason or "",
                *(f"{probability:.6f}" for probability in prediction.probabilities.values()),
            ]
            warnings = list_warnings(prediction)
        return [
            name_in_table(answer.name),
            *figures,
            *(
                (str(gate.accepted).lower(), f"{gate.score:.6f}", f"{gate.threshold:.6f}")
                if gate
                else ("", "", "")
            ),
            answer.orientation.name if answer.orientation else "",
            " ".join(warnings),
            answer.error_code,
            _text(answer.error),
            *self._made_by,
        ]


@contextmanager
def open_table(
    out: Path, class_names: Sequence[str], made_by: MadeBy, *, force: bool = False
) -> Iterator[ResultsTable]:
    """Start a table, or go on with one that the same model wrote of films corrected the same way.

    With ``force`` the rows to come name a class even for what the gate refuses.

    Raises:
        ValueError: if another run writes to it, or it is a table of another kind.
        OSError: if it cannot be read or written.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    out.open("ab").close()  # whether it can be written shows now, and not as a lock that is taken
    try:
        with FileLock(lock_path(out), timeout=0):
            table = ResultsTable(out, class_names, made_by)
            table.start(force=force)
            yield table
    except Timeout:
        raise ValueError(
            f"another run is writing to {out}: wait until it ends, or name another file"
        ) from None


def _text(value: str) -> str:
    """Return a text for one line, which a spreadsheet does not take for a formula."""
    line = escape_controls(value)
    return f"'{line}" if line.startswith(_FORMULA) else line
