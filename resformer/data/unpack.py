"""Open data sets: folders as they are, and ``.zip`` archives unpacked.

An archive comes from somebody else: nothing in it may leave the folder meant for it ("zip slip"),
be a link, or fill disk or memory ("zip bomb"), so it is refused before anything is written.
"""

from __future__ import annotations

import errno
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path, PureWindowsPath

from resformer.data import find
from resformer.images import recognise_format

# Bounds on what an archive unpacks to, and on its entries.
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
def open_data_root(path: Path) -> Iterator[Path]:
    """Give the folder that holds the class folders of the folder or ``.zip`` at ``path``.

    A folder is given as it is; where it wraps the data set in one more folder, that one is given.
    An archive's images and tables are extracted into a folder of the archive's name, which is
    removed at the end.

    Raises:
        DatasetError: if there is nothing at ``path``, or something other than a folder or a
            ``.zip``; if the archive is damaged, encrypted, too large, or not to be trusted.
    """
    if path.is_dir():
        yield find.locate_root(path)
    elif not path.is_file():
        raise find.DatasetError(f"there is nothing at {path}: check the path of the data set")
    elif not zipfile.is_zipfile(path):
        raise find.DatasetError(
            f"{path} is neither a folder nor a .zip: unpack it and give the folder"
        )
    else:
        with tempfile.TemporaryDirectory(prefix="dataset-") as scratch:
            folder = Path(scratch) / path.stem
            folder.mkdir()
            extract_images(path, folder)
            yield find.locate_root(folder)


@contextmanager
def open_data_roots(paths: Sequence[Path]) -> Iterator[find.DataRoot]:
    """Open one data set or several to be read as one, see ``open_data_root``.

    Raises:
        DatasetError: if one cannot be opened, or if one is given twice.
    """
    with ExitStack() as opened:
        folders = tuple(opened.enter_context(open_data_root(path)) for path in paths)
        yield find.JoinedRoot(folders) if len(folders) > 1 else folders[0]


def extract_images(
    archive: Path, folder: Path, *, max_bytes: int = MAX_BYTES, max_files: int = MAX_FILES
) -> None:
    """Extract the images and tables of a ``.zip`` into ``folder``; other files stay behind.

    Args:
        archive: the ``.zip``.
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
                raise find.DatasetError(
                    f"{archive} holds {len(entries):,} entries, more than the {max_files:,} that "
                    "are allowed: unpack it and give the folder"
                )
            for entry in entries:
                _check_entry(entry, archive)
            wanted = [entry for entry in entries if _is_wanted(source, entry)]
            _check_space(wanted, archive, folder, max_bytes)
            for entry in wanted:
                _extract(source, entry, folder)
    except (*_DAMAGE, OSError) as error:
        # A damaged offset makes zipfile seek to before the start of the file.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise find.DatasetError(
            f"{archive} is damaged or of a kind that cannot be read ({error}): download or pack "
            "it anew"
        ) from error


def _check_entry(entry: zipfile.ZipInfo, archive: Path) -> None:
    # zipfile ends a name at a NUL and, on Windows, turns backslashes; what was written counts.
    name = entry.orig_filename
    windows = PureWindowsPath(name)
    if "\0" in name or windows.anchor or ".." in windows.parts:
        raise find.DatasetError(
            f"{archive} holds an entry that leads out of its folder ({name!r}): do not trust it"
        )
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise find.DatasetError(
            f"{archive} holds a link or a device ({name!r}): pack the files themselves"
        )
    if entry.flag_bits & _ENCRYPTED:
        raise find.DatasetError(f"{archive} is encrypted ({name!r}): pack it without a password")
    if entry.compress_type not in _METHODS:
        raise find.DatasetError(
            f"{archive} is packed unusually ({name!r}): pack it with plain deflate"
        )


def _is_wanted(source: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bool:
    parts = _parts(entry)
    if not parts or entry.is_dir() or any(find.is_hidden(part) for part in parts):
        return False
    if find.has_image_name(parts[-1]) or parts[-1] in find.TABLES:
        return True
    with source.open(entry) as packed:
        return recognise_format(packed.read(find.HEAD)) is not None


def _check_space(
    entries: list[zipfile.ZipInfo], archive: Path, folder: Path, max_bytes: int
) -> None:
    size = sum(entry.file_size for entry in entries)
    if size > max_bytes:
        raise find.DatasetError(
            f"the images in {archive} unpack to {size:,} bytes, more than the {max_bytes:,} that "
            "are allowed: unpack it yourself and give the folder"
        )
    if size > (free := shutil.disk_usage(folder).free):
        raise find.DatasetError(
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
        raise find.DatasetError(
            f"the archive holds {entry.filename!r} twice: pack each image under a name of its own"
        ) from error


def _parts(entry: zipfile.ZipInfo) -> tuple[str, ...]:
    # Some archives made on Windows have backslashes.
    return PureWindowsPath(entry.filename).parts
