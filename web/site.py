"""The page as a folder of files that any web server serves: its films never leave the browser.

It is what the application itself answers, asked once, with addresses relative to the folder, beside
the scripts and a service worker that keeps all of it for use without a connection.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flask import Flask, render_template

from web import create_app
from web.config import PAGES, WebConfig
from web.security import HEADERS
from web.service import ModelService

# Files by the endpoint that answers with them.
_FILES = {
    "pages.index": "index.html",
    "pages.about": "about.html",
    "pages.licence": "licence.html",
    "pages.sample": "sample.png",
    "v1_description.model": "model.json",
    "local_model.facts": "local/model.json",
    "local_model.graph": "local/film.onnx.gz",
}
_WORKER = "sw.js"
# What a meta element cannot say.
_ONLY_IN_HEADERS = "frame-ancestors"


def write_site(model_path: Path, folder: Path) -> list[str]:
    """Write the folder.

    Args:
        model_path: checkpoint with a graph.
        folder: new, empty, or an earlier site, whose files are replaced.

    Returns:
        the files, relative to the folder.

    Raises:
        StartError: if the checkpoint cannot be loaded.
        ValueError: if it has no graph, or the folder holds anything else.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / "local").is_dir():
        raise ValueError(f"{folder} is not empty and no earlier site: choose another folder")
    service = ModelService(model_path, "cpu")
    service.load()
    if service.graph is None:
        raise ValueError(
            f"{model_path} has no graph that fits: run python -m resformer export --overwrite"
        )
    app = create_app(WebConfig(model_path, "cpu"), service)
    static = PAGES / "static"
    contents = {
        f"static/{path.relative_to(static).as_posix()}": path.read_bytes()
        for path in sorted(static.rglob("*"))
        if path.is_file()
    }
    contents |= _ask(app)
    contents[_WORKER] = _render_worker(app, contents)
    for address, content in contents.items():
        (folder / address).parent.mkdir(parents=True, exist_ok=True)
        (folder / address).write_bytes(content)
    return list(contents)


def _ask(app: Flask) -> dict[str, bytes]:
    policy = "; ".join(
        part
        for part in HEADERS["Content-Security-Policy"].split("; ")
        if not part.startswith(_ONLY_IN_HEADERS)
    )
    app.jinja_env.globals |= {
        "is_site": True,
        "url_for": _relative_address,
        "site_policy": policy,
    }
    answers = {}
    for endpoint, address in _FILES.items():
        with app.test_request_context():
            path = app.url_for(endpoint)
        with app.test_request_context(path):
            response = app.make_response(app.dispatch_request())
            response.direct_passthrough = False
            answers[address] = response.get_data()
    return answers


def _relative_address(endpoint: str, filename: str = "", **_: Any) -> str:
    """Return where something lies from a page of the site; empty where only a server has it."""
    return f"static/{filename}" if endpoint == "static" else _FILES.get(endpoint, "")


def _render_worker(app: Flask, contents: Mapping[str, bytes]) -> bytes:
    digest = hashlib.sha256()
    for address, content in contents.items():
        digest.update(address.encode() + b"\0" + content)
    with app.app_context():
        text = render_template(_WORKER, version=digest.hexdigest()[:16], files=["./", *contents])
    return text.encode()
