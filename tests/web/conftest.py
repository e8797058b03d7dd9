"""Fixtures of the web tests."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from tests.phantom import draw_chest_phantom
from tests.web.browser import chromium_or_skip
from tests.web.connecting import LONG
from tests.web.posting import PATIENCE, post_file
from tests.web.serving import RunningApp, run_app
from web import WebConfig, channel, create_app


def encode(size: int = 96, kind: str = "PNG") -> bytes:
    """The file of a drawn film."""
    buffer = io.BytesIO()
    Image.fromarray(draw_chest_phantom(size)).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def phantom_png() -> bytes:
    """A drawn film of 700 x 700, as a file."""
    return encode(700)


@pytest.fixture
def app(tiny_checkpoint: Path) -> Flask:
    """The application with small limits: 1 MiB and a million pixels."""
    return create_app(WebConfig(tiny_checkpoint, "cpu", max_bytes=2**20, max_pixels=10**6))


@pytest.fixture
def giving_config(tiny_checkpoint: Path, tmp_path: Path) -> WebConfig:
    """Small limits, and feedback kept in a folder of the test."""
    return WebConfig(
        *(tiny_checkpoint, "cpu"),
        max_bytes=2**20,
        max_pixels=10**6,
        keep_feedback=True,
        uploads_path=tmp_path / "uploads",
        feedback_max_bytes=2**20,
    )


@pytest.fixture
def giver(giving_config: WebConfig) -> FlaskClient:
    """A client of an application that keeps feedback."""
    return create_app(giving_config).test_client()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A client that needs no socket."""
    return app.test_client()


@pytest.fixture(scope="session")
def running_app(
    tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningApp]:
    """`python app.py`, running for all tests that need the real thing."""
    log = tmp_path_factory.mktemp("app") / "log.txt"
    with run_app(tiny_checkpoint, log) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=1000 * PATIENCE)
    with chromium_or_skip() as opened:
        yield opened


@pytest.fixture
def page(browser: Browser, running_app: RunningApp) -> Iterator[Page]:
    """The page, opened; it must never complain nor ask any other host."""
    complaints: list[str] = []
    opened = browser.new_page(viewport={"width": 1200, "height": 800})
    opened.set_default_timeout(1000 * PATIENCE)
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("request", lambda request: complaints.append(request.url))
    opened.goto(running_app.url)
    yield opened
    opened.close()
    own = ("data:", "blob:", running_app.url, "Failed to load resource")
    assert [text for text in complaints if not text.startswith(own)] == []


@pytest.fixture(scope="session")
def small_client(tiny_checkpoint: Path) -> FlaskClient:
    """A client of an application that lives for all tests, with limits that are soon reached."""
    config = WebConfig(tiny_checkpoint, "cpu", max_bytes=2**20, max_pixels=10**6, max_files=3)
    return create_app(config).test_client()


@pytest.fixture
def small_app_works(small_client: FlaskClient) -> Iterator[None]:
    """After everything that a test sends, a good image is answered as ever."""
    before = post_file(small_client, encode()).get_json()
    yield
    assert before["success"] is True
    assert post_file(small_client, encode()).get_json() == before


@pytest.fixture
def linger(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a refused client still sends is read for longer than any test takes."""
    monkeypatch.setattr(channel, "_LINGER_SECONDS", LONG)
