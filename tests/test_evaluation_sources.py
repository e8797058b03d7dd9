"""What the sources of films give away, within and between them, and what readers saw in them."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest

from resformer.data.manifest import Manifest, ManifestRow
from resformer.evaluation.predictions import Predictions
from resformer.evaluation.sources import (
    compare_readings,
    count_by_source,
    describe_composition,
    evaluate_within_sources,
    trace_sources,
)
from resformer.evaluation.tables import render_readings, render_traces, render_within_sources
from tests.data_sets import CLASS_NAMES


def row(
    class_name: str, source: str = "", *, split: str = "test", group: int = 0, reading: str = ""
) -> ManifestRow:
    path = f"{class_name}/{class_name}-1.png"
    return ManifestRow(path, class_name, group, split, "0" * 64, source, reading)


def predictions(probabilities: Sequence[Sequence[float]]) -> Predictions:
    none = np.zeros(len(probabilities), bool)
    return Predictions(np.array(probabilities, dtype=float), none, none)


def test_a_source_that_has_one_class_alone_gives_it_away() -> None:
    rows = [
        *[row("Normal", "clinic", split="train")] * 10,
        *[row("COVID", "clinic", split="train")] * 5,
        *[row("COVID", "papers", split="train")] * 15,
        row("Normal", "papers", split="train"),
        row("Normal", "elsewhere"),
    ]
    found = describe_composition(Manifest(("COVID", "Normal"), tuple(rows), ()))
    assert found["films"]["COVID"]["papers"] == {"train": 15, "validation": 0, "test": 0}
    assert found["films"]["Normal"]["elsewhere"]["test"] == 1
    assert found["given_away"] == {"COVID": {"sources": ["papers"], "share": 0.75}}
    assert found["named_by_source"] == pytest.approx(25 / 31)
    assert found["named_blindly"] == pytest.approx(20 / 31)


def test_one_source_gives_nothing_away() -> None:
    rows = (*[row("A", split="train")] * 9, row("B", split="train"))
    found = describe_composition(Manifest(("A", "B"), rows, ()))
    assert found["given_away"] == {}
    assert found["named_by_source"] == found["named_blindly"] == 0.9


def test_the_recall_of_every_source_is_counted() -> None:
    rows = [row("A", "here"), row("A", "here"), row("A", "there"), row("B")]
    given = predictions([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]])
    found = count_by_source(rows, given, ("A", "B"))
    assert {name: list(sources) for name, sources in found.items()} == {
        "A": ["here", "there"],
        "B": ["unknown"],
    }
    assert found["A"]["here"]["predicted"] == {"A": 1, "B": 1}
    assert found["A"]["here"]["recall"]["value"] == 0.5
    for judge in (count_by_source, evaluate_within_sources, compare_readings):
        with pytest.raises(ValueError, match="give one prediction for each film: 4 for 3"):
            judge(rows[:3], given, ("A", "B"))


def test_classes_are_told_apart_within_each_source() -> None:
    rows = [
        *[row("COVID", "siim"), row("COVID", "siim"), row("Normal", "siim"), row("Normal", "siim")],
        *[row("Lung_Opacity", "siim"), row("Viral Pneumonia", "kermany")],
    ]
    given = predictions(
        [
            [0.6, 0.2, 0.2, 0.0],
            [0.3, 0.0, 0.7, 0.0],
            [0.4, 0.0, 0.5, 0.1],
            [0.1, 0.0, 0.9, 0.0],
            [0.0, 0.4, 0.6, 0.0],
            [0.0, 0.0, 0.0, 1.0],
        ]
    )
    found = evaluate_within_sources(rows, given, CLASS_NAMES, bootstrap=20)
    areas = {(a["source"], a["positive"], a["negative"]): a for a in found["areas"]}
    assert list(areas) == [
        ("siim", "COVID", "Lung_Opacity"),
        ("siim", "COVID", "Normal"),
        ("siim", "Lung_Opacity", "Normal"),
        ("siim", None, "Normal"),
    ]
    covid = areas["siim", "COVID", "Normal"]
    assert (covid["positives"], covid["negatives"]) == (2, 2)
    # P(COVID): 0.6 and 0.3 against 0.4 and 0.1; 1 - P(Normal): 0.8 and 0.3 against 0.5 and 0.1.
    assert (covid["by_positive"]["value"], covid["by_negative"]["value"]) == (0.75, 0.75)
    every = areas["siim", None, "Normal"]
    assert (every["by_positive"], every["positives"]) == (None, 3)
    assert every["by_negative"]["value"] == pytest.approx(4 / 6)
    assert found["calibration"]["kermany"] == {"count": 1, "expected_calibration_error": 0.0}
    assert found["calibration"]["siim"]["count"] == 5
    table = render_within_sources(found["areas"])
    assert "| siim | all others against Normal | 3 | 2 | - | 0.667" in table
    json.dumps(found, allow_nan=False)


def test_own_classes_and_films_of_no_known_source_have_areas_where_they_mean_something() -> None:
    given = predictions([[0.9, 0.1], [0.2, 0.8]])
    known = evaluate_within_sources([row("A", "x"), row("B", "x")], given, ("A", "B"), bootstrap=0)
    (area,) = known["areas"]
    assert (area["positive"], area["negative"], area["by_positive"]["value"]) == ("A", "B", 1.0)
    unknown = evaluate_within_sources([row("A"), row("B")], given, ("A", "B"), bootstrap=0)
    assert unknown["areas"] == []
    assert list(unknown["calibration"]) == ["unknown"]


def test_readings_are_held_against_labels() -> None:
    rows = [
        *[row("COVID", reading="Negative")] * 3,
        row("COVID", reading="Typical"),
        row("COVID", reading="blurred"),
        *[row("Normal")] * 4,
    ]
    covid, normal = [0.9, 0.0, 0.1, 0.0], [0.1, 0.0, 0.9, 0.0]
    given = predictions([covid, covid, normal, covid, covid, covid, normal, normal, normal])
    found = compare_readings(rows, given, CLASS_NAMES)
    assert found is not None
    assert (found["count"], found["unknown"]) == (5, {"blurred": 1})
    (contradicted,) = found["contradicted"]
    assert (contradicted["label"], contradicted["reading"]) == ("COVID", "Negative")
    assert contradicted["as_read"] == "Normal"
    assert contradicted["predicted"]["COVID"] == 2
    assert contradicted["called_as_labelled"]["value"] == pytest.approx(2 / 3)
    assert contradicted["called_as_read"]["value"] == pytest.approx(1 / 3)
    assert contradicted["others"]["value"] == 0.25
    assert "| COVID | Negative | 3 | 2 | 0 | 1 | 0 | 0.667" in render_readings(found, CLASS_NAMES)
    assert compare_readings(rows[5:], predictions([normal] * 4), CLASS_NAMES) is None


def test_a_source_is_read_off_features_that_hold_it_and_not_off_noise() -> None:
    rng = np.random.default_rng(0)
    rows = [
        row(name, source, group=60 * k + number)
        for k, name in enumerate(("A", "B"))
        for source in ("x", "y")
        for number in range(30)
    ]
    rows += [row("B", "few", group=500)] * 3
    features = rng.normal(size=(len(rows), 8))
    features[:, 0] += [6 * (r.class_name == "A" and r.source == "y") for r in rows]
    found = trace_sources(features, rows, bootstrap=50)
    assert found["A"]["sources"] == found["B"]["sources"] == {"x": 30, "y": 30}
    assert found["A"]["auc"]["value"] > 0.95
    assert found["B"]["auc"]["low"] < 0.5 < found["B"]["auc"]["high"] + 0.2
    traces = {"model": {"source": "1" * 64, "classes": found}}
    assert "| A | x 30, y 30 | 1.000" in render_traces(traces)
    before = traces | {"before": {"source": "0" * 64, "classes": {"A": found["A"]}}}
    assert "| B | x 30, y 30 | - | 0." in render_traces(before)
    assert trace_sources(features[:30], rows[:30]) == {}
