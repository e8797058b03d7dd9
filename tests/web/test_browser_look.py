"""The page in a real browser: what it shows, on a phone, in both themes, without motion."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.web.browsing import answer_for, choose, image


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
    below = page.locator("#result").bounding_box()
    above = page.locator("#viewer").bounding_box()
    assert below
    assert above
    assert below["y"] >= above["y"] + above["height"]


def test_two_columns_on_a_desktop(page: Page) -> None:
    left, right = (page.locator(name).bounding_box() for name in ("#viewer", "#result"))
    assert left
    assert right
    assert left["x"] + left["width"] < right["x"]
    assert left["y"] == right["y"]


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
