"""The manifest as a CSV file: written, read back, and held against the files that it names."""

from __future__ import annotations

import csv
import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from resformer.data.errors import DatasetError
from resformer.data.records import Manifest, ManifestRow
from resformer.data.roots import DataRoot
from resformer.data.scan import summarise
from resformer.data.split import SPLITS

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
