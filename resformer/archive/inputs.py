"""Where the films of an archive are: a folder, a list of names, or object storage by its URL.

What is found is written down in parts of so many films before the first is read. Each part is a
file of names that end in NUL, as of ``find -print0``, so that no more than one folder is in memory,
and a later run goes on with the same films in the same order without looking for them again.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

import fsspec

from resformer.archive.answers import MAX_BYTES
from resformer.data.find import FILM_SUFFIXES, HEAD, HIDDEN, NO_IMAGE, is_hidden, walk_films
from resformer.images import recognise_format

_URL = "://"


@dataclass(frozen=True)
class Source:
    """A place with films.

    Attributes:
        root: folder or URL that names are relative to.
    """

    root: str

    def read(self, name: str) -> bytes | None:
        """Return the bytes of a film; None if it is larger than a film can be.

        Raises:
            OSError: if it cannot be read.
        """
        if _URL in name:
            location = name
        elif _URL in self.root and not os.path.isabs(name):
            location = f"{self.root}/{name}"
        else:
            path = Path(self.root, name)
            return path.read_bytes() if path.stat().st_size <= MAX_BYTES else None
        system, path_there = fsspec.url_to_fs(location)
        with system.open(path_there) as file:
            data: bytes = file.read(MAX_BYTES + 1)
        return data if len(data) <= MAX_BYTES else None


@dataclass
class Listing:
    """The films of a source, found one after the other.

    Attributes:
        source: where they are.
        names: in the order of the table.
        left_out: how many files are not looked at, by the reason why; complete when ``names`` is.
    """

    source: Source
    names: Iterator[str]
    left_out: Counter[str]


def open_source(place: str) -> Listing:
    """Begin to list the films of a folder or a list file, local or by URL.

    Raises:
        ValueError: if there is no such place, or it is a film itself.
        ImportError: if the library for such a URL is not installed; the message names it.
    """
    left_out: Counter[str] = Counter()
    if _URL not in place:
        path = Path(place)
        if path.is_dir():
            names = _names_in_folder(path, left_out)
            return Listing(Source(os.path.abspath(path)), names, left_out)
        if not path.is_file():
            raise ValueError(f"there is no folder and no list of films at {place}: check the path")
        parent = os.path.abspath(path.parent)
        return Listing(Source(parent), _names_in_list(lambda: path.open("rb"), place), left_out)
    system, there = fsspec.url_to_fs(place)
    if system.isfile(there):
        parent = place.rsplit("/", 1)[0]
        return Listing(Source(parent), _names_in_list(lambda: system.open(there), place), left_out)
    if not system.isdir(there):
        raise ValueError(f"there is nothing at {place}: check the URL and your access to it")
    return Listing(Source(place.rstrip("/")), _names_at(system, there, left_out), left_out)


def _names_in_folder(folder: Path, left_out: Counter[str]) -> Iterator[str]:
    def count(_: Path, reason: str) -> None:
        left_out[reason] += 1

    for path in walk_films(folder, count):
        yield path.relative_to(folder).as_posix()


def _names_in_list(
    open_list: Callable[[], AbstractContextManager[IO[bytes]]], place: str
) -> Iterator[str]:
    """Read names, one a line; they are relative to the list's folder, absolute, or URLs.

    No name holds a NUL: between those of ``find -print0`` it stands in place of the line's end.
    """
    with open_list() as file:
        if recognise_format(file.read(HEAD)):
            raise ValueError(f"{place} is a film, no list of films: use predict for it")
        file.seek(0)
        for line in file:
            yield from map(os.fsdecode, filter(None, line.strip(b"\r\n").split(b"\0")))


def _names_at(
    system: fsspec.AbstractFileSystem, root: str, left_out: Counter[str]
) -> Iterator[str]:
    """Walk through object storage; what has no suffix is taken for DICOM, and reading it tells."""
    for folder, folders, files in system.walk(root, detail=False):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        for name in sorted(files):
            suffix = PurePosixPath(name).suffix.lower()
            if is_hidden(name):
                left_out[HIDDEN] += 1
            elif suffix in FILM_SUFFIXES or not suffix or suffix[1:].isdigit():
                yield f"{folder}/{name}".removeprefix(root).lstrip("/")
            else:
                left_out[f"{NO_IMAGE}, by the name"] += 1
