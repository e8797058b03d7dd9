"""What the model abstains from, in a real browser: no class stands out, and why is said."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.abstaining import write_abstaining_checkpoint
from tests.web.browser import open_page
from tests.web.browsing import answer_for, choose, expect_result, image
from tests.web.serving import serve_checkpoint
from tests.web.test_abstention import WARNING
from tests.web.test_contrast import read_themes


@pytest.fixture(scope="module")
def url(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server whose model abstains from every film."""
    path = tmp_path_factory.mktemp("abstaining") / "model.pth"
    write_abstaining_checkpoint(tiny_checkpoint, path)
    with serve_checkpoint(path) as address:
        yield address


@pytest.fixture
def abstaining_page(browser: Browser, url: str) -> Iterator[Page]:
    with open_page(browser, url) as page:
        yield page


def test_the_headline_says_uncertain_and_names_no_class(abstaining_page: Page) -> None:
    page = abstaining_page
    choose(page, image())
    expect_result(page)
    expect(page.locator("#verdict-name")).to_have_text("Uncertain")
    expect(page.locator("#verdict-share")).to_have_text("")
    expect(page.locator("#warning")).to_have_text(WARNING["message"])
    announced = page.get_by_role("status").last
    expect(announced).to_contain_text(WARNING["message"])
    expect(announced).to_contain_text("The model names no class. Not a diagnosis.")
    expect(announced).not_to_contain_text("estimate")


def test_the_shares_are_there_and_none_stands_out(abstaining_page: Page) -> None:
    page = abstaining_page
    choose(page, image())
    expect_result(page)
    expect(page.locator(".bar-share")).to_have_count(4)
    assert all(text.endswith("%") for text in page.locator(".bar-share").all_inner_texts())
    for part, kind in ((".bar-name", "color"), (".bar-fill", "backgroundColor")):
        looks = page.locator(part).evaluate_all(
            "(all, kind) => all.map((e) => getComputedStyle(e)[kind])", kind
        )
        assert len(set(looks)) == 1, part


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_headline_has_the_colour_of_caution(abstaining_page: Page, theme: str) -> None:
    page = abstaining_page
    page.emulate_media(color_scheme="dark" if theme == "dark" else "light")
    choose(page, image())
    expect_result(page)
    colour = page.locator("#verdict-name").evaluate("e => getComputedStyle(e).color")
    expected = tuple(bytes.fromhex(read_themes()[theme]["caution"][1:]))
    assert colour == f"rgb{expected}"


def test_the_reasons_can_be_asked_for_all_the_same(abstaining_page: Page) -> None:
    choose(abstaining_page, image())
    abstaining_page.get_by_role("button", name="Show why").click()
    expect(abstaining_page.locator("#overlay")).to_be_visible()


def test_the_next_film_has_its_class_again(abstaining_page: Page) -> None:
    page = abstaining_page
    choose(page, image())
    expect(page.locator("#verdict-name")).to_have_text("Uncertain")
    page.route("**/predict", lambda route: answer_for(route, {"First": 0.9, "Second": 0.1}))
    choose(page, image())
    expect(page.locator("#verdict-name")).to_have_text("First")
    expect(page.locator("#verdict-share")).to_have_text("90%")
    expect(page.locator("#warning")).to_be_hidden()


def test_it_fits_a_phone(abstaining_page: Page) -> None:
    abstaining_page.set_viewport_size({"width": 320, "height": 740})
    choose(abstaining_page, image())
    expect_result(abstaining_page)
    assert abstaining_page.evaluate("document.documentElement.scrollWidth") == 320
