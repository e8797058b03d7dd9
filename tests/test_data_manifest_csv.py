"""The manifest as a file: unusual names, and what is no manifest."""

from __future__ import annotations

from pathlib import Path

import pytest

from resformer.data.find import DatasetError
from resformer.data.manifest import (
    Manifest,
    ManifestRow,
    read_manifest,
    write_manifest,
)

HASH = "0" * 64


HEADER = "path,class,group,split,sha256"


def test_unusual_names_survive(tmp_path: Path) -> None:
    names = ['a/quote" and, comma.png', "a/two\nlines.png", "b/f\udce9vrier.png", "b/été.png"]
    rows = tuple(ManifestRow(n, n[0], i, "train", HASH) for i, n in enumerate(names))
    write_manifest(Manifest(("a", "b"), rows, ()), tmp_path / "m.csv")
    assert read_manifest(tmp_path / "m.csv").rows == rows


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "is no manifest: its first line must be path,class,group,split,sha256"),
        (["path,label"], "is no manifest"),
        ([HEADER], "names fewer than two classes"),
        ([HEADER, f"a/1.png,a,0,train,{HASH}"], "names fewer than two classes"),
        ([HEADER, "a/1.png,a,0,train"], "row 2: 5 values are needed, got 4"),
        ([HEADER, f"../1.png,a,0,train,{HASH}"], "'../1.png' is no relative path"),
        ([HEADER, f"a/../../1.png,a,0,train,{HASH}"], "is no relative path"),
        ([HEADER, f"/a/1.png,a,0,train,{HASH}"], "is no relative path"),
        ([HEADER, f"C:/1.png,a,0,train,{HASH}"], "is no relative path"),
        ([HEADER, f"..\\1.png,a,0,train,{HASH}"], "is no relative path"),
        ([HEADER, f",a,0,train,{HASH}"], "'' is no relative path"),
        ([HEADER, f"a/1.png,,0,train,{HASH}"], "the class is empty"),
        ([HEADER, f"a/1.png,a,-1,train,{HASH}"], "the group must be a whole number, got '-1'"),
        ([HEADER, f"a/1.png,a,0,valid,{HASH}"], "the split must be one of train, validation, test"),
        ([HEADER, "a/1.png,a,0,train,abc"], "'abc' is no SHA-256"),
        (
            [HEADER, f"a/1.png,a,0,train,{HASH}", f"b/1.png,b,0,test,{HASH}"],
            "group 0 of near-duplicates stands in train and in test",
        ),
        (
            [HEADER, f"a/1.png,a,0,train,{HASH}", f"a/1.png,b,1,test,{HASH}"],
            "names a/1.png twice",
        ),
        ([HEADER, '"a/1.png,a,0'], "cannot be read"),
    ],
)
def test_what_is_no_manifest_is_refused(tmp_path: Path, lines: list[str], message: str) -> None:
    path = tmp_path / "manifest.csv"
    path.write_text("".join(f"{line}\n" for line in lines))
    with pytest.raises(DatasetError) as refusal:
        read_manifest(path)
    assert message in str(refusal.value)


def test_no_manifest_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"absent.csv cannot be read: .*No such file"):
        read_manifest(tmp_path / "absent.csv")
