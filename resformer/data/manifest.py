"""The manifest: which images there are, of which class, source, group and split, with their hashes.

Made once from a data set and kept as CSV, it makes a split reproducible anywhere: paths are
relative to the data set (see ``resformer.data.find`` for several), and each file is known by its
SHA-256.
"""

from __future__ import annotations

import csv
import hashlib
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from resformer.data.duplicates import (
    DUPLICATE_CORRELATION,
    ScannedFilm,
    group_duplicates,
    join_groups,
    scan_films,
)
from resformer.data.find import (
    DataRoot,
    DatasetError,
    find_images,
    name_without_suffix,
    prefix_of,
    summarise,
)
from resformer.data.labels import (
    FilmLabel,
    folder_names,
    read_labels,
    source_by_rule,
)
from resformer.data.readings import HEALTHY_CLASS, contradicts
from resformer.data.split import SPLITS, assign_splits

logger = logging.getLogger(__name__)

_COLUMNS = ("path", "class", "group", "split", "sha256", "source", "reading")
_SHA256 = re.compile(r"[0-9a-f]{64}")
# Real groups are a few films of one patient; a larger one comes of images all alike.
_LARGE_GROUP, _LARGE_SHARE = 10, 0.02


@dataclass(frozen=True)
class ManifestRow:
    """One image.

    Attributes:
        path: relative to the data set's folder, with forward slashes; see ``resformer.data.find``.
        class_name: its class.
        group: number of its group of near-duplicates and films of one patient.
        split: ``"train"``, ``"validation"`` or ``"test"``; a group is never in two.
        sha256: of the file, in hexadecimal.
        source: hospital or collection that it comes from, see ``resformer.data.labels``.
        reading: what radiologists saw, as a table has it; empty where unknown.
    """

    path: str
    class_name: str
    group: int
    split: str
    sha256: str
    source: str = ""
    reading: str = ""


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


def build_manifest(
    root: DataRoot,
    *,
    earlier: Manifest | None = None,
    seed: int = 0,
    healthy_class: str = HEALTHY_CLASS,
    duplicate_threshold: float = DUPLICATE_CORRELATION,
    workers: int | None = None,
    progress: bool = False,
) -> Manifest:
    """Find, read, group and split the images below ``root``.

    Films whose reading contradicts their class are left out of train and validation; those that
    fall into the test split stay there, so that the test tells what becomes of them.

    Args:
        root: folder of class folders, or several of them.
        earlier: a manifest whose test films stay test films, known by their content or their path.
        seed: of the split.
        healthy_class: what a film is that readers call negative, or normal.
        duplicate_threshold: correlation of detail from which on images are near-duplicates;
            above 1 only equal files are.
        workers: threads; by default one a processor.
        progress: whether to draw progress bars.

    Raises:
        DatasetError: if the folder holds no usable data set, see ``find_images``, if a table beside
            it is wrong, see ``read_labels``, if a class has no readable image, or if the images
            cannot be split, see ``assign_splits``.
    """
    index = find_images(root)
    labels = read_labels(root, [path for path, _ in index.items], all_films=True)
    films, unreadable = scan_films(index, workers=workers, progress=progress)
    duplicates = group_duplicates(
        [film.fingerprint for film in films],
        [film.sha256 for film in films],
        threshold=duplicate_threshold,
        workers=workers,
        progress=progress,
    ).tolist()
    _report_odd_groups(films, duplicates)
    known = [labels.get(film.path, FilmLabel()) for film in films]
    folders = folder_names(root)
    sources = [
        label.source
        or source_by_rule(film.path, film.class_name, folders[prefix_of(root, film.path)])
        for film, label in zip(films, known, strict=True)
    ]
    patients = [
        f"{source}/{label.patient}" if label.patient else ""
        for source, label in zip(sources, known, strict=True)
    ]
    groups = join_groups(duplicates, patients).tolist()
    classes = [film.class_name for film in films]
    contradicted = [
        contradicts(name, label.reading, index.class_names, healthy_class)
        for name, label in zip(classes, known, strict=True)
    ]
    splits = assign_splits(
        classes,
        groups,
        # Films that may be left out are drawn apart, so that they do not make the others fewer.
        strata=[repr(stratum) for stratum in zip(sources, classes, contradicted, strict=True)],
        earlier=_earlier_splits(films, contradicted, earlier),
        seed=seed,
    )
    rows = tuple(
        ManifestRow(film.path, film.class_name, group, split, film.sha256, source, label.reading)
        for film, group, split, source, label in zip(
            films, groups, splits, sources, known, strict=True
        )
    )
    return Manifest(
        index.class_names,
        _leave_out_contradicted(rows, contradicted, index.class_names),
        tuple((film.path, film.reason) for film in unreadable),
    )


def _earlier_splits(
    films: Sequence[ScannedFilm], contradicted: Sequence[bool], earlier: Manifest | None
) -> list[str]:
    """Return the earlier split of each film; empty for a new one.

    A contradicted film that is new may have been left out of the earlier manifest: it is given to
    train, to be left out again, or the test split would grow each time.
    """
    if earlier is None:
        return [""] * len(films)
    # A film may have been stored anew in another format: its name is the same then.
    by_name = {name_without_suffix(row.path): row.split for row in earlier.rows}
    by_content = {row.sha256: row.split for row in earlier.rows}
    return [
        by_content.get(film.sha256)
        or by_name.get(name_without_suffix(film.path))
        or ("train" if is_contradicted else "")
        for film, is_contradicted in zip(films, contradicted, strict=True)
    ]


def _leave_out_contradicted(
    rows: Sequence[ManifestRow], contradicted: Sequence[bool], class_names: Sequence[str]
) -> tuple[ManifestRow, ...]:
    """Leave out of train and validation what radiologists read as something else.

    Raises:
        DatasetError: if nothing of a class is left in one of them.
    """
    left_out = Counter(
        (row.class_name, row.reading)
        for row, is_contradicted in zip(rows, contradicted, strict=True)
        if is_contradicted and row.split != "test"
    )
    if not left_out:
        return tuple(rows)
    logger.info(
        "left out of train and validation: %d films whose reading contradicts their class (%s)",
        left_out.total(),
        ", ".join(f"{n} {name} read as {read}" for (name, read), n in sorted(left_out.items())),
    )
    kept = tuple(
        row for row in rows if row.split == "test" or (row.class_name, row.reading) not in left_out
    )
    for name in class_names:
        for split in SPLITS:
            if not any(row.class_name == name and row.split == split for row in kept):
                raise DatasetError(
                    f"the readings contradict all films of {name!r} in {split}: add films that "
                    "were read as their class, or correct the table of readings"
                )
    return kept


def _report_odd_groups(films: Sequence[ScannedFilm], groups: Sequence[int]) -> None:
    members: dict[int, list[ScannedFilm]] = {}
    for film, group in zip(films, groups, strict=True):
        members.setdefault(group, []).append(film)
    # One film per class is enough to find the group's other films in the manifest.
    one_a_class = [{film.class_name: film.path for film in group} for group in members.values()]
    mixed = [" = ".join(sorted(paths.values())) for paths in one_a_class if len(paths) > 1]
    if mixed:
        logger.warning(
            "%d groups of near-duplicates hold more than one class, check their labels: %s",
            len(mixed),
            summarise(mixed),
        )
    largest = max(len(group) for group in members.values())
    if largest > max(_LARGE_GROUP, _LARGE_SHARE * len(films)):
        logger.warning(
            "%d of %d images are one group of near-duplicates: if they are different films, a "
            "higher duplicate_threshold (--duplicate-threshold) tells them apart",
            largest,
            len(films),
        )


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Write the rows as CSV, one column for each attribute of a row, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        # Names that are no valid Unicode, as old archives leave them, stay as they are on disk.
        with temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(_COLUMNS)
            for row in manifest.rows:
                writer.writerow(astuple(row))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_manifest(path: Path, root: DataRoot | None = None) -> Manifest:
    """Read a manifest back; given ``root``, make sure that its files are there and unchanged.

    Raises:
        DatasetError: if it is not a manifest or contradicts itself, or if files below ``root`` are
            missing or differ from it.
    """
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            lines = list(csv.reader(file, strict=True))
    except (OSError, csv.Error) as error:
        raise DatasetError(f"the manifest {path} cannot be read: {error}") from error
    if not lines or tuple(lines[0]) != _COLUMNS:
        raise DatasetError(f"{path} is not a manifest: its first line must be {','.join(_COLUMNS)}")
    rows = tuple(
        _parse_row(line, f"{path}, row {number}") for number, line in enumerate(lines[1:], 2)
    )
    _check_rows(rows, path)
    if root is not None:
        _check_files(rows, root)
    return Manifest(tuple(sorted({row.class_name for row in rows})), rows, ())


def _parse_row(values: Sequence[str], place: str) -> ManifestRow:
    if len(values) != len(_COLUMNS):
        raise DatasetError(f"{place}: {len(_COLUMNS)} values are needed, got {len(values)}")
    name, class_name, group, split, sha256, source, reading = values
    if not _is_relative(name):
        raise DatasetError(f"{place}: {name!r} is not a relative path with forward slashes")
    if not class_name:
        raise DatasetError(f"{place}: the class is empty")
    if not (group.isascii() and group.isdigit()):
        raise DatasetError(f"{place}: the group must be a whole number, got {group!r}")
    if split not in SPLITS:
        raise DatasetError(f"{place}: the split must be one of {', '.join(SPLITS)}, got {split!r}")
    if not _SHA256.fullmatch(sha256):
        raise DatasetError(f"{place}: {sha256!r} is not a SHA-256 in lower-case hexadecimal")
    return ManifestRow(name, class_name, int(group), split, sha256, source, reading)


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


def describe_manifest(manifest: Manifest) -> dict[str, Any]:
    """Return how many films, groups and near-duplicates a data set has, as plain data.

    Returns:
        ``films`` and ``groups``: their numbers by split; ``duplicate_groups``: how many groups have
        more than one film, ``duplicate_films``: how many films these have, ``largest_group``: the
        most films of one, ``equal_files``: how many films repeat another one byte by byte.
    """
    sizes = Counter(row.group for row in manifest.rows)
    shared = [size for size in sizes.values() if size > 1]
    subsets = {split: manifest.subset(split) for split in SPLITS}
    return {
        "films": {split: len(rows) for split, rows in subsets.items()},
        "groups": {split: len({row.group for row in rows}) for split, rows in subsets.items()},
        "duplicate_groups": len(shared),
        "duplicate_films": sum(shared),
        "largest_group": max(sizes.values(), default=0),
        "equal_files": len(manifest.rows) - len({row.sha256 for row in manifest.rows}),
    }
