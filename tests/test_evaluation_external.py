"""Films of other hospitals: counts and areas by hand, the list of films, both commands."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from resformer.checkpoint import Checkpoint, save_checkpoint
from resformer.cli import main
from resformer.data.find import DatasetError
from resformer.data.manifest import write_manifest
from resformer.evaluation.external import ExternalFilm, evaluate_external, read_findings
from resformer.evaluation.predictions import Predictions
from resformer.evaluation.tables import render_areas
from resformer.gate import GateResult
from resformer.model import IdentityMappingResFormer, ResFormerConfig
from resformer.phantom import draw_chest_phantom
from resformer.predict import Prediction
from resformer.transforms import InputSpec
from tests.data_sets import CLASS_NAMES
from tests.training_setup import split_by_number

FILMS = [
    ExternalFilm("clinic", "clinic/1.png", "no finding"),
    ExternalFilm("clinic", "clinic/2.png", "no finding"),
    ExternalFilm("clinic", "clinic/3.png", "tuberculosis"),
    ExternalFilm("papers", "papers/1.png", "covid-19"),
    ExternalFilm("papers", "papers/2.png", "sars"),
]
# COVID, Lung_Opacity, Normal, Viral Pneumonia
PROBABILITIES = np.array(
    [
        [0.1, 0.0, 0.9, 0.0],
        [0.7, 0.0, 0.3, 0.0],
        [0.2, 0.2, 0.4, 0.2],
        [0.5, 0.3, 0.2, 0.0],
        [0.0, 0.0, 0.0, 1.0],
    ]
)


def answers(
    count: int = len(FILMS), refused: Sequence[int] = (), abstained: Sequence[int] = ()
) -> Predictions:
    films = range(count)
    return Predictions(
        PROBABILITIES[-count:],
        np.array([k in refused for k in films]),
        np.array([k in abstained for k in films]),
    )


def test_counts_and_areas_are_those_found_by_hand() -> None:
    report = evaluate_external(FILMS, answers(), CLASS_NAMES, bootstrap=50)
    clinic = report["sets"]["clinic"]
    assert clinic["no finding"]["count"] == 2
    assert clinic["no finding"]["predicted"] == {
        "COVID": 1,
        "Lung_Opacity": 0,
        "Normal": 1,
        "Viral Pneumonia": 0,
    }
    assert clinic["no finding"]["shares"]["COVID"]["value"] == 0.5
    assert clinic["tuberculosis"]["predicted"]["Normal"] == 1
    # 1 - P(Normal): 0.6 and 0.8 of the abnormal against 0.1 and 0.7 of the others.
    abnormal = report["abnormal_against_no_finding"]
    assert (abnormal["count"], abnormal["positive"]) == (4, 2)
    assert abnormal["auc"]["value"] == 0.75
    assert abnormal["auc"]["low"] <= 0.75 <= abnormal["auc"]["high"]
    # P(COVID): 0.5 against 0.1 and 0.7.
    covid = report["covid_against_no_finding"]
    assert (covid["count"], covid["positive"], covid["auc"]["value"]) == (3, 1, 0.5)
    json.dumps(report, allow_nan=False)


@pytest.mark.parametrize(
    ("refused", "abstained", "wrong", "shown"),
    [
        ((), (), 0.5, 1.0),
        ((1,), (), 0.0, 0.5),
        ((), (1,), 0.0, 0.5),
        ((0,), (), 0.5, 0.5),
        ((0,), (1,), 0.0, 0.0),
    ],
)
def test_a_wrong_class_counts_unless_it_is_refused_or_abstained_from(
    refused: Sequence[int], abstained: Sequence[int], wrong: float, shown: float
) -> None:
    """Of the two films without finding the second is called COVID."""
    found = evaluate_external(FILMS, answers(5, refused, abstained), CLASS_NAMES, bootstrap=0)
    clinic = found["sets"]["clinic"]["no finding"]
    assert (clinic["refused"], clinic["abstained"]) == (len(refused), len(abstained))
    assert clinic["wrong_without_warning"]["value"] == wrong
    assert clinic["shown"]["value"] == shown
    assert clinic["expected"] == "Normal"


def test_only_a_finding_with_a_class_of_its_own_can_get_a_wrong_one() -> None:
    sets = evaluate_external(FILMS, answers(), CLASS_NAMES, bootstrap=0)["sets"]
    assert sets["papers"]["covid-19"]["wrong_without_warning"]["value"] == 0
    for found in (sets["papers"]["sars"], sets["clinic"]["tuberculosis"]):
        assert (found["expected"], found["wrong_without_warning"]) == (None, None)
        assert found["shown"]["value"] == 1


def test_every_film_needs_an_answer() -> None:
    with pytest.raises(ValueError, match="give one prediction for each film: 4 for 5"):
        evaluate_external(FILMS, answers(4), CLASS_NAMES)
    with pytest.raises(ValueError, match="one row, refusal and abstention for each film"):
        Predictions(PROBABILITIES, np.zeros(5, bool), np.zeros(4, bool))


def test_a_gate_that_refuses_and_a_network_that_abstains_are_told_apart() -> None:
    even = dict.fromkeys(CLASS_NAMES, 0.25)
    found = Predictions.collect(
        [
            Prediction(even),
            Prediction(even, GateResult(0.9, 0.5, "")),
            Prediction(even, GateResult(0.1, 0.5, "It is a photograph.")),
            Prediction(even, reason="unfamiliar"),
        ]
    )
    assert found.refused.tolist() == [False, False, True, False]
    assert found.abstained.tolist() == [False, False, False, True]
    assert found.shown.tolist() == [True, True, False, False]
    assert found.probabilities.shape == (4, 4)


def test_what_a_network_or_a_set_does_not_have_is_undefined_and_says_why() -> None:
    names = ("COVID", "Lung_Opacity", "Healthy", "Viral Pneumonia")
    report = evaluate_external(FILMS, answers(), names, bootstrap=0)
    abnormal = report["abnormal_against_no_finding"]
    assert (abnormal["auc"], abnormal["reason"]) == (None, "the network has no class Normal")
    assert "| undefined: the network has no class Normal |" in render_areas(report)
    assert report["covid_against_no_finding"]["auc"]["value"] == 0.5
    assert report["sets"]["clinic"]["no finding"]["expected"] is None
    sick = evaluate_external(FILMS[2:], answers(3), CLASS_NAMES, bootstrap=0)
    covid = sick["covid_against_no_finding"]
    assert (covid["auc"], covid["reason"]) == (None, "no set has a film without a finding")


def test_own_classes_are_asked_for_by_their_own_names() -> None:
    films = [
        ExternalFilm("clinic", f"clinic/{n}.png", f) for n, f in enumerate(("no finding", "b l"))
    ]
    report = evaluate_external(
        films, answers(2), ("A", "B_l", "Healthy", "C"), healthy_class="Healthy", bootstrap=0
    )
    assert report["abnormal_against_no_finding"]["auc"]["value"] == 1
    assert report["sets"]["clinic"]["b l"]["expected"] == "B_l"
    assert list(report["classes_against_no_finding"]) == ["B_l"]
    text = render_areas(report)
    assert "by 1 - P(Healthy) | 1 | 1 | 1.000 |" in text
    assert "| B l against no finding, by P(B l) | 1 | 1 | 0.000 |" in text


def test_the_list_of_films_is_read(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("set,file,finding,view\nclinic,1.png,No Finding ,\npapers,2.png,COVID-19,PA\n")
    assert read_findings(path) == [
        ExternalFilm("clinic", "clinic/1.png", "no finding"),
        ExternalFilm("papers", "papers/2.png", "covid-19"),
    ]


def test_a_table_that_a_spreadsheet_saved_is_read(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes("\ufeffset,file,finding\r\nclinic,1.png,No Finding\r\n".encode())
    assert read_findings(path) == [ExternalFilm("clinic", "clinic/1.png", "no finding")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no column 'set', but nothing: its first line must name the columns"),
        ("set,file\na,b\n", "has no column 'finding', but set, file"),
        ("set,file,finding\n", "names no film"),
        ("set,file,finding\na,b,ards\na,c, \n", "row 3: the column finding is empty .write 'no f"),
        ("set,file,finding\na,,ards\n", "row 2: the column file is empty$"),
    ],
)
def test_what_is_no_list_of_films_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(DatasetError, match=message):
        read_findings(path)
    with pytest.raises(DatasetError, match=r"absent\.csv cannot be read"):
        read_findings(tmp_path / "absent.csv")


@pytest.fixture(scope="module")
def lung_checkpoint(tiny_config: ResFormerConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = replace(tiny_config, lung_head=True)
    path = tmp_path_factory.mktemp("checkpoint") / "model.pth"
    weights = IdentityMappingResFormer(config).state_dict()
    save_checkpoint(Checkpoint(config, CLASS_NAMES, InputSpec(size=64), weights), path)
    return path


def test_the_command_for_external_films(
    lung_checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    rows = ["set,file,finding"]
    for number, finding in enumerate(("No finding", "COVID-19")):
        folder = tmp_path / "data" / f"set-{number}"
        folder.mkdir(parents=True)
        Image.fromarray(draw_chest_phantom(96, seed=number)).save(folder / "film.png")
        rows.append(f"set-{number},film.png,{finding}")
    (tmp_path / "data" / "labels.csv").write_text("\n".join(rows))
    arguments = ["external", "--model", str(lung_checkpoint), "--data", str(tmp_path / "data")]
    assert main([*arguments, "--out", str(tmp_path / "out"), "--device", "cpu"]) == 0
    report = json.loads((tmp_path / "out" / "external.json").read_text())
    assert report["sets"]["set-1"]["covid-19"]["count"] == 1
    assert report["covid_against_no_finding"]["count"] == 2
    table = (tmp_path / "out" / "external.md").read_text()
    assert "| set-1 | covid-19 | 1 |" in table
    assert table in caplog.text


def test_the_command_for_controls(
    lung_checkpoint: Path, image_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = split_by_number(image_folder)
    write_manifest(manifest, tmp_path / "manifest.csv")
    arguments = [
        *("controls", "--model", str(lung_checkpoint), "--data", str(image_folder)),
        *("--manifest", str(tmp_path / "manifest.csv"), "--out", str(tmp_path), "--device", "cpu"),
    ]
    assert main(arguments) == 0
    reports = json.loads((tmp_path / "controls.json").read_text())
    assert reports["lungs blacked out"]["count"] == 8
    others = replace(
        manifest,
        class_names=("A", *CLASS_NAMES[1:]),
        rows=tuple(
            replace(row, class_name="A" if row.class_name == "COVID" else row.class_name)
            for row in manifest.rows
        ),
    )
    write_manifest(others, tmp_path / "manifest.csv")
    assert main(arguments) == 1
    assert "give one of the same classes" in caplog.text
