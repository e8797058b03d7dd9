"""What the gate refuses, in a real browser: said kindly, and analysed where one insists."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.dicom_files import radiograph, write
from tests.phantom import draw_chest_phantom
from tests.web.browser import open_page
from tests.web.browsing import choose, expect_result, image
from tests.web.gating import write_gated_checkpoint
from tests.web.serving import serve_checkpoint


@pytest.fixture(scope="module")
def url(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server whose gate refuses every picture."""
    path = tmp_path_factory.mktemp("refusing") / "model.pth"
    write_gated_checkpoint(tiny_checkpoint, path, accepts=False)
    with serve_checkpoint(path) as address:
        yield address


@pytest.fixture
def refusing_page(browser: Browser, url: str) -> Iterator[Page]:
    with open_page(browser, url) as page:
        yield page


def test_a_refusal_is_told_and_the_person_may_go_on(refusing_page: Page) -> None:
    page = refusing_page
    choose(page, image())
    panel = page.locator("#refusal")
    expect(panel).to_be_visible()
    expect(panel).to_contain_text("This image was not analysed")
    expect(panel).to_contain_text("It does not look like an upright frontal chest X-ray.")
    expect(page.get_by_role("alert")).to_be_hidden()
    expect(page.locator("#bars")).to_be_hidden()
    expect(page.get_by_role("status").last).to_contain_text("You can have it analysed anyway.")
    page.get_by_role("button", name="Analyse it anyway").press("Enter")
    expect_result(page)
    expect(page.locator("#result")).to_be_focused()
    warning = "It does not look like an upright frontal chest X-ray. The estimate may mean nothing."
    expect(page.locator("#warning")).to_have_text(warning)
    expect(page.get_by_role("status").last).to_contain_text(warning)
    page.get_by_role("button", name="Show why").click()
    expect(page.locator("#overlay")).to_be_visible()


def test_insistence_is_for_one_image_only(refusing_page: Page) -> None:
    page = refusing_page
    choose(page, image())
    page.get_by_role("button", name="Analyse it anyway").click()
    expect_result(page)
    choose(page, image())
    expect(page.locator("#refusal")).to_be_visible()
    expect(page.locator("#warning")).to_be_hidden()


def test_a_refused_dicom_shows_its_picture(refusing_page: Page) -> None:
    page = refusing_page
    choose(page, image("film.dcm", write(radiograph(draw_chest_phantom(200)))))
    expect(page.locator("#refusal")).to_be_visible()
    preview = page.get_by_role("img", name="Preview of your image")
    expect(preview).to_be_visible()
    assert (preview.get_attribute("src") or "").startswith("data:image/png;base64,")


def test_a_refusal_fits_a_phone(refusing_page: Page) -> None:
    refusing_page.set_viewport_size({"width": 320, "height": 740})
    choose(refusing_page, image())
    expect(refusing_page.locator("#refusal")).to_be_visible()
    assert refusing_page.evaluate("document.documentElement.scrollWidth") == 320
