"""Schemathesis asks for whatever the OpenAPI document allows, and for what it forbids.

Every answer must have a documented status, content type, headers and shape; none may be a 500,
and what the document forbids must be refused. The examples are the same in every run.
"""

from __future__ import annotations

import base64
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from flask import Flask
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import negative_data_rejection

from tests.conftest import CLASS_NAMES
from tests.web.conftest import encode
from tests.web.gating import write_gated_checkpoint
from web import WebConfig, create_app
from web.contract import build_document
from web.service import ModelService

EXAMPLES = 30
LIMITS = WebConfig(device="cpu", max_bytes=2**20, max_pixels=10**6, max_files=3, keep_feedback=True)
FILM = encode(64)
CHECKS = {
    "not_a_server_error": {"expected-statuses": ["2xx", "4xx", 503]},
    # Bytes that are no image are right by the document, and refused nevertheless.
    "positive_data_acceptance": {"enabled": False},
    "negative_data_rejection": {"expected-statuses": [400, 405, 413, 415, 422, 503]},
}

document = build_document(CLASS_NAMES, LIMITS)
schema = schemathesis.openapi.from_dict(
    document, config=schemathesis.Config.from_dict({"checks": CHECKS})
)
for kind, body in document["paths"]["/predict"]["post"]["requestBody"]["content"].items():
    if not body:
        files = st.one_of(st.just(FILM), st.just(FILM[:200]), st.binary(max_size=64))
        schemathesis.openapi.media_type(kind, files)


@schema.hook
def map_body(context: schemathesis.HookContext, body: Any) -> Any:
    """Put a film where there would be nothing; random text is never one."""
    films = {"file": FILM, "files": [FILM, b""], "image": base64.b64encode(FILM).decode()}
    if not isinstance(body, dict):
        return body
    return {n: films.get(n, value) if value in ("", [""]) else value for n, value in body.items()}


@pytest.fixture(scope="module", params=["accepting", "refusing", "loading"])
def app(
    request: pytest.FixtureRequest, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Flask:
    """The application with a gate that takes every film, one that takes none, and no model yet."""
    folder = tmp_path_factory.mktemp("gated")
    path = write_gated_checkpoint(
        tiny_checkpoint, folder / "m.pth", accepts=request.param == "accepting"
    )
    config = dataclasses.replace(LIMITS, model_path=path, uploads_path=folder / "uploads")
    service = ModelService(path, "cpu")
    if request.param != "loading":
        service.load()
    return create_app(config, service)


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_a_documented_one(case: schemathesis.Case[Any], app: Flask) -> None:
    # In a form everything is text: a number in the place of a file is a file.
    is_form = case.media_type == "multipart/form-data"
    case.call_and_validate(app=app, excluded_checks=[negative_data_rejection] if is_form else [])
