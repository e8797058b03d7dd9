"""A real Chromium for the browser tests and for the screenshot."""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from playwright.sync_api import Browser, Error, FilePayload, Page, Route, expect, sync_playwright

from tests.web.posting import encode

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_OPTIONS = [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-sync",
    "--no-first-run",
]


def find_chromium() -> str | None:
    """The browser named by ``RESFORMER_CHROMIUM`` or installed; None leaves it to Playwright."""
    named = os.environ.get("RESFORMER_CHROMIUM")
    return named or next(filter(None, map(shutil.which, _NAMES)), None)


@contextmanager
def open_chromium() -> Iterator[Browser]:
    """Run the browser until the block ends; playwright's ``Error`` where there is none."""
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
    """Run the browser for tests: without one they are skipped, except where ``CI`` is true."""
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


def image(name: str = "film.png", data: bytes | None = None) -> FilePayload:
    """A file as Playwright hands it to a file chooser."""
    content = encode(300) if data is None else data
    return {"name": name, "mimeType": "image/png", "buffer": content}


def choose(page: Page, file: FilePayload) -> None:
    page.set_input_files("#file", [file])


def expect_result(page: Page) -> None:
    expect(page.locator("#result")).to_have_attribute("data-state", "done")
    expect(page.locator("#result")).to_have_attribute("aria-busy", "false")


DRAWN = (
    "This is a drawing, not an X-ray: it shows how the page works, and the estimate for it "
    "means nothing."
)


def try_sample(page: Page) -> None:
    """Have the drawn sample classified; it must be called a drawing and have no track record."""
    page.get_by_role("button", name="Try a drawn sample").click()
    expect_result(page)
    expect(page.locator("#warning")).to_have_text(DRAWN)
    expect(page.locator("#record")).to_be_hidden()


def answer_for(route: Route, shares: dict[str, float]) -> None:
    best = max(shares, key=shares.__getitem__)
    prediction = {
        "predicted_class": best,
        "confidence": shares[best],
        "all_probabilities": shares,
    }
    picture = base64.b64encode(encode()).decode()
    route.fulfill(json={"success": True, "prediction": prediction, "image": picture})


def boxes(page: Page, *selectors: str) -> list[dict[str, float]]:
    """Where parts of the page are, all at one moment: it may still be scrolling."""
    found: list[dict[str, float]] = page.evaluate(
        "all => all.map((one) => document.querySelector(one).getBoundingClientRect().toJSON())",
        list(selectors),
    )
    return found


def fits_phone(page: Page) -> bool:
    """Whether narrow windows need no sideways scrolling."""
    for width in (390, 360, 320):
        page.set_viewport_size({"width": width, "height": 740})
        if page.evaluate("document.documentElement.scrollWidth") != width:
            return False
    return True
