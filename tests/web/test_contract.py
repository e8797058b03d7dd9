"""``/openapi.json``: true to the application, fit for generators, and readable at ``/docs``."""

from __future__ import annotations

import base64
import dataclasses
import importlib
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import negative_data_rejection

from resformer import __version__
from tests.data_sets import CLASS_NAMES
from tests.web.checkpoints import write_gated_checkpoint
from tests.web.conftest import SMALL
from tests.web.posting import PATIENCE, encode, post_batch, post_file
from tests.web.serving import RunningApp
from web import create_app
from web.errors import CODES
from web.openapi import IMAGES, build_document
from web.requests import RAW_TYPES
from web.service import ModelService

METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE"}
PAGES = {"/", "/about", "/docs", "/licence", "/sample.png"} | {
    "/local/model.json",
    "/local/film.onnx.gz",
}


@pytest.fixture
def document(client: FlaskClient) -> Any:
    response = client.get("/openapi.json")
    assert (response.status_code, response.mimetype) == (200, "application/json")
    return response.get_json()


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*map(references, value.values()))
    return set().union(*map(references, value)) if isinstance(value, list) else set()


def test_the_document_is_openapi_3_1_and_names_itself(document: Any) -> None:
    assert document["openapi"] == "3.1.0"
    assert document["info"]["version"] == __version__
    assert document["info"]["license"] == {"name": "MIT", "identifier": "MIT"}
    identifiers = [
        operation["operationId"]
        for methods in document["paths"].values()
        for operation in methods.values()
    ]
    assert len(identifiers) == len(set(identifiers)) == 7


@pytest.mark.parametrize("keep_feedback", [False, True])
def test_every_address_of_the_application_is_documented_and_no_other(
    client_with: Callable[..., FlaskClient], tmp_path: Path, keep_feedback: bool
) -> None:
    client = client_with(keep_feedback=keep_feedback, uploads_path=tmp_path)
    real = {
        (rule.rule, method)
        for rule in client.application.url_map.iter_rules()
        for method in METHODS & (rule.methods or set())
        if rule.endpoint != "static" and rule.rule not in PAGES
    }
    paths = client.get("/openapi.json").get_json()["paths"]
    documented = {(path, m.upper()) for path, methods in paths.items() for m in methods}
    # What has a version was there before it had one, and still is.
    unversioned = {(path.removeprefix("/v1"), method) for path, method in documented}
    assert documented | unversioned == real


def test_every_reference_leads_somewhere_and_every_part_is_used(document: Any) -> None:
    targets = references(document)
    for target in targets:
        place = document
        for name in target.removeprefix("#/").split("/"):
            place = place[name]
    schemas = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    responses = {f"#/components/responses/{name}" for name in document["components"]["responses"]}
    assert targets == schemas | responses


def test_every_schema_is_one_and_its_examples_fit(document: Any) -> None:
    schemas = document["components"]["schemas"]
    for name, schema in schemas.items():
        whole = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        validator = jsonschema_rs.Draft202012Validator(whole)
        for example in schema.get("examples", []):
            validator.validate(example)
    for response in document["components"]["responses"].values():
        content = response["content"]["application/json"]
        whole = {**content["schema"], "components": document["components"]}
        jsonschema_rs.Draft202012Validator(whole).validate(content["example"])


def test_the_classes_and_limits_are_the_servers_own(
    document: Any, client_with: Callable[..., FlaskClient]
) -> None:
    assert document["components"]["schemas"]["ClassName"]["enum"] == list(CLASS_NAMES)
    shares = document["components"]["schemas"]["Prediction"]["properties"]["all_probabilities"]
    assert shares["required"] == list(CLASS_NAMES)
    description = document["paths"]["/v1/predict"]["post"]["description"]
    assert "1,048,576 bytes" in description
    assert "1,000,000 pixels" in description
    other = client_with(preview_side=1024).get("/openapi.json").get_json()
    picture = other["components"]["schemas"]["Answer"]["properties"]["image"]
    assert "at most 1024 pixels a side" in picture["description"]


@pytest.mark.parametrize(("key", "expected"), [(None, {}), ("secret", {"bearer": []})])
def test_a_key_is_asked_for_where_the_operator_set_one(
    client_with: Callable[..., FlaskClient], key: str | None, expected: dict[str, list[str]]
) -> None:
    paths = client_with(api_key=key).get("/openapi.json").get_json()["paths"]
    for path, method in (
        ("/v1/predict", "post"),
        ("/v1/predict/batch", "post"),
        ("/metrics", "get"),
    ):
        assert paths[path][method]["security"][0] == expected
    assert "security" not in paths["/v1/model"]["get"]
    assert "secret" not in json.dumps(paths)


@pytest.mark.parametrize("query", ["", "preview=0", "explain=1", "explain=1&class=Normal"])
def test_answers_have_the_shape_that_is_promised(
    client: FlaskClient, document: Any, query: str
) -> None:
    for name, response in (
        ("Answer", post_file(client, encode(), query=query)),
        ("BatchAnswer", post_batch(client, encode(), b"", b"words", query=query)),
        ("ModelCard", client.get("/model")),
    ):
        whole = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        jsonschema_rs.Draft202012Validator(whole).validate(response.get_json())


def test_the_document_is_there_before_the_model(unloaded_client: FlaskClient) -> None:
    schemas = unloaded_client.get("/openapi.json").get_json()["components"]["schemas"]
    assert schemas["ClassName"] == {"type": "string", "description": "A class of the model."}
    assert unloaded_client.get("/docs").status_code == 200


class Links(HTMLParser):
    """Gathers what a page refers to and what it can be referred to by."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.addresses: set[str] = set()
        self.names: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        assert not {"style", "onclick", "onload"} & given.keys()
        assert tag not in ("style", "iframe")
        assert tag != "script" or (given.get("src") or "").startswith("/static/")
        self.addresses |= {given[name] or "" for name in ("href", "src") if name in given}
        self.names += [given["id"] or ""] if "id" in given else []


def test_the_page_of_the_document_needs_no_network_and_no_inline_script(
    client: FlaskClient,
) -> None:
    links = Links(client.get("/docs").get_data(as_text=True))
    assert [a for a in links.addresses if not re.match(r"/(?!/)|#", a)] == []
    assert len(links.names) == len(set(links.names))
    anchors = {address[1:] for address in links.addresses if address.startswith("#")}
    assert anchors - set(links.names) == set()
    for address in links.addresses:
        if address.startswith("/"):
            with client.get(address) as response:
                assert response.status_code == 200, address


def test_the_page_shows_every_address_code_and_example(client: FlaskClient, document: Any) -> None:
    page = client.get("/docs").get_data(as_text=True)
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert f'<span class="method">{method.upper()}</span> <code>{path}</code>' in page
            assert operation["summary"] in page
    for code in CODES.keys() - {"cross_origin", "storage_full"}:
        assert f"<code>{code}</code>" in page
    assert "curl -F file=@film.png" in page
    assert "base64 -w0" in page
    assert "&lt;" not in re.sub(r"<pre.*?</pre>", "", page, flags=re.DOTALL)


@pytest.fixture(scope="module")
def generated(running_app: RunningApp, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a package that a generator made of the document of a running application."""
    folder = tmp_path_factory.mktemp("generated")
    (folder / "settings.yaml").write_text("post_hooks: []\n")
    command = [sys.executable, "-m", "openapi_python_client", "generate"]
    command += ["--url", f"{running_app.url}/openapi.json", "--config", "settings.yaml"]
    command += ["--meta", "none", "--output-path", "film_client"]
    subprocess.run(command, cwd=folder, check=True, timeout=120, capture_output=True)
    sys.path.insert(0, str(folder))
    return "film_client"


@pytest.mark.parametrize("way", ["form", "JSON", "body"])
def test_a_generated_client_uploads_a_film(
    running_app: RunningApp, generated: str, way: str, phantom_png: bytes
) -> None:
    models = importlib.import_module(f"{generated}.models")
    file = importlib.import_module(f"{generated}.types").File
    predict = importlib.import_module(f"{generated}.api.classify.predict")
    upload = file(payload=io.BytesIO(phantom_png), file_name="film.png")
    normal = models.ClassName.NORMAL
    if way == "form":
        body = models.PredictForm(file=upload, preview=False, explain=True, class_=normal)
    elif way == "JSON":
        text = base64.b64encode(phantom_png).decode()
        body = models.PredictJson(image=text, preview=False, explain=True, class_=normal)
    else:
        body = upload
    options = {"preview": False, "explain": True, "class_": normal} if way == "body" else {}
    with importlib.import_module(generated).Client(running_app.url) as client:
        answer = predict.sync(client=client, body=body, **options)
        refused = predict.sync(client=client, body=models.PredictJson(image="%"))
    assert isinstance(answer, models.Answer)
    shares = answer.prediction.all_probabilities.to_dict()
    assert list(shares) == list(CLASS_NAMES)
    assert shares[answer.prediction.predicted_class.value] == max(shares.values())
    assert answer.explanation.class_ is normal
    assert "image" not in answer.to_dict()
    assert (type(refused), refused.code.value) == (models.Error, "bad_base64")


def test_a_generated_client_uploads_several(
    running_app: RunningApp, generated: str, phantom_png: bytes
) -> None:
    models = importlib.import_module(f"{generated}.models")
    file = importlib.import_module(f"{generated}.types").File
    predict_batch = importlib.import_module(f"{generated}.api.classify.predict_batch")
    files = [file(io.BytesIO(data), f"{number}") for number, data in enumerate((phantom_png, b"x"))]
    body = models.BatchForm(files=files, preview=False)
    with importlib.import_module(generated).Client(running_app.url) as client:
        answer = predict_batch.sync(client=client, body=body)
    assert [type(result) for result in answer.results] == [models.FileAnswer, models.FileError]
    assert [(r.index, r.name) for r in answer.results] == [(0, "0"), (1, "1")]


TYPESCRIPT = """
import { predict, predictBatch } from "./client";
import { client } from "./client/client.gen";

declare const process: { argv: string[] };
declare function require(name: "node:fs"): {
  readFileSync(path: string): Uint8Array<ArrayBuffer>;
  readFileSync(path: string, encoding: "base64"): string;
};

async function upload([, , baseUrl, path]: string[]) {
  client.setConfig({ baseUrl });
  const { readFileSync } = require("node:fs");
  const image = readFileSync(path, "base64");
  const one = await predict({ body: { image, preview: false, explain: true, class: "Normal" } });
  const refused = await predict({ body: { image: "%" } });
  const files = [new Blob([readFileSync(path)]), new Blob(["words"])];
  const several = await predictBatch({ body: { files }, query: { preview: 0, rotate: 90 } });
  console.log(JSON.stringify([
    Object.keys(one.data!.prediction.all_probabilities),
    one.data!.explanation?.class,
    refused.error!.code,
    several.data!.results.map((result) => (result.success ? result.index : result.code)),
  ]));
}
upload(process.argv);
"""


@pytest.fixture(scope="module")
def typescript(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a compiler and a generator of clients, which come from the npm registry."""
    folder = tmp_path_factory.mktemp("typescript")
    if not (shutil.which("npm") and shutil.which("node")):
        pytest.skip("no Node.js to generate a client with")
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", "."]
    command += ["@hey-api/openapi-ts@0.99.0", "typescript@5.9.3"]
    try:
        subprocess.run(command, cwd=folder, check=True, timeout=60, capture_output=True)
    except subprocess.SubprocessError:
        pytest.skip("no generator to be had: the npm registry does not answer")
    return folder


def test_a_client_generated_in_typescript_compiles_and_uploads(
    running_app: RunningApp, typescript: Path, phantom_png: bytes
) -> None:
    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=typescript, timeout=PATIENCE, capture_output=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.decode()

    (typescript / "upload.ts").write_text(TYPESCRIPT)
    (typescript / "film.png").write_bytes(phantom_png)
    tools = typescript / "node_modules" / ".bin"
    run(f"{tools}/openapi-ts", "--input", f"{running_app.url}/openapi.json", "--output", "client")
    options = "--strict --target es2022 --module commonjs --moduleResolution node10 --skipLibCheck"
    run(f"{tools}/tsc", *options.split(), "--lib", "es2022,dom,dom.iterable", "upload.ts")
    found = json.loads(run("node", "upload.js", running_app.url, "film.png"))
    assert found == [list(CLASS_NAMES), "Normal", "bad_base64", [0, "unsupported_format"]]


EXAMPLES = 30
LIMITS = dataclasses.replace(SMALL, max_files=3, keep_feedback=True)
FILM = encode(64)
CHECKS = {
    "not_a_server_error": {"expected-statuses": ["2xx", "4xx", 503]},
    # Bytes that are no image are right by the document, and refused nevertheless.
    "positive_data_acceptance": {"enabled": False},
    "negative_data_rejection": {"expected-statuses": [400, 405, 413, 415, 422, 503]},
}

schema = schemathesis.openapi.from_dict(
    build_document(CLASS_NAMES, LIMITS), config=schemathesis.Config.from_dict({"checks": CHECKS})
)
for kind in (*(f"image/{name}" for name in IMAGES), *RAW_TYPES):
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
def fuzzed_app(
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
def test_every_answer_is_a_documented_one(case: schemathesis.Case[Any], fuzzed_app: Flask) -> None:
    # In a form everything is text: a number in the place of a file is a file.
    is_form = case.media_type == "multipart/form-data"
    case.call_and_validate(
        app=fuzzed_app, excluded_checks=[negative_data_rejection] if is_form else []
    )
