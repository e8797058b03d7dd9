"""Fixtures of the web tests."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from playwright.sync_api import Browser, Page, expect

from tests.web.browser import chromium_or_skip
from tests.web.posting import PATIENCE, encode, post_file
from tests.web.serving import RunningApp, run_app
from web import WebConfig, create_app
from web.monitoring import logging_config
from web.service import ModelService

# A mebibyte and a million pixels.
SMALL = WebConfig(device="cpu", max_bytes=2**20, max_pixels=10**6)


@pytest.fixture(scope="session")
def phantom_png() -> bytes:
    """A drawn film of 700 x 700, as a file."""
    return encode(700)


@pytest.fixture(scope="session")
def loaded(tiny_checkpoint: Path) -> ModelService:
    """The tiny model, loaded once for all applications."""
    service = ModelService(tiny_checkpoint, "cpu")
    service.load()
    return service


@pytest.fixture
def restored_logging() -> Iterator[None]:
    """Put loggers back as they were, where a test lets the application set them up.

    What it sets up would last, and write to the standard error of a test that is over.
    """
    loggers = [logging.getLogger(name) for name in ("", *logging_config("text")["loggers"])]
    before = [(log.level, log.propagate, log.handlers[:], log.filters[:]) for log in loggers]
    yield
    for log, (level, propagate, handlers, filters) in zip(loggers, before, strict=True):
        log.setLevel(level)
        log.propagate = propagate
        log.handlers[:] = handlers
        log.filters[:] = filters


@pytest.fixture
def client_with(loaded: ModelService) -> Callable[..., FlaskClient]:
    """Make clients of an application of their own, with small limits and some settings."""

    def make(**settings: Any) -> FlaskClient:
        return create_app(dataclasses.replace(SMALL, **settings), loaded).test_client()

    return make


@pytest.fixture
def app(loaded: ModelService) -> Flask:
    """The application with small limits."""
    return create_app(SMALL, loaded)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A client that needs no socket."""
    return app.test_client()


@pytest.fixture
def unloaded_client() -> FlaskClient:
    """A client of an application whose model is still loading."""
    return create_app(SMALL, ModelService(Path("none.pth"))).test_client()


@pytest.fixture(scope="session")
def running_app(
    tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningApp]:
    """``python app.py``, running for all tests that need the real thing."""
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
def small_client(loaded: ModelService) -> FlaskClient:
    """A client of an application that lives for all tests, with limits that are soon reached."""
    return create_app(dataclasses.replace(SMALL, max_files=3), loaded).test_client()


@pytest.fixture
def small_app_works(small_client: FlaskClient) -> Iterator[None]:
    """After everything that a test sends, a good image is answered as ever."""
    before = post_file(small_client, encode()).get_json()
    yield
    assert before["success"] is True
    assert post_file(small_client, encode()).get_json() == before
