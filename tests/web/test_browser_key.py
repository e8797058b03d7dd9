"""The page behind a key and behind a proxy's path, in a real browser."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.web.browser import choose, expect_result, image, open_page
from tests.web.conftest import SMALL
from tests.web.serving import serve_in_thread
from web import create_app
from web.service import ModelService

KEY = "correct-horse-battery"


@pytest.fixture(scope="module")
def guarded(loaded: ModelService) -> Iterator[str]:
    """The address of a server that asks for a key and lies under a path."""
    config = dataclasses.replace(SMALL, port=0, api_key=KEY, root_path="/films")
    with serve_in_thread(create_app(config, loaded), config) as address:
        yield f"{address}/films/"


@pytest.fixture
def page(browser: Browser, guarded: str) -> Iterator[Page]:
    with open_page(browser, guarded) as opened:
        yield opened


def test_the_page_asks_for_the_key_and_remembers_it_until_it_is_closed(page: Page) -> None:
    dialog = page.get_by_role("dialog", name="Key of this server")
    choose(page, image())
    expect(dialog).to_contain_text("This server asks for a key.")
    expect(page.get_by_label("Key", exact=True)).to_be_focused()
    page.keyboard.type("wrong")
    page.keyboard.press("Enter")
    expect(dialog).to_contain_text("The server does not accept this key.")
    page.keyboard.type(KEY)
    page.keyboard.press("Enter")
    expect_result(page)
    expect(dialog).to_have_count(0)
    choose(page, image())
    expect_result(page)
    kept = page.evaluate("JSON.stringify([localStorage, sessionStorage, document.cookie])")
    assert KEY not in kept
    page.reload()
    choose(page, image())
    expect(dialog).to_be_visible()


def test_who_has_no_key_is_told_so_and_can_try_again(page: Page) -> None:
    choose(page, image())
    expect(page.get_by_label("Key", exact=True)).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#error-text")).to_contain_text("none was given")
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("dialog", name="Key of this server")).to_be_visible()
