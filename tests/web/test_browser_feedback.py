"""The form for the right class in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.web.browsing import choose, expect_result, image
from tests.web.conftest import encode
from tests.web.serving import serve_in_thread
from web import WebConfig, create_app


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "uploads"


@pytest.fixture
def giving_page(browser: Browser, tiny_checkpoint: Path, folder: Path) -> Iterator[Page]:
    """The page of a server that keeps images, up to two of them."""
    config = WebConfig(
        *(tiny_checkpoint, "cpu"),
        port=0,
        keep_feedback=True,
        uploads_path=folder,
        feedback_max_bytes=2 * 73728,
    )
    with serve_in_thread(create_app(config), config) as url:
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        page.goto(url)
        yield page
        page.close()


def kept(folder: Path) -> list[str]:
    """The classes of the images that are kept."""
    return sorted(path.parent.name for path in folder.glob("*/*.png"))


def test_a_class_is_confirmed_corrected_and_refused(giving_page: Page, folder: Path) -> None:
    page = giving_page
    expect(page.get_by_text("This server collects images for training.")).to_be_visible()
    form, status = page.locator("#feedback"), page.locator("#feedback-text")
    expect(form).to_be_hidden()
    choose(page, image("Mustermann.png"))
    expect_result(page)
    expect(form).to_be_visible()
    answered = page.locator("#verdict-name").inner_text()
    picker, button = page.get_by_label("The film shows"), form.get_by_role("button")
    assert picker.locator("option:checked").inner_text() == answered
    assert kept(folder) == []
    button.click()
    expect(status).to_contain_text(f"Kept as {answered}.")
    assert kept(folder) == [picker.input_value()]
    picker.select_option("Viral Pneumonia")
    button.press("Enter")
    expect(status).to_contain_text("Kept as Viral Pneumonia.")
    assert kept(folder) == ["Viral Pneumonia"]
    choose(page, image(data=b"no image"))
    expect(page.get_by_role("alert")).to_be_visible()
    expect(form).to_be_hidden()


def test_a_refusal_is_said_and_the_next_image_starts_anew(giving_page: Page, folder: Path) -> None:
    page = giving_page
    status = page.locator("#feedback-text")
    choose(page, image(data=encode(1000)))
    expect_result(page)
    page.locator("#feedback-keep").click()
    expect(status).to_have_text(
        "Not kept. This server has no room for another image. Tell its operator."
    )
    expect(page.locator("#feedback-keep")).to_be_enabled()
    assert kept(folder) == []
    choose(page, image(data=encode(64)))
    expect_result(page)
    expect(status).to_contain_text("Only if you press the button")
    assert kept(folder) == []


def test_the_form_fits_a_phone(giving_page: Page) -> None:
    giving_page.set_viewport_size({"width": 320, "height": 740})
    choose(giving_page, image())
    expect_result(giving_page)
    assert giving_page.evaluate("document.documentElement.scrollWidth") == 320
