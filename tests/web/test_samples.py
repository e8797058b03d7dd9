"""The programs at ``/docs`` are run as they stand there, against the server that shows them."""

from __future__ import annotations

import csv
import dataclasses
import html
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.web.conftest import SMALL
from tests.web.posting import PATIENCE, encode
from tests.web.serving import ROOT, serve_in_thread
from web import create_app
from web.service import ModelService

KEY = "correct-horse-battery"
COMMANDS = {"py": [sys.executable], "mjs": ["node"], "sh": ["sh"]}
# README and documents quote what the page shows, at the address of a default start.
DOCUMENT = (ROOT / "docs" / "http_api.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module", params=[None], ids=["unlimited"])
def server(request: pytest.FixtureRequest, loaded: ModelService) -> Iterator[str]:
    """A server under a path that asks for a key; with a rate limit it lets nobody hurry."""
    config = dataclasses.replace(
        SMALL, port=0, api_key=KEY, rate_limit=request.param, root_path="/films"
    )
    with serve_in_thread(create_app(config, loaded), config) as address:
        yield f"{address}/films"


@pytest.fixture(scope="module")
def programs(server: str) -> dict[str, str]:
    """The programs of the page, by file name."""
    with urllib.request.urlopen(f"{server}/docs", timeout=PATIENCE) as response:
        page = response.read().decode()
    found = re.findall(r"· (\w+\.\w+)</figcaption>\s*<pre[^>]*><code>(.*?)</code>", page, re.S)
    return {name: html.unescape(text) for name, text in found}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Films beside a file that is none, and a folder of such."""
    (tmp_path / "film.png").write_bytes(encode())
    (tmp_path / "first.png").write_bytes(encode())
    (tmp_path / "second.dcm").write_bytes(b"words")
    films = tmp_path / "films"
    films.mkdir()
    for number in range(6):
        (films / f"film, {number};.png").write_bytes(encode())
    (films / "words.png").write_bytes(b"words")
    return tmp_path


def run(
    program: str, kind: str, folder: Path, *arguments: str, key: str = KEY
) -> subprocess.CompletedProcess[str]:
    """Run a program as a person would who copied it."""
    needed = "curl" if kind == "sh" else COMMANDS[kind][0]
    if not shutil.which(needed):
        pytest.skip(f"no {needed} to run it with")
    (folder / f"program.{kind}").write_text(program, encoding="utf-8")
    return subprocess.run(
        [*COMMANDS[kind], f"program.{kind}", *arguments],
        cwd=folder,
        env={**os.environ, "RESFORMER_API_KEY": key},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


@pytest.mark.parametrize("kind", COMMANDS)
def test_one_film(programs: dict[str, str], folder: Path, kind: str) -> None:
    done = run(programs[f"one.{kind}"], kind, folder)
    assert done.returncode == 0, done.stderr
    assert re.search("COVID|Lung_Opacity|Normal|Viral Pneumonia", done.stdout)
    (folder / "film.png").write_bytes(b"words")
    refused = run(programs[f"one.{kind}"], kind, folder)
    assert refused.returncode != 0
    assert "unsupported_format" in refused.stdout + refused.stderr


@pytest.mark.parametrize("kind", COMMANDS)
def test_a_batch(programs: dict[str, str], folder: Path, kind: str) -> None:
    done = run(programs[f"batch.{kind}"], kind, folder)
    assert done.returncode == 0, done.stderr
    for word in ("first.png", "second.dcm", "unsupported_format"):
        assert word in done.stdout
    keyless = run(programs[f"batch.{kind}"], kind, folder, key="wrong")
    assert keyless.returncode != 0
    assert "unauthorized" in keyless.stdout + keyless.stderr


@pytest.mark.parametrize("server", ["4/second"], indirect=True)
@pytest.mark.parametrize("kind", COMMANDS)
def test_a_folder_through_a_server_that_limits_its_clients(
    programs: dict[str, str], folder: Path, kind: str
) -> None:
    done = run(programs[f"folder.{kind}"], kind, folder, "films", "results")
    assert done.returncode == 0, done.stderr
    if kind == "py":
        rows = list(csv.DictReader((folder / "results").read_text("utf-8").splitlines()))
        answered = {row["file"]: bool(row["class"]) for row in rows}
        assert all(row["error"] for row in rows if not row["class"])
    elif kind == "mjs":
        lines = map(json.loads, (folder / "results").read_text("utf-8").splitlines())
        answered = {line["film"]: line["success"] for line in lines}
    else:
        pairs = (line.split("\t") for line in (folder / "results.tsv").read_text().splitlines())
        answered = {Path(name).name: json.loads(text)["success"] for name, text in pairs}
    assert answered == {path.name: path.stem != "words" for path in (folder / "films").iterdir()}


def test_the_documents_quote_the_programs(programs: dict[str, str], server: str) -> None:
    for name, program in programs.items():
        kind = {"py": "python", "mjs": "js", "sh": "sh"}[name.rpartition(".")[2]]
        quoted = program.replace(server, "http://localhost:5000")
        assert f"```{kind}\n{quoted}\n```" in DOCUMENT, name
    assert len(programs) == 9
