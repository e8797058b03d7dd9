"""What a manifest holds.

The manifest as a CSV file: written, read back, and held against the files that it names.

The manifest: which images there are, of which class, group and split, with their hashes.

Made once from a data set and kept as CSV, it makes a split reproducible anywhere: paths are
relative to the data set (see `resformer.data.find` for several), and each file is known by its
SHA-256.

Sources of films within a class, as far as their names tell.

The COVID-19 Radiography Database marks films of COVID-QU-Ex with ``-QU-`` and originals of the
RSNA challenge with ``-RSNA-``; the rest has a number alone.

What a manifest says of a data set: films, groups, near-duplicates and sources by split.
"""

from __future__ import annotations

import csv
import hashlib
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resformer.data.duplicates import (
    DUPLICATE_CORRELATION,
    ScannedFilm,
    group_duplicates,
    scan_films,
    summarise,
)
from resformer.data.find import DataRoot, DatasetError, find_images
from resformer.data.split import SPLITS, Fractions, assign_splits


@dataclass(frozen=True)
class ManifestRow:
    """One image.

    Attributes:
        path: relative to the data set's folder, with forward slashes; see `resformer.data.find`.
        class_name: its class.
        group: number of its group of near-duplicates.
        split: ``"train"``, ``"validation"`` or ``"test"``; a group is never in two.
        sha256: of the file, in hexadecimal.
    """

    path: str
    class_name: str
    group: int
    split: str
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The images of a data set and their split.

    Attributes:
        class_names: sorted.
        rows: sorted by path.
        unreadable: ``(path, reason)`` of the files that were left out; not kept in the CSV.
    """

    class_names: tuple[str, ...]
    rows: tuple[ManifestRow, ...]
    unreadable: tuple[tuple[str, str], ...]

    def subset(self, split: str) -> tuple[ManifestRow, ...]:
        """Return the rows of one split.

        Raises:
            ValueError: if there is no such split.
        """
        if split not in SPLITS:
            raise ValueError(f"there is no split {split!r}: choose one of {', '.join(SPLITS)}")
        return tuple(row for row in self.rows if row.split == split)


_COLUMNS = ("path", "class", "group", "split", "sha256")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Write the rows as CSV with the columns path, class, group, split and sha256, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        # Names that are no valid Unicode, as old archives leave them, stay as they are on disk.
        with temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(_COLUMNS)
            writer.writerows(
                (row.path, row.class_name, row.group, row.split, row.sha256)
                for row in manifest.rows
            )
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_manifest(path: Path, root: DataRoot | None = None) -> Manifest:
    """Read a manifest back; given ``root``, make sure that its files are there and unchanged.

    Raises:
        DatasetError: if it is no manifest or contradicts itself, or if files below ``root`` are
            missing or differ from it.
    """
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            lines = list(csv.reader(file, strict=True))
    except (OSError, csv.Error) as error:
        raise DatasetError(f"the manifest {path} cannot be read: {error}") from error
    if not lines or tuple(lines[0]) != _COLUMNS:
        raise DatasetError(f"{path} is no manifest: its first line must be {','.join(_COLUMNS)}")
    rows = tuple(_parse_row(line, f"{path}, row {n}") for n, line in enumerate(lines[1:], 2))
    _check_rows(rows, path)
    if root is not None:
        _check_files(rows, root)
    return Manifest(tuple(sorted({row.class_name for row in rows})), rows, ())


def _parse_row(values: Sequence[str], place: str) -> ManifestRow:
    if len(values) != len(_COLUMNS):
        raise DatasetError(f"{place}: {len(_COLUMNS)} values are needed, got {len(values)}")
    name, class_name, group, split, sha256 = values
    if not _is_relative(name):
        raise DatasetError(f"{place}: {name!r} is no relative path with forward slashes")
    if not class_name:
        raise DatasetError(f"{place}: the class is empty")
    if not (group.isascii() and group.isdigit()):
        raise DatasetError(f"{place}: the group must be a whole number, got {group!r}")
    if split not in SPLITS:
        raise DatasetError(f"{place}: the split must be one of {', '.join(SPLITS)}, got {split!r}")
    if not _SHA256.fullmatch(sha256):
        raise DatasetError(f"{place}: {sha256!r} is no SHA-256 in lower-case hexadecimal")
    return ManifestRow(name, class_name, int(group), split, sha256)


def _is_relative(name: str) -> bool:
    windows = PureWindowsPath(name)
    plain = PurePosixPath(name).as_posix() == name and name != "."
    return plain and not windows.anchor and ".." not in windows.parts


def _check_rows(rows: Sequence[ManifestRow], path: Path) -> None:
    if len({row.class_name for row in rows}) < 2:
        raise DatasetError(f"{path} names fewer than two classes: make the manifest anew")
    split_of: dict[int, str] = {}
    seen: set[str] = set()
    for row in rows:
        if row.path in seen:
            raise DatasetError(f"{path} names {row.path} twice: remove one of the rows")
        seen.add(row.path)
        if split_of.setdefault(row.group, row.split) != row.split:
            raise DatasetError(
                f"{path}: group {row.group} of near-duplicates stands in {split_of[row.group]} and "
                f"in {row.split}: give all its rows one split"
            )


def _check_files(rows: Iterable[ManifestRow], root: DataRoot) -> None:
    missing, changed = [], []
    for row in rows:
        try:
            data = (root / row.path).read_bytes()
        except OSError:
            missing.append(row.path)
            continue
        if hashlib.sha256(data).hexdigest() != row.sha256:
            changed.append(row.path)
    for paths, fault in ((missing, "cannot be found"), (changed, "differ from the manifest")):
        if paths:
            raise DatasetError(
                f"{len(paths)} files of the manifest {fault} below {root}: {summarise(paths)}. "
                "Give all that the manifest was made from, in that order, or make it anew"
            )


logger = logging.getLogger(__name__)

# Real groups are a few films of one patient; a larger one comes of images all alike.
_LARGE_GROUP, _LARGE_SHARE = 10, 0.02


def build_manifest(
    root: DataRoot,
    *,
    fractions: Fractions = (0.8, 0.1, 0.1),
    seed: int = 0,
    duplicate_threshold: float = DUPLICATE_CORRELATION,
    workers: int | None = None,
    progress: bool = False,
) -> Manifest:
    """Find, read, group and split the images below ``root``.

    Args:
        root: folder of class folders, or several of them.
        fractions: of a class's images that go to train, validation and test.
        seed: of the split.
        duplicate_threshold: correlation of detail from which on images are near-duplicates;
            above 1 only equal files are.
        workers: threads; by default one a processor.
        progress: whether to draw progress bars.

    Raises:
        DatasetError: if the folder holds no usable data set, see `find_images`, if a class has no
            readable image, or if the images cannot be split, see `assign_splits`.
    """
    index = find_images(root)
    films, unreadable = scan_films(index, workers=workers, progress=progress)
    groups = group_duplicates(
        [film.fingerprint for film in films],
        [film.sha256 for film in films],
        threshold=duplicate_threshold,
        workers=workers,
        progress=progress,
    ).tolist()
    _report_odd_groups(films, groups)
    classes = [film.class_name for film in films]
    splits = assign_splits(classes, groups, fractions=fractions, seed=seed)
    rows = tuple(
        ManifestRow(film.path, film.class_name, group, split, film.sha256)
        for film, group, split in zip(films, groups, splits, strict=True)
    )
    return Manifest(index.class_names, rows, tuple((film.path, film.reason) for film in unreadable))


def _report_odd_groups(films: Sequence[ScannedFilm], groups: Sequence[int]) -> None:
    members: dict[int, list[ScannedFilm]] = {}
    for film, group in zip(films, groups, strict=True):
        members.setdefault(group, []).append(film)
    # One film a class is enough to find the group's other films in the manifest.
    one_a_class = [{film.class_name: film.path for film in group} for group in members.values()]
    mixed = [" = ".join(sorted(paths.values())) for paths in one_a_class if len(paths) > 1]
    if mixed:
        logger.warning(
            "%d groups of near-duplicates hold more than one class, check their labels: %s",
            *(len(mixed), summarise(mixed)),
        )
    largest = max(len(group) for group in members.values())
    if largest > max(_LARGE_GROUP, _LARGE_SHARE * len(films)):
        logger.warning(
            "%d of %d images are one group of near-duplicates: if they are different films, a "
            "higher duplicate_threshold tells them apart",
            *(largest, len(films)),
        )


SOURCES = ("QU", "RSNA")
OTHER_SOURCE = "other"


def source_of(path: str) -> str:
    """Return the source of a film by its path: one of ``SOURCES`` or ``OTHER_SOURCE``."""
    parts = PurePosixPath(path).stem.split("-")
    return next((source for source in SOURCES if source in parts[1:-1]), OTHER_SOURCE)


def source_weights(rows: Sequence[ManifestRow], balance: float) -> NDArray[np.float64]:
    """Return a weight for each film: ``(share of its source in its class) ** -balance``.

    Args:
        rows: films.
        balance: 0 weighs all films alike, 1 all sources of a class.

    Returns:
        ``(N,)``, 1 on average over each class.
    """
    keys = [(row.class_name, source_of(row.path)) for row in rows]
    of_class, of_source = Counter(row.class_name for row in rows), Counter(keys)
    raw = {key: (count / of_class[key[0]]) ** -balance for key, count in of_source.items()}
    total = dict.fromkeys(of_class, 0.0)
    for key, count in of_source.items():
        total[key[0]] += count * raw[key]
    return np.array([raw[key] * of_class[key[0]] / total[key[0]] for key in keys])


def describe_manifest(manifest: Manifest) -> dict[str, Any]:
    """Return the composition of a data set, as plain data.

    Returns:
        ``classes``: by class the number of films of each split, under ``films``, and of each
        source, under ``sources``; ``films`` and ``groups``: their numbers by split;
        ``duplicate_groups``: how many groups have more than one film, ``duplicate_films``: how many
        films these have, ``largest_group``: the most films of one, ``equal_files``: how many films
        repeat another one byte by byte.
    """
    sizes = Counter(row.group for row in manifest.rows)
    shared = [size for size in sizes.values() if size > 1]
    subsets = {split: manifest.subset(split) for split in SPLITS}
    return {
        "classes": {
            name: {
                "films": {
                    split: sum(row.class_name == name for row in rows)
                    for split, rows in subsets.items()
                },
                "sources": dict(
                    Counter(source_of(row.path) for row in manifest.rows if row.class_name == name)
                ),
            }
            for name in manifest.class_names
        },
        "films": {split: len(rows) for split, rows in subsets.items()},
        "groups": {split: len({row.group for row in rows}) for split, rows in subsets.items()},
        "duplicate_groups": len(shared),
        "duplicate_films": sum(shared),
        "largest_group": max(sizes.values(), default=0),
        "equal_files": len(manifest.rows) - len({row.sha256 for row in manifest.rows}),
    }
