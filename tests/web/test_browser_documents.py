"""The pages to read, in a real browser: the model and the API."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.dicom_files import radiograph, write
from tests.phantom import draw_chest_phantom
from tests.web.browsing import choose, expect_result, image

PAGES = [
    ("The model", "What answers here, and how far to trust it"),
    ("API", "The API"),
    ("Classify", "What does the model make of this chest X-ray?"),
]


def test_the_pages_lead_to_each_other(page: Page) -> None:
    for link, heading in PAGES:
        page.get_by_role("navigation").get_by_role("link", name=link).click()
        expect(page.get_by_role("heading", level=1)).to_have_text(heading)
        current = page.locator("nav [aria-current=page]")
        assert current.all_inner_texts() == [link]
    page.get_by_role("link", name="How good it is").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(PAGES[0][1])


@pytest.mark.parametrize("link", ["The model", "API"])
@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_needs_no_sideways_scrolling(page: Page, link: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 740})
    page.get_by_role("navigation").get_by_role("link", name=link).click()
    expect(page.locator("h2").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_a_refusal_in_the_api_leads_to_its_codes(page: Page) -> None:
    page.get_by_role("navigation").get_by_role("link", name="API").click()
    page.locator("#predict").get_by_role("link", name="422").click()
    expect(page.locator("#status-422")).to_be_in_viewport()
    expect(page.locator("#status-422")).to_contain_text("not_a_chest_xray")


def test_a_dicom_is_shown_and_classified(page: Page) -> None:
    choose(page, image("film.dcm", write(radiograph(draw_chest_phantom(200)))))
    expect_result(page)
    preview = page.get_by_role("img", name="Preview of your image")
    expect(preview).to_be_visible()
    assert preview.evaluate("e => [e.naturalWidth, e.naturalHeight]") == [200, 200]
    expect(page.locator("#film-note")).to_be_hidden()
