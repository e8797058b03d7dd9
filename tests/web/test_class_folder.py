"""The folder of a class among the given images: its own, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.web.kept_films import film, listing, stored
from web.feedback_store import FeedbackStore, class_folder


@pytest.mark.parametrize(
    "name", ["COVID", "Viral Pneumonia", "COVID-19", "_other", "Größe", "肺炎", "a.b", "100 %"]
)
def test_a_class_that_can_be_a_folder_is_its_own_folder(name: str) -> None:
    assert class_folder(name) == name


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "../Normal", "/etc", "a/b", "a\\b", "C:", "..\\..", ".hidden", "__MACOSX"),
        *("a\0b", "a\nb", "end.", "end ", "NUL", "com1.png", "x" * 300, "é" * 150, "\udce9", "*?"),
    ],
)
def test_any_other_class_gets_a_folder_that_leads_nowhere_else(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "uploads"
    FeedbackStore(folder, max_bytes=2**20, patience=60).keep(film(1), name)
    (made,) = listing(folder)
    assert made != name
    assert made.isascii()
    assert stored(folder).parent.parent == folder


@given(st.lists(st.text(max_size=20), min_size=2, max_size=2, unique=True))
def test_no_two_classes_share_a_folder_and_none_leaves_it(names: list[str]) -> None:
    first, second = (class_folder(name) for name in names)
    assert first != second
    for name in (first, second):
        assert Path(name).name == name
        assert not name.startswith(".")
        assert (Path("/uploads") / name).resolve().parent == Path("/uploads")
