"""A real Chromium for the browser tests and for the screenshot."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from playwright.sync_api import Browser, Error, Page, sync_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_OPTIONS = [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-sync",
    "--no-first-run",
]


def find_chromium() -> str | None:
    """The browser named by `RESFORMER_CHROMIUM` or installed; None leaves it to Playwright."""
    named = os.environ.get("RESFORMER_CHROMIUM")
    return named or next(filter(None, map(shutil.which, _NAMES)), None)


@contextmanager
def open_chromium() -> Iterator[Browser]:
    """Run the browser until the block ends; playwright's `Error` where there is none."""
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    options = [*_OPTIONS, "--no-sandbox"] if is_root else _OPTIONS
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=options)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def chromium_or_skip() -> Iterator[Browser]:
    """Run the browser for tests: without one they are skipped, except where `CI` is true."""
    with ExitStack() as stack:
        try:
            browser = stack.enter_context(open_chromium())
        except Error as error:
            if os.environ.get("CI") == "true":
                raise
            pytest.skip(f"no Chromium to test with: {error.message.splitlines()[0]}")
        yield browser


@contextmanager
def open_page(browser: Browser, url: str) -> Iterator[Page]:
    """Open a page until the block ends."""
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.goto(url)
    yield page
    page.close()
