"""The page in a real browser: what it shows, on a phone, in both themes, without motion."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.web.browsing import answer_for, boxes, choose, image


def test_extremes_are_shown_as_bounds_and_names_as_text(page: Page) -> None:
    shares = {"<b>_Odd_</b>": 0.9991, "Normal": 0.0009}
    page.route("**/predict", lambda route: answer_for(route, shares))
    choose(page, image())
    expect(page.locator("#verdict-name")).to_have_text("<b> Odd </b>")
    assert page.locator(".bar-share").all_inner_texts() == [">99%", "<1%"]
    assert "100%" not in page.locator("#result").inner_text()


def test_an_undecided_answer_says_so(page: Page) -> None:
    shares = {"A": 0.41, "B": 0.39, "C": 0.20}
    page.route("**/predict", lambda route: answer_for(route, shares))
    choose(page, image())
    expect(page.locator("#verdict-text")).to_contain_text("Uncertain: no class stands out.")
    expect(page.get_by_role("status")).to_contain_text("Uncertain")


@pytest.mark.parametrize("width", [320, 360])
def test_a_phone_needs_no_sideways_scrolling(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 740})
    for file in (None, image(), image(data=b"bad")):
        if file:
            choose(page, file)
            expect(page.locator("#result")).not_to_have_attribute("data-state", "busy")
        assert page.evaluate("document.documentElement.scrollWidth") == width
    above, below = boxes(page, "#viewer", "#result")
    assert below["top"] >= above["bottom"]


def test_two_columns_on_a_desktop(page: Page) -> None:
    left, right = boxes(page, "#viewer", "#result")
    assert left["right"] < right["left"]
    assert left["top"] == right["top"]


def test_dark_and_light_follow_the_system(page: Page) -> None:
    colour = "getComputedStyle(document.body).backgroundColor"
    page.emulate_media(color_scheme="light")
    light = page.evaluate(colour)
    page.emulate_media(color_scheme="dark")
    assert (light, page.evaluate(colour)) == ("rgb(243, 245, 246)", "rgb(12, 18, 23)")


def test_reduced_motion_stops_the_spinner(page: Page) -> None:
    page.route("**/predict", lambda route: None)
    page.emulate_media(reduced_motion="reduce")
    choose(page, image())
    spinner = page.locator(".spinner")
    expect(spinner).to_be_visible()
    assert spinner.evaluate("e => getComputedStyle(e).animationIterationCount") == "1"
