"""The map of evidence in a real browser: asked for, picked, faded and put away."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, Request, Route, expect

from tests.web.browsing import boxes, choose, expect_result, image
from tests.web.conftest import encode


def show_reasons(page: Page) -> None:
    choose(page, image())
    expect_result(page)
    page.get_by_role("button", name="Show why").press("Enter")


def test_the_map_lies_on_the_film_only_after_somebody_asks(page: Page) -> None:
    asked: list[Request] = []
    page.on("request", lambda request: asked.append(request))
    choose(page, image())
    expect_result(page)
    expect(page.locator("#why")).to_be_hidden()
    expect(page.locator("#overlay")).to_be_hidden()
    assert [b"explain" in (r.post_data_buffer or b"") for r in asked if r.method == "POST"] == [
        False
    ]
    page.get_by_role("button", name="Show why").press("Enter")
    best = page.locator("#verdict-name").inner_text()
    overlay = page.get_by_role("img", name=f"Map of the evidence for {best}")
    expect(overlay).to_be_visible()
    expect(page.locator("#why-text")).to_contain_text(f"speaks for {best}.")
    expect(page.locator("#why-text")).to_contain_text("not where a disease is")
    expect(page.locator("#lungs")).to_be_hidden()  # this network does not look for any
    film = page.get_by_role("img", name="Preview of your image")
    expect(film).to_be_visible()
    above, below = boxes(page, "#overlay", "#film-image")
    assert above == below
    page.wait_for_function("document.getElementById('overlay').naturalWidth > 0")
    sizes = [part.evaluate("e => [e.naturalWidth, e.naturalHeight]") for part in (overlay, film)]
    assert sizes[0] == sizes[1] == [300, 300]


def test_the_lungs_are_outlined_where_they_lie_on_the_film(page: Page) -> None:
    def find_lungs(route: Route) -> None:
        answer = route.fetch().json()
        if "explanation" in answer:
            answer["explanation"]["lungs"] = [[[0.25, 0.5], [0.5, 0.5], [0.5, 0.75]]]
        route.fulfill(json=answer)

    page.route("**/predict", find_lungs)
    show_reasons(page)
    outline = page.get_by_role("img", name="Outline of the lungs that the model found")
    expect(outline).to_be_visible()
    expect(page.locator("#why-text")).to_contain_text("The dashed lines are the lungs")
    lungs, film = boxes(page, "#lungs path", "#film-image")
    side = min(film["width"], film["height"])  # the film is square and fitted into its place
    left, top = (film["x"] + (film["width"] - side) / 2, film["y"] + (film["height"] - side) / 2)
    found = [lungs["x"], lungs["y"], lungs["width"], lungs["height"]]
    expected = [left + side / 4, top + side / 2, side / 4, side / 4]
    assert found == pytest.approx(expected, abs=2)
    page.get_by_role("button", name="Hide", exact=True).click()
    expect(outline).to_be_hidden()


def test_any_class_can_be_picked_and_is_asked_for_once(page: Page) -> None:
    asked: list[Request] = []
    show_reasons(page)
    expect(page.locator("#overlay")).to_be_visible()
    page.on("request", lambda r: asked.append(r) if r.method == "POST" else None)
    picker = page.get_by_label("Evidence for")
    names = picker.locator("option").all_inner_texts()
    assert names == page.locator(".bar-name").all_inner_texts()
    pictures = [page.locator("#overlay").get_attribute("src")]
    for name in (names[1], names[0], names[1]):
        picker.select_option(label=name)
        overlay = page.get_by_role("img", name=f"Map of the evidence for {name}")
        expect(overlay).to_be_visible()
        pictures.append(overlay.get_attribute("src"))
    assert pictures[0] == pictures[2]
    assert pictures[1] == pictures[3] != pictures[0]
    assert len(asked) == 1


def test_the_map_fades_with_the_slider_by_keyboard(page: Page) -> None:
    show_reasons(page)
    overlay, slider = page.locator("#overlay"), page.get_by_label("Opacity of the map")
    expect(overlay).to_have_css("opacity", "0.7")
    slider.press("ArrowLeft")
    expect(overlay).to_have_css("opacity", "0.65")
    expect(page.locator("#why-opacity-value")).to_have_text("65%")
    slider.press("Home")
    expect(overlay).to_have_css("opacity", "0")
    slider.press("End")
    expect(overlay).to_have_css("opacity", "1")


def test_the_focus_goes_to_the_map_and_back(page: Page) -> None:
    show_reasons(page)
    reasons, button = page.locator("#why"), page.locator("#show-why")
    expect(reasons).to_be_focused()
    expect(button).to_have_attribute("aria-expanded", "true")
    expect(page.locator("#overlay")).to_be_visible()
    page.get_by_role("button", name="Hide", exact=True).press("Enter")
    expect(reasons).to_be_hidden()
    expect(page.locator("#overlay")).to_be_hidden()
    expect(button).to_be_focused()
    expect(button).to_have_attribute("aria-expanded", "false")


def test_another_film_puts_the_map_away(page: Page) -> None:
    show_reasons(page)
    expect(page.locator("#overlay")).to_be_visible()
    choose(page, image(data=encode(200)))
    expect_result(page)
    expect(page.locator("#why")).to_be_hidden()
    expect(page.locator("#overlay")).to_be_hidden()
    expect(page.get_by_role("button", name="Show why")).to_be_visible()


def test_a_map_that_cannot_be_had_is_said_and_can_be_asked_for_again(page: Page) -> None:
    def refuse(route: Route) -> None:
        if b"explain" in (route.request.post_data_buffer or b""):
            route.fulfill(status=503, json={"success": False, "error": "Busy.", "code": "busy"})
        else:
            route.continue_()

    page.route("**/predict", refuse)
    show_reasons(page)
    expect(page.locator("#why-text")).to_have_text("Busy.")
    expect(page.locator("#overlay")).to_be_hidden()
    page.unroute("**/predict")
    page.locator("#show-why").click()
    page.locator("#show-why").click()
    expect(page.locator("#overlay")).to_be_visible()


def test_the_reasons_fit_a_phone(page: Page) -> None:
    page.set_viewport_size({"width": 320, "height": 740})
    show_reasons(page)
    expect(page.locator("#overlay")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 320
    box = page.locator("#why").bounding_box()
    assert box
    for part in page.locator("#why :is(select, input, button, output, svg)").all():
        inner = part.bounding_box()
        assert inner
        assert box["x"] <= inner["x"] <= inner["x"] + inner["width"] <= box["x"] + box["width"]
