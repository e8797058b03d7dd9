"""Which files are films, and what the model answers of each.

What the answer holds is what the web application's `POST /predict` answers with: a picture that the
gate refuses gets no class unless it is forced, and what is uncertain carries a warning.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from resformer.images import (
    DICOM_SUFFIXES,
    IMAGE_SUFFIXES,
    ImageError,
    decode_image,
    recognise_format,
)
from resformer.images.errors import DecoderUnavailableError
from resformer.orientation import Correction, Orientation
from resformer.predict import NOT_A_FILM, Prediction, Predictor

_BATCH_SIZE = 16
_SUFFIXES = IMAGE_SUFFIXES | DICOM_SUFFIXES
_HEAD = 8192
_MAX_BYTES = 1 << 30
_AS_IT_IS = Correction()
# What storage devices and systems put beside the user's own files.
_SYSTEM_FOLDERS = frozenset(
    {
        "__macosx",
        "@eadir",
        "#recycle",
        "$recycle.bin",
        "lost+found",
        "system volume information",
    }
)
# The UID of the Media Storage Directory, which lists a disc's films and is none.
_DICOM_DIRECTORY = b"1.2.840.10008.1.3.10"


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
    """Find the films below a folder, at any depth, whatever they are named.

    A file is a film by its suffix, or else by its content: scanners name DICOM files by UIDs, or by
    numbers alone. Links to folders are followed, and each folder is looked at once.

    Raises:
        ValueError: There is no such folder.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}: check the path")
    contents = FolderContents()
    waiting, linked, seen = [folder], list[Path](), set[str]()
    while waiting or linked:
        # links come last, so that a film has the path that it has without them
        current = waiting.pop() if waiting else linked.pop(0)
        if (place := os.path.realpath(current)) in seen:
            contents.leave_out(current, "links to folders that are looked at already")
            continue
        seen.add(place)
        try:
            entries = sorted(os.scandir(current), key=lambda entry: entry.name)
        except OSError:
            contents.leave_out(current, "folders that cannot be opened")
            continue
        for entry in entries:
            path = current / entry.name
            if entry.name.startswith(".") or entry.name.lower() in _SYSTEM_FOLDERS:
                contents.leave_out(path, "hidden, or of the system")
            elif _is_folder(entry):
                (linked if entry.is_symlink() else waiting).append(path)
            elif reason := _objection(path):
                contents.leave_out(path, reason)
            else:
                contents.films.append(path)
    contents.films.sort()
    return contents


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, for instance
        return False


def _objection(path: Path) -> str:
    """Return why a file is no film; empty if it is one, or is named like one."""
    if not os.path.isfile(path):  # False where `Path.is_file` raises
        return "broken links and other things that are no files"
    if path.suffix.lower() in _SUFFIXES:
        return ""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return ""  # whoever reads the answers learns that there is a file that nobody could open
    if _DICOM_DIRECTORY in head[:512]:
        return "tables of contents (DICOMDIR)"
    return "" if recognise_format(head) else "neither an image nor DICOM"


@dataclass(frozen=True)
class Answer:
    """What there is to say of one file.

    Attributes:
        name: of the file, fit to be shown, see `show_name`.
        prediction: nothing where the file cannot be read.
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
    correction: Correction = _AS_IT_IS,
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
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(paths), _BATCH_SIZE):
            batch = paths[start : start + _BATCH_SIZE]
            decoded = list(pool.map(_decode, batch))
            films = [item for item in decoded if not isinstance(item, tuple)]
            predictions = iter(predictor.predict(films, **asdict(correction)))
            yield [
                _answer(
                    show_name(path.relative_to(folder) if folder else path),
                    item if isinstance(item, tuple) else next(predictions),
                    force=force,
                )
                for path, item in zip(batch, decoded, strict=True)
            ]


def _decode(path: Path) -> NDArray[np.uint8] | tuple[str, str]:
    """Return the film, or the code and the words for why it cannot be read.

    Raises:
        OSError: A decoder is missing here; the film may be sound, so it gets no answer.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            return "image_too_large", "The file is larger than a gigabyte: no film is."
        return decode_image(path.read_bytes())
    except ImageError as error:
        return error.code, str(error)
    except DecoderUnavailableError as error:
        raise OSError(f"{show_name(path)}: {error}") from error
    except OSError as error:
        return "unreadable_file", f"The file cannot be opened: {error.strerror or error}."


def _answer(name: str, result: Prediction | tuple[str, str], *, force: bool) -> Answer:
    if isinstance(result, tuple):
        return Answer(name, None, *result)
    gate = result.gate
    orientation = result.find_orientation()
    if not gate or gate.accepted or force:
        return Answer(name, result, orientation=orientation)
    error = f"This image was not classified. {gate.reason}"
    if orientation:
        flags = _flags(orientation.correction)
        error = f"This image was not classified. {orientation.sentence} Try {flags}."
    return Answer(name, result, NOT_A_FILM, error, orientation)


def _flags(correction: Correction) -> str:
    """Return the options of the command line that ask for a correction."""
    flags = ["--invert"] if correction.invert else []
    return " ".join([*flags, f"--rotate {correction.rotate}"] if correction.rotate else flags)


def show_name(path: Path) -> str:
    r"""Return a path as text that stands in one line, and that UTF-8 can hold.

    Bytes that are no UTF-8 and control characters become escapes such as ``\xe9`` and ``\n``, and
    backslashes in names are doubled, so that no two files have the same text.
    """
    raw = os.fsencode(path.as_posix()).replace(b"\\", b"\\\\")
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
