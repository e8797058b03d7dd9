"""What is known of films besides their class: patient, source, radiologists' reading, boxes.

Two tables beside the class folders are read where they are there; other columns are ignored:

- ``labels.csv``: ``file`` (relative to the table, or a name that no other film has), and any of
  ``patient``, ``source``, ``reading`` (or ``appearance``) and ``boxes`` (``x0 y0 x1 y1`` in shares
  of width and height, ``;`` between boxes; empty: none; ``unknown``).
- ``readings.csv``: ``file``, ``reading``.

A film's source is the hospital, or the collection, that it comes from. Without a column ``source``
it is told by the name of the file where that is known, else by the name of the data set's folder:

- The COVID-19 Radiography Database (Chowdhury et al., IEEE Access 8 (2020) 132665) numbers its
  films ``<Class>-<number>`` and took each class from elsewhere: Normal and Lung_Opacity from the
  RSNA Pneumonia Detection Challenge (Shih et al., Radiology: AI 1 (2019) e180041), Viral Pneumonia
  from Kermany et al. (Cell 172 (2018) 1122), COVID from publications and many hospitals.
- ChestX-ray14 (Wang et al., CVPR 2017) names its films ``00000165_001``; the films of RSNA's
  challenge were chosen from it, so both are one source.
"""

from __future__ import annotations

import csv
import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path, PurePosixPath, PureWindowsPath

from resformer.data.find import TABLES, DataRoot, DatasetError, data_sets, prefix_of, summarise
from resformer.data.readings import is_healthy

Box = tuple[float, float, float, float]

_RADIOGRAPHY_DATABASE = {
    "COVID": "radiography",
    "Lung_Opacity": "rsna",
    "Normal": "rsna",
    "Viral Pneumonia": "kermany",
}
_CHESTXRAY14 = re.compile(r"(NIH-)?\d{8}_\d{3}\.\w+")


@dataclass(frozen=True)
class FilmLabel:
    """What the tables say of one film.

    Attributes:
        patient: name or number within the source; empty where unknown.
        source: where the film comes from; empty where no table tells.
        reading: what radiologists saw; empty where unknown.
        boxes: around opacities, ``(x0, y0, x1, y1)`` in shares of width and height.
    """

    patient: str = ""
    source: str = ""
    reading: str = ""
    boxes: tuple[Box, ...] = ()


def source_by_rule(path: str, class_name: str, folder: str) -> str:
    """Return a film's source by the names of its file and of its data set's folder."""
    name = PurePosixPath(path).name
    if class_name in _RADIOGRAPHY_DATABASE and name.startswith(f"{class_name}-"):
        return _RADIOGRAPHY_DATABASE[class_name]
    return "rsna" if _CHESTXRAY14.fullmatch(name) else folder


def folder_names(root: DataRoot) -> dict[str, str]:
    """Return the name of each data set's folder by what stands before its paths, none twice."""
    names: dict[str, str] = {}
    for prefix, folder in data_sets(root):
        name = folder.resolve().name
        taken = name in names.values()
        names[prefix] = f"{name} ({prefix.rstrip('/')})" if taken else name
    return names


def read_labels(
    root: DataRoot, paths: Iterable[str], *, all_films: bool = False
) -> dict[str, FilmLabel]:
    """Read what the tables of all data sets say of some films.

    Args:
        root: the data sets.
        paths: of the films.
        all_films: whether these are all films, so that a bare name of none of them is a mistake.

    Returns:
        what is known, by path; films that no table names are absent.

    Raises:
        DatasetError: if a table cannot be read, or if it names files that do not exist.
    """
    films: dict[str, list[str]] = {prefix: [] for prefix, _ in data_sets(root)}
    for path in paths:
        prefix = prefix_of(root, path)
        films[prefix].append(path.removeprefix(prefix))
    labels: dict[str, FilmLabel] = {}
    for prefix, folder in data_sets(root):
        known: dict[str, FilmLabel] = {}
        for table in (folder / name for name in TABLES):
            if table.is_file():
                for path, label in _read_table(table, films[prefix], all_films).items():
                    known[path] = _merge(known.get(path), label)
        labels |= {prefix + path: known[path] for path in films[prefix] if path in known}
    return labels


def read_boxes(root: DataRoot, paths: Iterable[str]) -> dict[str, tuple[Box, ...]]:
    """Return the boxes around opacities by path, but for films that readers called healthy.

    Raises:
        DatasetError: as ``read_labels``.
    """
    return {
        path: label.boxes
        for path, label in read_labels(root, paths).items()
        if label.boxes and not is_healthy(label.reading)
    }


def _unique_names(paths: Iterable[str]) -> dict[str, str]:
    """Map file names to paths; a name that stands in several folders maps to nothing."""
    found: dict[str, str] = {}
    for path in paths:
        name = PurePosixPath(path).name
        found[name] = "" if name in found else path
    return found


def _merge(former: FilmLabel | None, label: FilmLabel) -> FilmLabel:
    """Complete what one table says by what another does."""
    if former is None:
        return label
    return FilmLabel(
        former.patient or label.patient,
        former.source or label.source,
        former.reading or label.reading,
        former.boxes or label.boxes,
    )


def _read_table(table: Path, films: Iterable[str], all_films: bool) -> dict[str, FilmLabel]:
    names = _unique_names(films)
    found: dict[str, FilmLabel] = {}
    missing: list[str] = []
    for number, line in enumerate(read_csv(table, ("file",)), 2):
        path = _find_film(table, line["file"], names)
        if path.startswith("../"):  # of another data set, which may not be at hand
            continue
        if not path:
            if all_films or PureWindowsPath(line["file"]).name != line["file"]:
                missing.append(line["file"])
            continue
        place = f"{table}, row {number}"
        label = FilmLabel(
            line.get("patient", ""),
            line.get("source", ""),
            line.get("reading", "") or line.get("appearance", ""),
            _parse_boxes(line.get("boxes", ""), place),
        )
        if found.setdefault(path, label) != label:
            raise DatasetError(
                f"{place}: {line['file']} stands in the table with other values already: keep one"
            )
    if missing:
        raise DatasetError(
            f"{table} names {len(missing)} files that do not exist: {summarise(missing)}. Write "
            f"the paths as they are seen from {table.parent} (such as COVID/images/1.png), or "
            "remove these rows"
        )
    return found


def _find_film(table: Path, file: str, names: Mapping[str, str]) -> str:
    """Return the path relative to the table of what a row names; "" if there is no such file."""
    path = posixpath.normpath(file.replace("\\", "/"))
    if path.startswith("../") or (table.parent / path).is_file():
        return path
    return names.get(path, "")


def read_csv(table: Path, needed: Iterable[str]) -> list[dict[str, str]]:
    """Read a table as Excel and others write it: comma or semicolon, with or without a BOM.

    Returns:
        the rows by column, names of columns in small letters, blanks around values cut off.

    Raises:
        DatasetError: if the table cannot be read, or lacks one of the columns ``needed``.
    """
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            file.seek(0)
            separator = ";" if ";" in header and "," not in header else ","
            lines = [line for line in csv.reader(file, delimiter=separator) if any(line)]
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        raise DatasetError(f"{table} cannot be read: {error}. Save it as CSV in UTF-8") from error
    columns = [name.strip().lower() for name in lines[0]] if lines else []
    for name in needed:
        if name not in columns:
            raise DatasetError(
                f"{table} has no column {name!r}, but {', '.join(columns) or 'nothing'}: its first "
                "line must name the columns"
            )
    return [
        {
            name: value.strip()
            for name, value in zip_longest(columns, line[: len(columns)], fillvalue="")
        }
        for line in lines[1:]
    ]


def _parse_boxes(text: str, place: str) -> tuple[Box, ...]:
    if text.lower() == "unknown":
        return ()
    return tuple(_parse_box(part, place) for part in text.split(";") if part.strip())


def _parse_box(text: str, place: str) -> Box:
    try:
        x0, y0, x1, y1 = (float(number) for number in text.split())
    except ValueError:
        x0 = y0 = x1 = y1 = 0.0
    if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
        raise DatasetError(
            f"{place}: the box {text.strip()!r} is not x0 y0 x1 y1 in shares of width and height, "
            "as 0.1 0.2 0.5 0.6"
        )
    return x0, y0, x1, y1
