"""Every state of the page by axe-core, in all themes and widths, and in colours of the system."""

from __future__ import annotations

import csv
from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, Route, expect

from tests.web.browser import answer_for, choose, expect_result, image
from tests.web.posting import encode

REFUSAL = {
    "success": False,
    "code": "not_a_chest_xray",
    "error": "This image was not classified.",
    "reason": "It looks like a chest X-ray that is inverted.",
    "score": 0.1,
    "threshold": 0.5,
    "orientation": "inverted",
    "correction": {"invert": True, "rotate": 0},
}


def empty(page: Page) -> None:
    expect(page.get_by_text("No image yet")).to_be_visible()


def answered(page: Page) -> None:
    choose(page, image())
    expect_result(page)


def explained(page: Page) -> None:
    answered(page)
    page.get_by_role("button", name="Show why").click()
    expect(page.locator("#overlay")).to_be_visible()


def many(page: Page) -> None:
    page.set_input_files("#file", [image(f"{n}.png", encode(64)) for n in range(3)])
    expect(page.locator("#strip-count")).to_have_text("3 of 3 read")
    page.keyboard.press("c")


def failed(page: Page) -> None:
    choose(page, image(data=b"no image"))
    expect(page.get_by_role("alert")).to_be_visible()


def refused(page: Page) -> None:
    page.route("**/predict", lambda route: route.fulfill(status=422, json=REFUSAL))
    choose(page, image())
    expect(page.locator("#refusal")).to_be_visible()


def keys(page: Page) -> None:
    answered(page)
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()


@pytest.mark.parametrize("state", [empty, answered, explained, many, failed, refused, keys])
def test_axe_finds_nothing(page: Page, state: Callable[[Page], None]) -> None:
    state(page)
    for width, theme in ((390, "light"), (1280, "dark"), (1920, "light")):
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(
            color_scheme="dark" if theme == "dark" else "light", reduced_motion="reduce"
        )
        found = Axe().run(page).response["violations"]
        assert [(rule["id"], [node["target"] for node in rule["nodes"]]) for rule in found] == []


def test_bars_and_borders_stay_in_colours_of_the_system(page: Page) -> None:
    page.emulate_media(forced_colors="active")
    answered(page)
    looks = page.locator("[data-first] .bar-fill").evaluate(
        "e => [e, document.body].map((one) => getComputedStyle(one).backgroundColor)"
    )
    assert looks[0] != looks[1]
    for part in ("#result", "#viewer", ".bar"):
        assert page.locator(part).first.evaluate("e => parseFloat(getComputedStyle(e).borderWidth)")


def test_what_can_be_cured_is_one_click_away(page: Page) -> None:
    sent: list[bytes] = []

    def refuse_once(route: Route) -> None:
        sent.append(route.request.post_data_buffer or b"")
        if len(sent) == 1:
            route.fulfill(status=422, json=REFUSAL)
        else:
            answer_for(route, {"Normal": 0.9, "COVID": 0.1})

    page.route("**/predict", refuse_once)
    choose(page, image())
    panel = page.locator("#refusal")
    expect(panel).to_contain_text("It looks like a chest X-ray that is inverted.")
    expect(panel.get_by_role("button", name="Choose another")).to_be_hidden()
    panel.get_by_role("button", name="Invert it and read it").press("Enter")
    expect_result(page)
    assert b'name="invert"\r\n\r\n1' in sent[1]
    assert b'name="rotate"\r\n\r\n0' in sent[1]
    said = "inverted before it was read"
    expect(page.locator("#verdict-text")).to_contain_text(said)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    expect(page.locator("#print-head")).to_contain_text(f"Film: film.png, {said}")
    with page.expect_download() as saved:
        page.get_by_role("button", name="Table of all films").click()
    (row,) = csv.DictReader(saved.value.path().read_text("utf-8-sig").splitlines())
    assert (row["invert"], row["rotate"]) == ("1", "0")


def test_the_track_record_stands_below_a_verdict(page: Page) -> None:
    prediction = {
        "predicted_class": "COVID",
        "confidence": 0.999,
        "abstained": False,
        "reason": None,
        "all_probabilities": {"COVID": 0.999, "Normal": 0.001},
        "track_record": {"called": 120, "right": 96},
    }
    answer = {"success": True, "prediction": prediction, "warnings": []}
    page.route("**/predict", lambda route: route.fulfill(json=answer))
    choose(page, image())
    expect(page.locator("#verdict-share")).to_have_text(">99%")
    expect(page.locator("#record")).to_contain_text(
        "Of 120 test films that the model called COVID without a warning, 96 were labelled so."
    )
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    expect(page.locator("#print-head")).to_contain_text("of 120 test films called so, 96 were")


def test_escape_closes_the_reasons(page: Page) -> None:
    explained(page)
    page.keyboard.press("Escape")
    expect(page.locator("#why")).to_be_hidden()
    expect(page.locator("#show-why")).to_be_focused()


def test_a_phone_is_not_told_to_drop_and_nothing_shrinks_for_a_bad_file(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    expect(page.get_by_text("or drop or paste them")).to_be_hidden()
    page.set_viewport_size({"width": 1280, "height": 800})
    answered(page)
    before = page.locator("#viewer").evaluate("e => e.offsetHeight")
    page.get_by_role("button", name="Clear").click()
    failed(page)
    expect(page.get_by_text("There is no picture of this file.")).to_be_visible()
    assert page.locator("#viewer").evaluate("e => e.offsetHeight") == before


def test_the_page_weighs_less_than_300_kilobytes(page: Page) -> None:
    sizes = page.evaluate(
        "() => performance.getEntries().map((entry) => entry.decodedBodySize ?? 0)"
    )
    assert 20_000 < sum(sizes) < 300_000
