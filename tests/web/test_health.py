"""What machines ask: is it alive, is it ready, what has it done."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from tests.web.conftest import encode
from tests.web.posting import post_file
from web import WebConfig, create_app
from web.service import ModelService


def figures(client: FlaskClient) -> dict[str, float]:
    response = client.get("/metrics")
    assert response.content_type.startswith("text/plain; version=")
    lines = response.get_data(as_text=True).splitlines()
    return {
        name: float(value)
        for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    }


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
    assert counted['resformer_requests_total{endpoint="/predict",status="200"}'] == 2
    assert counted['resformer_requests_total{endpoint="/predict",status="415"}'] == 1
    assert counted['resformer_requests_total{endpoint="/predict",status="400"}'] == 1
    assert counted['resformer_requests_total{endpoint="/",status="200"}'] == 1
    assert counted['resformer_request_seconds_count{endpoint="/predict"}'] == 4
    assert counted['resformer_request_seconds_sum{endpoint="/predict"}'] > 0
    assert counted['resformer_refusals_total{code="unsupported_format"}'] == 1
    assert counted['resformer_refusals_total{code="empty_file"}'] == 1
    classes = [name for name in counted if name.startswith("resformer_predictions_total")]
    assert sum(counted[name] for name in classes) == 2
    assert {re.sub(r'.*="(.*)"}', r"\1", name) for name in classes} <= {
        *("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia")
    }


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


@pytest.mark.parametrize("address", ["/healthz", "/readyz", "/metrics"])
def test_probes_are_never_cached(client: FlaskClient, address: str) -> None:
    assert client.get(address).headers["Cache-Control"] == "no-store"
