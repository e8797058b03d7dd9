"""Probes, figures for Prometheus, and the log."""

from __future__ import annotations

import json
import logging
import logging.config
import re
import sys
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from resformer.predict import Predictor
from tests.web.checkpoints import client_of, write_abstaining_checkpoint, write_gated_checkpoint
from tests.web.posting import encode, figures, post_file
from tests.web.serving import ROOT
from web import WebConfig, create_app
from web.monitoring import JsonFormatter, TextFormatter, logging_config
from web.service import ModelService


def test_a_server_without_its_model_lives_but_is_not_ready(tiny_checkpoint: Path) -> None:
    service = ModelService(tiny_checkpoint, "cpu")
    client = create_app(WebConfig(), service).test_client()
    assert client.get("/healthz").get_json() == {"status": "ok"}
    response = client.get("/readyz")
    assert (response.status_code, response.get_json()["code"]) == (503, "model_not_ready")
    assert int(response.headers["Retry-After"]) > 0
    service.load()
    response = client.get("/readyz")
    assert (response.status_code, response.get_json()) == (200, {"status": "ready"})


def test_metrics_count_requests_classes_and_refusals(client: FlaskClient) -> None:
    for data in (encode(), encode(), b"no image", b""):
        post_file(client, data)
    client.get("/")
    counted = figures(client)
    for endpoint, status, count in (
        ("/predict", 200, 2),
        ("/predict", 415, 1),
        ("/predict", 400, 1),
        ("/", 200, 1),
    ):
        labels = f'endpoint="{endpoint}",status="{status}"'
        assert counted[f"resformer_requests_total{{{labels}}}"] == count
    assert counted['resformer_request_seconds_count{endpoint="/predict"}'] == 4
    assert counted['resformer_request_seconds_sum{endpoint="/predict"}'] > 0
    assert counted['resformer_refusals_total{code="unsupported_format"}'] == 1
    assert counted['resformer_refusals_total{code="empty_file"}'] == 1
    classes = [name for name in counted if name.startswith("resformer_predictions_total")]
    assert sum(counted[name] for name in classes) == 2
    assert {re.sub(r'.*="(.*)"}', r"\1", name) for name in classes} <= {
        *("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia")
    }


def test_metrics_show_when_the_films_change(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Abstentions by reason, and the distance of the films that the gate accepts."""
    path = write_abstaining_checkpoint(tiny_checkpoint, tmp_path / "model.pth", "unfamiliar")
    films = [encode(96), encode(200)]
    distances = [found.distance or 0.0 for found in Predictor.from_file(path, "cpu").predict(films)]
    client = client_of(path)
    for film in films:
        assert post_file(client, film).status_code == 200
    counted = figures(client)
    assert counted['resformer_abstentions_total{reason="unfamiliar"}'] == 2
    assert counted["resformer_distance_count"] == 2
    assert counted["resformer_distance_sum"] == pytest.approx(sum(distances), rel=1e-3)

    client = client_of(write_gated_checkpoint(path, path, accepts=False))
    assert post_file(client, films[0]).status_code == 422
    assert post_file(client, films[0], force="1").status_code == 200
    counted = figures(client)
    assert counted['resformer_refusals_total{code="not_a_chest_xray"}'] == 1
    assert counted['resformer_abstentions_total{reason="unfamiliar"}'] == 1
    assert counted["resformer_distance_count"] == 0


def test_the_dashboard_shows_figures_and_labels_that_exist(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    client = client_of(write_abstaining_checkpoint(tiny_checkpoint, tmp_path / "model.pth"))
    for data in (encode(), b"no image"):
        post_file(client, data)
    labels: dict[str, dict[str, set[str]]] = {}
    for series in figures(client):
        name, _, told = series.partition("{")
        values = labels.setdefault(name, {})
        for label, value in re.findall(r'(\w+)="([^"]*)"', told):
            values.setdefault(label, set()).add(value)
    dashboard = (ROOT / "deploy" / "grafana-dashboard.json").read_text(encoding="utf-8")
    targets = [one for panel in json.loads(dashboard)["panels"] for one in panel["targets"]]
    assert len({name for one in targets for name in re.findall(r"resformer_\w+", one["expr"])}) > 8
    for target in targets:
        asked = target["expr"]
        assert set(re.findall(r"resformer_\w+", asked)) <= labels.keys()
        grouped = re.findall(r"by \((\w+)\) \(.*?(resformer_\w+)", asked)
        for label, name in grouped:
            assert label in labels[name]
        assert re.findall(r"{{(\w+)}}", target["legendFormat"]) in ([], [x for x, _ in grouped])
        for name, label, pattern in re.findall(r'(resformer_\w+){(\w+)=~"([^"]+)"', asked):
            assert any(re.fullmatch(pattern, value) for value in labels[name][label])


def test_no_client_can_make_up_a_label(client: FlaskClient) -> None:
    client.get("/metrics")
    before = set(figures(client))
    for number in range(20):
        client.get(f"/made-up-{number}")
        client.open("/predict", method=f"MADEUP{number}")
        client.get("/", headers={"X-Request-ID": f"made-up-{number}", "Host": f"made-up-{number}"})
        post_file(client, b"no image", name=f"made-up-{number}.png")
    added = set(figures(client)) - before
    assert not [name for name in added if "made" in name.lower()]
    endpoints = {re.sub(r'.*endpoint="([^"]*)".*', r"\1", n) for n in added if "endpoint" in n}
    assert endpoints == {"none", "/", "/predict"}


def record(message: str = "request", **details: object) -> logging.LogRecord:
    made = logging.LogRecord("web.monitoring", logging.INFO, "file", 1, message, (), None)
    made.details = details
    return made


def test_a_line_names_the_details_and_is_one_even_with_a_traceback() -> None:
    line = TextFormatter().format(record(status=200, code=None, milliseconds=1.5))
    assert line.endswith(" INFO request status=200 milliseconds=1.5")
    made = record("zwölf\nlines", status=200, code=None)
    try:
        raise KeyError("some")
    except KeyError:
        made.exc_info = sys.exc_info()
    line = JsonFormatter().format(made)
    assert "\n" not in line
    content = json.loads(line)
    assert content.pop("time").endswith("+00:00")
    assert content.pop("traceback").endswith("KeyError: 'some'")
    described = {"level": "INFO", "logger": "web.monitoring", "message": "zwölf\nlines"}
    assert content == {**described, "status": 200}


@pytest.mark.usefixtures("restored_logging")
@pytest.mark.parametrize(("style", "start"), [("text", "2"), ("json", "{")])
def test_the_configuration_writes_every_logger_to_standard_error(
    style: str, start: str, capsys: pytest.CaptureFixture[str]
) -> None:
    logging.config.dictConfig(logging_config(style))
    for name in ("web.server", "gunicorn.error"):
        logging.getLogger(name).info("a line")
    for name in ("waitress", "flask-limiter"):
        logging.getLogger(name).info("addresses of clients")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith(start) and "a line" in line for line in lines)


def test_every_request_has_an_identifier_and_a_line(
    client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        response = post_file(client, encode(), name="Mustermann.png")
        client.get("/Mustermann/Erika?name=Mustermann")
        post_file(client, b"no image")
    lines = (r.__dict__["details"] for r in caplog.records if r.msg == "request")
    answered, missing, refused = lines
    assert response.headers["X-Request-ID"] == answered["request_id"]
    assert answered["endpoint"] == "/predict"
    assert (answered["status"], answered["code"]) == (200, None)
    assert answered["bytes_in"] > len(encode())
    assert answered["bytes_out"] == len(response.data)
    assert 0 < answered["milliseconds"] < 60_000
    assert (missing["endpoint"], missing["status"]) == ("none", 404)
    assert missing["request_id"] != answered["request_id"]
    assert (refused["status"], refused["code"]) == (415, "unsupported_format")
    for line in map(JsonFormatter().format, caplog.records):
        assert "Mustermann" not in line
        assert "127.0.0.1" not in line


@pytest.mark.parametrize(
    ("given", "is_kept"),
    [
        ("abc-123_x.Y", True),
        ("a" * 64, True),
        ("a" * 65, False),
        ("", False),
        ("two words", False),
        ("line\tbreak", False),
        ("{}", False),
        ("ä", False),
    ],
)
def test_a_given_identifier_is_kept_if_it_is_a_short_token(
    client: FlaskClient, given: str, is_kept: bool
) -> None:
    answered = client.get("/healthz", headers={"X-Request-ID": given}).headers["X-Request-ID"]
    assert (answered == given) is is_kept
    assert answered


def test_probes_do_not_fill_the_log(client: FlaskClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        for address in ("/healthz", "/readyz", "/metrics"):
            assert client.get(address).status_code == 200
    assert caplog.records == []
