"""The one error of the data package.

Several data sets read as one, as in ``train --data DIR --data uploads``.

The films of the first keep their paths; those of the n-th carry ``data-n/`` in front, as in
``data-2/COVID/film.png``. So a manifest names the same films wherever the data sets lie, as long
as they are given in the same order.

Which images a folder holds, and of which class.

Two layouts are read: that of the COVID-19 Radiography Database (Kaggle), ``<Class>/images/*`` with
masks beside it that are left alone, and the plain ``<Class>/*``.

Data sets in folders and in `.zip` archives, opened the same way.

An archive comes from somebody else: nothing in it may leave the folder meant for it ("zip slip"),
be a link, or fill disk or memory ("zip bomb"), so it is refused before anything is written.

A first look at a data set: how many films each class has and how large they are.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from PIL import Image

from resformer.images import IMAGE_SUFFIXES


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
        for prefix, folder in data_sets(self)[1:]:
            if path.startswith(prefix):
                return folder / path.removeprefix(prefix)
        return self.folders[0] / path

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


IMAGES_FOLDER = "images"
_LAYOUT = f"expected <folder>/<Class>/{IMAGES_FOLDER}/* or <folder>/<Class>/*"
_RESOURCE_FORKS = "__MACOSX"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageIndex:
    """The images of a data set, none of them opened yet.

    Attributes:
        root: what the paths are relative to.
        class_names: sorted.
        items: ``(path, class name)``, the path relative and with forward slashes; sorted by path.
    """

    root: DataRoot
    class_names: tuple[str, ...]
    items: tuple[tuple[str, str], ...]


def find_images(root: DataRoot) -> ImageIndex:
    """Find the images below ``root``; hidden files and other file types are ignored.

    Of several data sets read as one, each may hold any of the classes, or none: what is asked of
    a data set is asked of all of them together.

    Raises:
        DatasetError: if there is no such folder, if it has fewer than two class folders, or if a
            class folder holds no image.
    """
    classes: dict[str, list[str]] = {}
    for prefix, folder in data_sets(root):
        found = _paths_of_classes(folder)
        if isinstance(root, JoinedRoot) and not any(found.values()):
            logger.warning("%s holds no images in class folders: it adds nothing", folder)
        for name, paths in found.items():
            classes.setdefault(name, []).extend(prefix + path for path in paths)
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
    return ImageIndex(root, tuple(sorted(classes)), tuple(sorted(items)))


def locate_root(folder: Path) -> Path:
    """Return the folder that holds the class folders: itself, or what a download wraps them in.

    Raises:
        DatasetError: if there is no such folder.
    """
    root = folder
    while len(folders := _class_folders(root)) == 1 and not _images_of_class(folders[0]):
        root = folders[0]
    return root if _class_folders(root) else folder


def is_hidden(name: str) -> bool:
    """Tell whether a file or folder of this name belongs to the system rather than to the data."""
    return name.startswith(".") or name == _RESOURCE_FORKS


def is_image(name: str) -> bool:
    """Tell by its name whether a file is an image that the project reads."""
    return not is_hidden(name) and Path(name).suffix.lower() in IMAGE_SUFFIXES


def _class_folders(root: Path) -> list[Path]:
    if not root.is_dir():
        raise DatasetError(f"there is no folder {root}: check the path of the data set")
    folders = (path for path in root.iterdir() if path.is_dir() and not is_hidden(path.name))
    return sorted(folders, key=lambda folder: folder.name)


def _paths_of_classes(root: Path) -> dict[str, list[str]]:
    return {
        folder.name: [image.relative_to(root).as_posix() for image in _images_of_class(folder)]
        for folder in _class_folders(root)
    }


def _images_of_class(folder: Path) -> list[Path]:
    inner = folder / IMAGES_FOLDER
    source = inner if inner.is_dir() else folder
    return [path for path in source.iterdir() if is_image(path.name) and path.is_file()]


MAX_BYTES = 50 * 1024**3
MAX_FILES = 1_000_000
_CHUNK = 1024**2
_ENCRYPTED = 0x1
# zipfile bounds what these two give by the size that the entry declares; of the others it would
# hold whatever comes out in memory.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# All that zipfile and its decompressor raise at a damaged archive.
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, UnicodeDecodeError)


@contextmanager
def open_dataset(path: Path, *, cache: Path | None = None) -> Iterator[Path]:
    """Give the folder that holds the class folders of the folder or `.zip` at ``path``.

    A folder is given as it is; where it wraps the data set in one more folder, that one is given.
    An archive's images are extracted, into ``cache`` to be found there the next time, or else
    into a temporary folder that is removed at the end.

    Raises:
        DatasetError: if there is nothing at ``path``, or something other than a folder or a
            `.zip`; if the archive is damaged, encrypted, too large, or not to be trusted.
    """
    if path.is_dir():
        yield locate_root(path)
    elif not path.is_file():
        raise DatasetError(f"there is nothing at {path}: check the path of the data set")
    elif not zipfile.is_zipfile(path):
        raise DatasetError(f"{path} is neither a folder nor a .zip: unpack it and give the folder")
    elif cache is not None:
        yield locate_root(_extract_once(path, cache))
    else:
        with tempfile.TemporaryDirectory(prefix="dataset-") as folder:
            extract_images(path, Path(folder))
            yield locate_root(Path(folder))


@contextmanager
def open_datasets(paths: Sequence[Path]) -> Iterator[DataRoot]:
    """Open one data set or several to be read as one, see `open_dataset`.

    Raises:
        DatasetError: if one cannot be opened, or if one is given twice.
    """
    with ExitStack() as opened:
        folders = tuple(opened.enter_context(open_dataset(path)) for path in paths)
        yield JoinedRoot(folders) if len(folders) > 1 else folders[0]


def extract_images(
    archive: Path, folder: Path, *, max_bytes: int = MAX_BYTES, max_files: int = MAX_FILES
) -> None:
    """Extract the images of a `.zip` into ``folder``; other and hidden files stay behind.

    Args:
        archive: the `.zip`.
        folder: where to put them; it must exist.
        max_bytes: bound on the size of the extracted images together.
        max_files: bound on the number of entries.

    Raises:
        DatasetError: if the archive is damaged, encrypted or too large, or if any of its entries
            leads out of the folder or is a link.
    """
    try:
        with zipfile.ZipFile(archive) as source:
            entries = source.infolist()
            if len(entries) > max_files:
                raise DatasetError(
                    f"{archive} holds {len(entries):,} entries, more than the {max_files:,} that "
                    "are allowed: unpack it and give the folder"
                )
            for entry in entries:
                _check_entry(entry, archive)
            wanted = [entry for entry in entries if _is_wanted(entry)]
            _check_space(wanted, archive, folder, max_bytes)
            for entry in wanted:
                _extract(source, entry, folder)
    except (*_DAMAGE, OSError) as error:
        # A damaged offset makes zipfile seek to before the start of the file.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise DatasetError(
            f"{archive} is damaged or of a kind that cannot be read ({error}): download or pack "
            "it anew"
        ) from error


def _extract_once(archive: Path, cache: Path) -> Path:
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    folder = cache / f"{archive.stem}-{digest}"
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".extract-") as scratch:
            fresh = Path(scratch) / "images"
            fresh.mkdir()
            extract_images(archive, fresh)
            _move_unless_there(fresh, folder)
    return folder


def _move_unless_there(fresh: Path, folder: Path) -> None:
    try:
        os.replace(fresh, folder)
    except OSError:
        # Another process extracted the same archive meanwhile.
        if not folder.is_dir():
            raise


def _check_entry(entry: zipfile.ZipInfo, archive: Path) -> None:
    # zipfile ends a name at a NUL and, on Windows, turns backslashes; what was written counts.
    name = entry.orig_filename
    windows = PureWindowsPath(name)
    if "\0" in name or windows.anchor or ".." in windows.parts:
        raise DatasetError(
            f"{archive} holds an entry that leads out of its folder ({name!r}): do not trust it"
        )
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise DatasetError(
            f"{archive} holds a link or a device ({name!r}): pack the files themselves"
        )
    if entry.flag_bits & _ENCRYPTED:
        raise DatasetError(f"{archive} is encrypted ({name!r}): pack it without a password")
    if entry.compress_type not in _METHODS:
        raise DatasetError(f"{archive} is packed unusually ({name!r}): pack it with plain deflate")


def _is_wanted(entry: zipfile.ZipInfo) -> bool:
    parts = _parts(entry)
    hidden = any(is_hidden(part) for part in parts)
    return bool(parts) and not entry.is_dir() and not hidden and is_image(parts[-1])


def _check_space(
    entries: list[zipfile.ZipInfo], archive: Path, folder: Path, max_bytes: int
) -> None:
    size = sum(entry.file_size for entry in entries)
    if size > max_bytes:
        raise DatasetError(
            f"the images in {archive} unpack to {size:,} bytes, more than the {max_bytes:,} that "
            "are allowed: unpack it yourself and give the folder"
        )
    if size > (free := shutil.disk_usage(folder).free):
        raise DatasetError(
            f"the images in {archive} unpack to {size:,} bytes, and {free:,} are free where they "
            "go: make room or unpack it elsewhere and give the folder"
        )


def _extract(source: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path) -> None:
    target = folder.joinpath(*_parts(entry))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with source.open(entry) as packed, target.open("xb") as unpacked:
            shutil.copyfileobj(packed, unpacked, _CHUNK)
    except (FileExistsError, NotADirectoryError) as error:
        raise DatasetError(
            f"the archive holds {entry.filename!r} twice: pack each image under a name of its own"
        ) from error


def _parts(entry: zipfile.ZipInfo) -> tuple[str, ...]:
    # Some archives made on Windows have backslashes.
    return PureWindowsPath(entry.filename).parts


ImageSize = tuple[int, int]


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

    A file without a readable header is counted; its size is left out. A class whose films all
    have one size of its own gives itself away before anything is learnt of the lungs.
    """
    sizes: dict[str, list[ImageSize]] = {name: [] for name in index.class_names}
    for path, name in index.items:
        sizes[name] += _read_size(index.root / path)
    films = Counter(name for _, name in index.items)
    return [
        ClassSummary(
            name,
            films[name],
            _show(min(found, key=_area, default=None)),
            _show(Counter(found).most_common(1)[0][0] if found else None),
            _show(max(found, key=_area, default=None)),
        )
        for name, found in sizes.items()
    ]


def _read_size(path: Path) -> list[ImageSize]:
    try:
        with Image.open(path) as image:
            return [image.size]
    except (OSError, Image.DecompressionBombError):
        return []


def _area(size: ImageSize) -> int:
    return size[0] * size[1]


def _show(size: ImageSize | None) -> str:
    return f"{size[0]} x {size[1]}" if size else ""
