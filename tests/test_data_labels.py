"""Tables beside the images: patients, sources, readings and boxes, and the rules without them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from resformer.data.find import DatasetError
from resformer.data.labels import FilmLabel, read_boxes, read_labels, source_by_rule
from resformer.data.manifest import Manifest, build_manifest, read_manifest, write_manifest
from resformer.data.masks import BOXED, INFECTION_FOLDER, OUTLINED, UNKNOWN, cache_masks
from resformer.data.readings import contradicts, read_as
from resformer.data.unpack import open_data_root, open_data_roots
from tests.data_sets import CLASS_NAMES, encode, write_data_set


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Twenty films each of two classes, in a folder called clinic."""
    return write_data_set(tmp_path / "clinic", {"Covid": 20, "Healthy": 20})


def write_table(root: Path, text: str, name: str = "labels.csv", encoding: str = "utf-8") -> None:
    (root / name).write_bytes(text.replace("\n", "\r\n").encode(encoding))


def splits_of(manifest: Manifest) -> Mapping[str, str]:
    return {row.path: row.split for row in manifest.rows}


@pytest.mark.parametrize(
    ("path", "class_name", "source"),
    [
        ("COVID/images/COVID-12.png", "COVID", "radiography"),
        ("Lung_Opacity/images/Lung_Opacity-RSNA-f0a3-bb-1.jpg", "Lung_Opacity", "rsna"),
        ("Normal/images/Normal-QU-1.jpg", "Normal", "rsna"),
        ("Viral Pneumonia/images/Viral Pneumonia-1.png", "Viral Pneumonia", "kermany"),
        ("data-2/Normal/images/NIH-00000165_001.jpg", "Normal", "rsna"),
        ("Normal/00000165_001.png", "Normal", "rsna"),
        ("Normal/images/KERMANY-IM-0117-0001.jpg", "Normal", "folder"),
        ("Covid/images/COVID-12.png", "Covid", "folder"),
    ],
)
def test_names_tell_the_source_where_they_are_known(
    path: str, class_name: str, source: str
) -> None:
    assert source_by_rule(path, class_name, "folder") == source


@pytest.mark.parametrize(
    ("reading", "as_read", "contradicted"),
    [
        ("Negative", "Normal", {"COVID", "Lung_Opacity", "Viral Pneumonia"}),
        ("Negative for Pneumonia", "Normal", {"COVID", "Lung_Opacity", "Viral Pneumonia"}),
        ("normal", "Normal", {"COVID", "Lung_Opacity", "Viral Pneumonia"}),
        ("Typical", "COVID", {"Lung_Opacity", "Normal", "Viral Pneumonia"}),
        ("ATYPICAL", "Lung_Opacity", {"COVID", "Normal", "Viral Pneumonia"}),
        ("indeterminate", None, {"COVID"}),
        ("opacity", "Lung_Opacity", {"Normal"}),
        ("no opacity, not normal", None, {"Lung_Opacity"}),
        ("viral  pneumonia", "Viral Pneumonia", {"COVID", "Lung_Opacity", "Normal"}),
        ("Typical Appearance", "COVID", {"Lung_Opacity", "Normal", "Viral Pneumonia"}),
        ("Atypical Appearance", "Lung_Opacity", {"COVID", "Normal", "Viral Pneumonia"}),
        ("Lung Opacity", "Lung_Opacity", {"Normal"}),
        ("No Lung Opacity / Not Normal", None, {"Lung_Opacity"}),
        ("No_Opacity", None, {"Lung_Opacity"}),
        ("", None, set()),
        ("cardiomegaly", None, set()),
    ],
)
def test_a_reading_supports_a_class_and_contradicts_others(
    reading: str, as_read: str | None, contradicted: set[str]
) -> None:
    assert read_as(reading, CLASS_NAMES, "Normal") == as_read
    found = {n for n in CLASS_NAMES if contradicts(n, reading, CLASS_NAMES)}
    assert found == contradicted


def test_a_reading_contradicts_a_class_where_the_healthy_one_is_missing() -> None:
    assert contradicts("COVID", "negative", ("COVID", "Viral Pneumonia"))
    assert contradicts("lung opacity", "negative", ("lung opacity", "Healthy"))
    assert not contradicts("Tumour", "negative", ("Tumour", "Healthy"))
    assert contradicts("Tumour", "negative", ("Tumour", "Healthy"), "Healthy")


def test_a_row_knows_its_source_and_its_reading(root: Path, tmp_path: Path) -> None:
    write_table(
        root,
        "file,patient,source,appearance,age\n"
        "Covid/images/Covid-000.png,p1,elsewhere,Typical,50\n"
        "Covid\\images\\Covid-001.png,p2,,,\n",
    )
    write_table(root, "file,readers,reading\nHealthy-003.png,RSNA,normal\n", "readings.csv")
    manifest = build_manifest(root)
    rows = {row.path: (row.source, row.reading) for row in manifest.rows}
    assert rows["Covid/images/Covid-000.png"] == ("elsewhere", "Typical")
    assert rows["Covid/images/Covid-001.png"] == ("clinic", "")
    assert rows["Healthy/images/Healthy-003.png"] == ("clinic", "normal")
    write_manifest(manifest, tmp_path / "manifest.csv")
    assert read_manifest(tmp_path / "manifest.csv", root) == manifest


def test_films_of_one_patient_are_one_group_over_all_data_sets(root: Path, tmp_path: Path) -> None:
    other = write_data_set(tmp_path / "other" / "clinic", {"Healthy": 6}, first_seed=500)
    third = write_data_set(tmp_path / "third", {"Healthy": 6}, first_seed=600)
    rows = "".join(f"Covid/images/Covid-{n:03d}.png,p{n // 5},x\n" for n in range(20))
    write_table(root, f"file,patient,source\n{rows}")
    write_table(other, "file,patient,source\nHealthy-000.png,p0,x\nHealthy-001.png,p9,x\n")
    write_table(third, "file,patient,source\nHealthy-000.png,p1,another hospital's\n")
    with open_data_roots([root, other, third]) as joined:
        groups = {row.path: row.group for row in build_manifest(joined).rows}
    of_patients = [groups[f"Covid/images/Covid-{n:03d}.png"] for n in range(20)]
    assert of_patients == [n // 5 for n in range(20)]
    assert groups["data-2/Healthy/images/Healthy-000.png"] == 0
    assert groups["data-3/Healthy/images/Healthy-000.png"] != 1
    assert len(set(groups.values())) == 4 + 20 + 5 + 6


def test_contradicted_films_are_tested_and_not_trained_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_data_set(tmp_path / "films", {"COVID": 40, "Normal": 20})
    rows = [f"COVID/images/COVID-{n:03d}.png,Negative\n" for n in range(20)]
    write_table(root, "".join(["file,reading\n", *rows]), "readings.csv")
    with caplog.at_level(logging.INFO):
        manifest = build_manifest(root)
    read = [row.split for row in manifest.rows if row.reading == "Negative"]
    assert read == ["test", "test"]
    message = "left out of train and validation: 18 films whose reading contradicts their class"
    assert f"{message} (18 COVID read as Negative)" in caplog.text
    others = [row.split for row in manifest.rows if row.class_name == "COVID" and not row.reading]
    assert [others.count(split) for split in ("train", "validation", "test")] == [16, 2, 2]
    assert build_manifest(root, earlier=manifest, seed=3) == manifest
    rows += [f"COVID/images/COVID-{n:03d}.png,Atypical\n" for n in range(20, 40)]
    write_table(root, "".join(["file,reading\n", *rows]), "readings.csv")
    with pytest.raises(DatasetError, match=r"readings contradict all films of 'COVID' in train"):
        build_manifest(root)


def test_earlier_test_films_stay_test_films(root: Path, tmp_path: Path) -> None:
    earlier = build_manifest(root, seed=1)
    more = write_data_set(tmp_path / "more", {"Covid": 10, "Healthy": 10}, first_seed=300)
    copied = next(row.path for row in earlier.subset("test") if row.class_name == "Covid")
    (more / "Covid/images/again.png").write_bytes((root / copied).read_bytes())
    with open_data_roots([root, more]) as joined:
        manifest = build_manifest(joined, earlier=earlier, seed=2)
    splits = splits_of(manifest)
    assert {path: splits[path] for path in splits_of(earlier)} == splits_of(earlier)
    assert splits["data-2/Covid/images/again.png"] == "test"
    new = [split for path, split in splits.items() if path.startswith("data-2/")]
    assert (new.count("validation"), new.count("test")) == (2, 2 + 1)
    # Stored anew under the same names they are the same films.
    for path in root.rglob("*.png"):
        path.rename(path.with_suffix(".jfif"))
    again = {
        path.replace(".jfif", ".png"): s
        for path, s in splits_of(build_manifest(root, earlier=earlier)).items()
    }
    assert again == splits_of(earlier)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("file,patient\nCovid/images/Covid-000.png,Müller\n", "utf-8-sig"),
        ("File;Patient\n Covid/images/Covid-000.png ;Müller\n;\n", "utf-8-sig"),
        ("file,patient,reading\nCovid-000.png,Müller\n", "utf-8"),
    ],
)
def test_a_table_is_read_as_spreadsheets_save_it(root: Path, text: str, encoding: str) -> None:
    write_table(root, text, encoding=encoding)
    path = "Covid/images/Covid-000.png"
    assert read_labels(root, [path]) == {path: FilmLabel(patient="Müller")}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no column 'file', but nothing: its first line must name the columns"),
        ("image,patient\na,b\n", "has no column 'file', but image, patient"),
        (
            "file\nimages/Covid-000.png\nx/Covid-001.png\n",
            r"names 2 files that do not exist: images/Covid-000.png; x/Covid-001.png. Write the "
            r"paths as they are seen from .*clinic \(such as COVID/images/1.png\), or remove",
        ),
        ("file\n1.png\n", "names 1 files that do not exist"),
        (
            "file,patient\nCovid-000.png,1\nCovid-000.png,2\n",
            "row 3: Covid-000.png stands in the table with other values already: keep one",
        ),
        ("file,boxes\nCovid-000.png,0.1 0.2 0.3\n", "row 2: the box '0.1 0.2 0.3' is not x0 y0"),
        ("file,boxes\nCovid-000.png,0.5 0.2 0.3 0.9\n", "is not x0 y0 x1 y1 in shares of width"),
        ("file,boxes\nCovid-000.png,10 20 30 40\n", "as 0.1 0.2 0.5 0.6"),
        ("file\nM\xfcller.png\n", "cannot be read: .*. Save it as CSV in UTF-8"),
    ],
)
def test_a_wrong_table_is_refused_with_its_fix(root: Path, text: str, message: str) -> None:
    for name in ("Covid", "Healthy"):
        (root / name / "images" / "1.png").write_bytes(encode(np.eye(64, dtype=np.uint8)))
    write_table(root, text, encoding="latin-1")
    with pytest.raises(DatasetError, match=message):
        build_manifest(root)


def test_rows_of_another_data_set_are_passed_over(root: Path) -> None:
    write_table(root, "file,patient\n../absent/images/1.png,p1\nCovid-000.png,p2\n")
    assert read_labels(root, ["Covid/images/Covid-000.png"]) == {
        "Covid/images/Covid-000.png": FilmLabel(patient="p2")
    }


def test_boxes_are_coarse_infection_masks(root: Path, tmp_path: Path) -> None:
    write_table(
        root,
        "file,appearance,boxes\nCovid-000.png,Typical,0.25 0.5 0.5 0.75; 0 0 0.1 1\n"
        "Covid-001.png,Typical,0 0 1 1\nCovid-002.png,Typical,\nCovid-003.png,Typical,unknown\n"
        "Healthy-000.png,Negative for Pneumonia,0 0 1 1\n",
    )
    folder = root / "Covid" / INFECTION_FOLDER
    folder.mkdir()
    (folder / "Covid-001.png").write_bytes(encode(np.zeros((64, 64), dtype=np.uint8)))
    rows = build_manifest(root).rows
    boxes = read_boxes(root, [row.path for row in rows])
    assert list(boxes) == ["Covid/images/Covid-000.png", "Covid/images/Covid-001.png"]
    cache = tmp_path / "cache"
    masks = cache_masks(root, rows, 40, cache, region=INFECTION_FOLDER, boxes=boxes)
    assert masks.known.tolist() == [BOXED, OUTLINED, *[UNKNOWN] * (len(rows) - 2)]
    expected = np.zeros((40, 40), dtype=np.uint8)
    expected[20:30, 10:20] = expected[:, :4] = 255
    np.testing.assert_array_equal(masks.masks[0], expected)
    assert masks.masks[1:].max() == 0
    without = cache_masks(root, rows, 40, cache, region=INFECTION_FOLDER)
    assert without.digest != masks.digest
    assert without.masks.max() == 0


def test_an_archive_brings_its_tables_and_its_name(root: Path, tmp_path: Path) -> None:
    import shutil

    write_table(root, "file,patient\nCovid-000.png,p\nCovid-001.png,p\n")
    archive = Path(shutil.make_archive(str(tmp_path / "hospital"), "zip", root))
    with open_data_root(archive) as opened:
        manifest = build_manifest(opened)
    assert {row.source for row in manifest.rows} == {"hospital"}
    assert manifest.rows[0].group == manifest.rows[1].group
