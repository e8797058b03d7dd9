"""Data sets on disk, one or several, and the films in them.

A data set is a folder of class folders: ``<Class>/*``, at any depth, or as the COVID-19 Radiography
Database (Kaggle) has it ``<Class>/images/*`` with folders of masks beside it. A film is known by
its first bytes where its name does not tell: scanners and archives of hospitals name files as they
like. What is left out is counted and named, with the reason.

Several data sets are read as one. The films of the first keep their paths; those of the n-th carry
``data-n/`` in front, as in ``data-2/COVID/film.png``: a manifest names the same films wherever the
data sets lie, as long as they are given in the same order. :mod:`resformer.data.unpack` opens them,
``.zip`` archives too.
"""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from resformer.images import DICOM_SUFFIXES, IMAGE_SUFFIXES, recognise_format

logger = logging.getLogger(__name__)

IMAGES_FOLDER = "images"
# Tables beside the class folders, see ``resformer.data.labels``.
TABLES = ("labels.csv", "readings.csv")
_LAYOUT = f"expected <folder>/<Class>/{IMAGES_FOLDER}/* or <folder>/<Class>/*"
# Folders of macOS, Synology, QNAP, Windows and Linux, in small letters.
_SYSTEM_FOLDERS = frozenset(
    {
        "__macosx",
        "@eadir",
        "#recycle",
        "@recycle",
        "$recycle.bin",
        "recycler",
        "lost+found",
        "system volume information",
    }
)
_SPLIT_FOLDERS = frozenset({"train", "training", "test", "testing", "val", "valid", "validation"})
FILM_SUFFIXES = IMAGE_SUFFIXES | DICOM_SUFFIXES
# Enough for the preamble of a DICOM file, and for the elements that tell one without it.
HEAD = 8192
_NAMED = 5
# Why files are left out, where that is no reason for a warning.
NO_IMAGE, HIDDEN = "neither an image nor DICOM", "hidden, or of the system"
# The UID of the Media Storage Directory, which lists a disc's films and is not a film itself.
_DICOM_DIRECTORY = b"1.2.840.10008.1.3.10"


class DatasetError(ValueError):
    """A data set that cannot be used; the message names what to change."""


@dataclass(frozen=True)
class JoinedRoot:
    """The folders of several data sets, to be used like one: ``root / path`` is a film's file.

    Raises:
        DatasetError: if a folder is given twice, or if the first holds something by the name that
            stands for another.
    """

    folders: tuple[Path, ...]

    def __post_init__(self) -> None:
        """Refuse folders whose films could be taken for each other."""
        if len({folder.resolve() for folder in self.folders}) < len(self.folders):
            raise DatasetError(f"a data set is given twice: {self}")
        for prefix, _ in data_sets(self)[1:]:
            if (taken := self.folders[0] / prefix).exists():
                raise DatasetError(
                    f"{taken} has the name that stands for another data set: rename it, or give "
                    "its data set alone"
                )

    def __truediv__(self, path: str) -> Path:
        """Return the file that a manifest's path names."""
        prefix = prefix_of(self, path)
        return dict(data_sets(self))[prefix] / path.removeprefix(prefix)

    def __str__(self) -> str:
        """Name the folders."""
        return " with ".join(map(str, self.folders))


DataRoot = Path | JoinedRoot


def data_sets(root: DataRoot) -> tuple[tuple[str, Path], ...]:
    """Return what stands before the paths of each data set, with its folder."""
    if isinstance(root, Path):
        return (("", root),)
    others = ((f"data-{n}/", folder) for n, folder in enumerate(root.folders[1:], 2))
    return (("", root.folders[0]), *others)


def prefix_of(root: DataRoot, path: str) -> str:
    """Return what stands before the paths of the data set that a film belongs to."""
    prefixes = (prefix for prefix, _ in data_sets(root)[1:])
    return next((prefix for prefix in prefixes if path.startswith(prefix)), "")


@dataclass(frozen=True)
class ImageIndex:
    """The images of a data set, none of them decoded yet.

    Attributes:
        root: what the paths are relative to.
        class_names: sorted.
        items: ``(path, class name)``, the path relative and with forward slashes; sorted by path.
        left_out: ``(path, reason)`` of what is no film of a class; sorted.
    """

    root: DataRoot
    class_names: tuple[str, ...]
    items: tuple[tuple[str, str], ...]
    left_out: tuple[tuple[str, str], ...] = ()


def find_images(root: DataRoot) -> ImageIndex:
    """Find the images of every class below ``root``; a line of the log says what was left out.

    Of several data sets read as one, each may hold any of the classes, or none: what is asked of
    a data set is asked of all of them together.

    Raises:
        DatasetError: if there is no such folder, if it has fewer than two class folders, or if a
            class folder holds no image.
    """
    classes: dict[str, list[str]] = {}
    left_out: list[tuple[str, str]] = []
    for prefix, folder in data_sets(root):
        found = _Listing(folder)
        if isinstance(root, JoinedRoot) and not any(found.images.values()):
            logger.warning("%s holds no images in class folders: it adds nothing", folder)
        for name, paths in found.images.items():
            classes.setdefault(name, []).extend(prefix + path for path in paths)
        left_out += [(prefix + path, reason) for path, reason in found.left_out]
    _log_left_out(root, left_out)
    if len(classes) < 2:
        folders = f"only the folder {next(iter(classes))!r}" if classes else "no folder"
        raise DatasetError(f"{root} holds {folders}, two classes or more are needed: {_LAYOUT}")
    for name, paths in classes.items():
        if not paths:
            raise DatasetError(
                f"the class folder {name!r} holds no image ({_LAYOUT}): "
                "add its images or remove the folder"
            )
    items = ((path, name) for name, paths in classes.items() for path in paths)
    return ImageIndex(root, tuple(sorted(classes)), tuple(sorted(items)), tuple(sorted(left_out)))


def locate_root(folder: Path) -> Path:
    """Return the folder that holds the class folders: itself, or what a download wraps them in.

    Raises:
        DatasetError: if there is no such folder.
    """
    root, seen = folder, {folder.resolve()}
    while len(inner := _class_folders(root)) == 1 and not _holds_images(inner[0]):
        root = inner[0]
        if root.resolve() in seen:  # a link that leads back
            return folder
        seen.add(root.resolve())
    return root if _class_folders(root) else folder


def is_hidden(name: str) -> bool:
    """Return whether a file or folder of this name is of the system rather than of the data."""
    return name.startswith(".") or name.lower() in _SYSTEM_FOLDERS


def is_image(path: Path) -> bool:
    """Return whether a file is an image that the project reads, by its name or first bytes.

    The name of an image is enough, and so is that a file cannot be opened: it is better named as
    unreadable than passed over.
    """
    return not is_hidden(path.name) and not _objection(path)


def name_without_suffix(path: str) -> str:
    """Cut the suffix of an image off a path, and nothing off ``1.2.840.113``."""
    return path[: path.rindex(".")] if has_image_name(path) else path


def summarise(texts: Iterable[str]) -> str:
    """Join the first few of many texts and count the others."""
    listed = list(texts)
    more = [f"and {len(listed) - _NAMED} more"] if len(listed) > _NAMED else []
    text = "; ".join(listed[:_NAMED] + more)
    # Names of files may hold line feeds and what is no valid Unicode; a line of a log may not.
    text = re.sub("[\x00-\x1f\x7f]", lambda match: ascii(match[0])[1:-1], text)
    return text.encode("utf-8", "backslashreplace").decode()


def has_image_name(name: str) -> bool:
    """Return whether the suffix of a name is that of an image or of a DICOM file."""
    return os.path.splitext(name)[1].lower() in FILM_SUFFIXES


def _is_mask_folder(name: str) -> bool:
    return not {"mask", "masks"}.isdisjoint(re.split("[^a-z]+", name.lower()))


def _class_folders(root: Path) -> list[Path]:
    if not root.is_dir():
        raise DatasetError(f"there is no folder {root}: check the path of the data set")
    folders = [
        path
        for path in sorted(root.iterdir(), key=lambda path: path.name)
        if path.is_dir()
        and not is_hidden(path.name)
        and not _is_mask_folder(path.name)
        and path.name != IMAGES_FOLDER
    ]
    names = [folder.name for folder in folders]
    if len(names) > 1 and _SPLIT_FOLDERS.issuperset(name.lower() for name in names):
        each = " ".join(f"--data {folder}" for folder in folders)
        raise DatasetError(
            f"{root} holds {', '.join(names)}, which are splits and no classes: give each of them "
            f"({each}), and the films are split anew by patient and near-duplicate"
        )
    return folders


def _holds_images(folder: Path) -> bool:
    places = (folder, folder / IMAGES_FOLDER)
    return any(is_image(path) for place in places if place.is_dir() for path in place.iterdir())


class _Listing:
    """What one data set holds: the images of each class, and what is left out."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.left_out: list[tuple[str, str]] = []
        self.images = {
            folder.name: self._list_class(folder.name) for folder in _class_folders(root)
        }
        for path in root.iterdir():
            if is_hidden(path.name):
                self.left_out.append((path.name, HIDDEN))
            elif path.name == IMAGES_FOLDER and path.is_dir():
                self.left_out.append((path.name, "folders of images without a class"))
            elif _is_mask_folder(path.name) and path.is_dir():
                self.left_out.append((path.name, "folders of masks outside the class folders"))
            elif not (path.is_dir() or path.name in TABLES):
                reason = _objection(path) or "images outside the class folders"
                self.left_out.append((path.name, reason))

    def _list_class(self, class_folder: str) -> list[str]:
        """Return the images at any depth below a class folder, but for masks."""

        def leave_out(path: Path, reason: str) -> None:
            self.left_out.append((self._name(path), reason))

        folder = self.root / class_folder
        films = walk_films(folder, leave_out, is_passed_by=_is_mask_folder, known=[self.root])
        return [self._name(path) for path in films]

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


def walk_films(
    folder: Path,
    leave_out: Callable[[Path, str], None],
    *,
    is_passed_by: Callable[[str], bool] = lambda _: False,
    known: Iterable[Path] = (),
) -> Iterator[Path]:
    """Walk over the films below a folder, at any depth, whatever they are named.

    A file is a film by its suffix, or else by its content: scanners name DICOM files by UIDs, or by
    numbers alone. Links to folders are followed, and each folder is looked at once.

    Args:
        folder: to begin with.
        leave_out: told of other files and folders, and why they are not looked at.
        is_passed_by: whether a folder of this name is passed by without telling.
        known: folders that count as looked at already.

    Yields:
        films, in an order that depends on the names alone; no more than a folder's are in memory.
    """
    waiting, linked, seen = [folder], list[Path](), set(map(os.path.realpath, known))
    while waiting or linked:
        # links come last, so that a film has the path that it has without them
        current = waiting.pop() if waiting else linked.pop(0)
        if (place := os.path.realpath(current)) in seen:
            leave_out(current, "links to folders that are looked at already")
            continue
        seen.add(place)
        try:
            entries = sorted(os.scandir(current), key=lambda entry: entry.name)
        except OSError:
            leave_out(current, "folders that cannot be opened")
            continue
        folders: list[Path] = []
        for entry in entries:
            path = current / entry.name
            if is_hidden(entry.name):
                leave_out(path, HIDDEN)
            elif _is_folder(entry):
                if is_passed_by(entry.name):
                    continue
                (linked if entry.is_symlink() else folders).append(path)
            elif reason := _objection(path):
                leave_out(path, reason)
            else:
                yield path
        waiting += reversed(folders)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, for instance
        return False


def _objection(path: Path) -> str:
    """Return why a file is no film; empty if it is one, or is named like one."""
    if not os.path.isfile(path):  # False where ``Path.is_file`` raises
        return "broken links and other things that are no files"
    if has_image_name(path.name):
        return ""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError:
        return ""  # whoever reads the answers learns that there is a file that nobody could open
    if _DICOM_DIRECTORY in head[:512]:
        return "tables of contents (DICOMDIR)"
    return "" if recognise_format(head) else NO_IMAGE


def _log_left_out(root: DataRoot, left_out: Sequence[tuple[str, str]]) -> None:
    by_reason: dict[str, list[str]] = {}
    for path, reason in sorted(left_out):
        by_reason.setdefault(reason, []).append(path)
    for reason, paths in by_reason.items():
        level = logging.INFO if reason in (NO_IMAGE, HIDDEN) else logging.WARNING
        logger.log(level, "left out of %s: %d (%s): %s", root, len(paths), reason, summarise(paths))


@dataclass(frozen=True)
class ClassSummary:
    """The films of one class; sizes are ``width x height`` in pixels, as stored.

    Attributes:
        class_name: name of the class.
        films: number of files.
        smallest: size of the film with the fewest pixels, empty where none can be read.
        most_common: size that most films have.
        largest: size of the film with the most pixels.
    """

    class_name: str
    films: int
    smallest: str
    most_common: str
    largest: str


def summarise_classes(index: ImageIndex) -> list[ClassSummary]:
    """Count the films of each class and read their sizes from their headers.

    A file without a header that Pillow reads is counted; its size is left out. A class whose films
    all have one size of its own gives itself away before anything is learnt of the lungs.
    """
    summaries = []
    for name in index.class_names:
        paths = [path for path, class_name in index.items if class_name == name]
        sizes = [size for path in paths if (size := _read_size(index.root / path)) is not None]
        by_area = sorted(sizes, key=lambda size: size[0] * size[1])
        chosen = [by_area[0], Counter(sizes).most_common(1)[0][0], by_area[-1]] if sizes else []
        shown = [f"{width} x {height}" for width, height in chosen] or ["", "", ""]
        summaries.append(ClassSummary(name, len(paths), *shown))
    return summaries


def _read_size(path: Path) -> tuple[int, int] | None:
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, Image.DecompressionBombError):
        return None
