"""The benchmark of a source left out: which films are kept, what is measured, and its table."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.left_out import VARIANTS, leave_out, main, to_markdown
from resformer.data.manifest import Manifest, ManifestRow, write_manifest
from resformer.model import IdentityMappingResFormer, ResFormerConfig
from tests.conftest import CLASS_NAMES
from tests.lung_films import write_masked_films
from tests.training_setup import split_by_number


def _row(name: str, group: int, split: str, class_name: str = "COVID") -> ManifestRow:
    return ManifestRow(f"{class_name}/images/{name}.png", class_name, group, split, name)


def _manifest(*rows: ManifestRow) -> Manifest:
    return Manifest(CLASS_NAMES, rows, ())


def test_one_source_of_one_class_becomes_the_test_split() -> None:
    kept = leave_out(
        _manifest(
            _row("COVID-1", 0, "train"),
            _row("COVID-QU-1", 1, "train"),
            _row("COVID-QU-2", 2, "validation"),
            _row("COVID-QU-3", 3, "test"),
            _row("COVID-4", 4, "test"),
            _row("Normal-QU-1", 5, "train", "Normal"),
        ),
        "COVID",
        "QU",
    )
    splits = {Path(row.path).stem: row.split for row in kept.rows}
    assert splits == {
        "COVID-1": "train",
        "COVID-QU-1": "test",
        "COVID-QU-2": "test",
        "Normal-QU-1": "train",
    }


def test_a_film_left_out_has_no_near_duplicate_in_the_training() -> None:
    twins = _manifest(
        _row("COVID-1", 0, "train"), _row("COVID-QU-1", 0, "train"), _row("COVID-QU-2", 1, "train")
    )
    rows = leave_out(twins, "COVID", "QU").rows
    assert [(Path(row.path).stem, row.split) for row in rows] == [
        ("COVID-1", "train"),
        ("COVID-QU-2", "test"),
    ]


def test_a_source_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="no film of COVID is from RSNA: name another source"):
        leave_out(_manifest(_row("COVID-1", 0, "train")), "COVID", "RSNA")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn films with their lungs; some of the first class carry the mark of a source."""
    root = tmp_path_factory.mktemp("films")
    write_masked_films(root, masked=len(CLASS_NAMES))
    first = CLASS_NAMES[0]
    for number in (0, 1, 8, 10):
        for part in ("images", "masks"):
            for path in (root / first / part).glob(f"{first}-{number}.*"):
                path.rename(path.with_name(f"{first}-QU-{number}{path.suffix}"))
    return root


def test_the_command_measures_the_films_left_out(
    folder: Path, tiny_config: ResFormerConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.left_out.ResFormerConfig", lambda: tiny_config)
    first = CLASS_NAMES[0]
    write_manifest(split_by_number(folder), tmp_path / "split.csv")
    arguments = [
        *("--data", str(folder), "--manifest", str(tmp_path / "split.csv")),
        *("--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "out")),
        *("--class-name", first, "--epochs", "1", "--lung-epochs", "1", "--only", "ours"),
    ]
    threads = torch.get_num_threads()
    try:
        main(arguments)
    finally:
        torch.set_num_threads(threads)
    found = json.loads((tmp_path / "out" / "ours.json").read_text())
    # Two of the four marked films were for training, one for validation, one for testing.
    assert found["left_out"] == sum(found["called"].values()) == 3
    assert found["recall"]["left out"]["value"] == pytest.approx(found["called"][first] / 3)
    assert found["validation"]["per_class"][first]["support"] == 1
    assert found["recall"]["known"]["value"] in (0, 1)
    assert all(0 <= area <= 1 for area in found["auc"].values())
    assert found["epochs"] == 1
    table = (tmp_path / "out" / "README.md").read_text()
    assert f"Trained without films of {first} from QU; seed 0." in table
    assert to_markdown([found]) in table


def test_the_variants_differ_in_the_recipe_alone(tiny_config: ResFormerConfig) -> None:
    for variant in VARIANTS:
        heads = replace(tiny_config, lung_head=True, infection_head=True)
        assert isinstance(variant.build(heads), IdentityMappingResFormer)
        assert variant.lung_head
        assert variant.infection_head
        assert set(variant.changes) <= {"background_replacement", "style_exchange"}
