"""Every state of the page by axe-core, in all themes and widths, and in colours of the system."""

from __future__ import annotations

import csv
from typing import Any, Literal, TypedDict

from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Page, Route, expect

from resformer.phantom import draw_chest_phantom
from tests.dicom_files import radiograph, write
from tests.web.browser import answer_for, choose, expect_result, fits_phone, image
from tests.web.posting import encode


class Look(TypedDict):
    color_scheme: Literal["light", "dark"]
    forced_colors: Literal["active", "none"]


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


def answered(page: Page) -> None:
    choose(page, image())
    expect_result(page)


def explained(page: Page) -> None:
    answered(page)
    page.get_by_role("button", name="Show why").click()
    expect(page.locator("#overlay")).to_be_visible()


def busy(page: Page) -> None:
    page.route("**/predict", lambda route: None)
    choose(page, image())
    expect(page.get_by_text("Looking…")).to_be_visible()


def uncertain(page: Page) -> None:
    prediction = {"predicted_class": "COVID", "confidence": 0.4, "abstained": True}
    prediction |= {"reason": "undecided", "all_probabilities": {"COVID": 0.4, "Normal": 0.6}}
    warnings = [{"code": "uncertain", "message": "The classes are close."}]
    answer = {"success": True, "prediction": prediction, "warnings": warnings}
    page.route("**/predict", lambda route: route.fulfill(json=answer))
    choose(page, image())
    expect(page.locator("#verdict-name")).to_have_text("Uncertain")


def dicom(page: Page) -> None:
    told: dict[str, Any] = {"ViewPosition": "PA", "PixelSpacing": [1, 1]}
    told |= {"WindowCenter": [128, 60], "WindowWidth": [256, 40]}
    choose(page, image("film.dcm", write(radiograph(draw_chest_phantom(64), **told))))
    expect_result(page)
    expect(page.get_by_label("Window of the file")).to_be_visible()


def many(page: Page) -> None:
    films = [*(image(f"{n}.png", encode(64)) for n in range(2)), image("bad.png", b"no image")]
    page.set_input_files("#file", films)
    expect(page.locator("#strip-count")).to_have_text("3 of 3 done")
    page.keyboard.press("c")


def kept(page: Page) -> None:
    many(page)
    page.reload()
    expect(page.get_by_text("Choose this film again to see it.")).to_be_visible()


def failed(page: Page) -> None:
    choose(page, image(data=b"no image"))
    expect(page.get_by_role("alert")).to_be_visible()


def refused(page: Page) -> None:
    cure = {"orientation": None, "correction": None}
    page.route("**/predict", lambda route: route.fulfill(status=422, json=REFUSAL | cure))
    choose(page, image())
    expect(page.get_by_role("button", name="Choose another")).to_be_visible()


def curable(page: Page) -> None:
    page.route("**/predict", lambda route: route.fulfill(status=422, json=REFUSAL))
    choose(page, image())
    expect(page.get_by_role("button", name="Invert it and read it")).to_be_visible()


def keys(page: Page) -> None:
    answered(page)
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()


def guarded(page: Page) -> None:
    asked = {"success": False, "error": "A key, please.", "code": "unauthorized"}
    page.route("**/predict", lambda route: route.fulfill(status=401, json=asked))
    choose(page, image())
    expect(page.get_by_role("dialog", name="Key of this server")).to_be_visible()


STATES = [None, answered, explained, busy, uncertain, dicom, many, kept, failed, refused, curable]
STATES += [keys, guarded]
WIDTHS = (390, 1280, 1920)
LOOKS: list[Look] = [
    {"color_scheme": "light", "forced_colors": "none"},
    {"color_scheme": "dark", "forced_colors": "none"},
    {"color_scheme": "light", "forced_colors": "active"},
]


def find_violations(page: Page, width: int, look: Look, *rules: str) -> list[Any]:
    """What axe-core finds at a width in a theme, by all rules or by some."""
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(**look, reduced_motion="reduce")
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE_SCRIPT)
    options = {"resultTypes": ["violations"], **({"runOnly": rules} if rules else {})}
    found: list[Any] = page.evaluate(
        """(options) => axe.run(options).then(({ violations }) =>
          violations.map(({ id, nodes }) => [id, nodes.map(({ target }) => target)]))""",
        options,
    )
    return [(width, look, *rule) for rule in found]


def test_axe_finds_nothing_in_any_state_theme_and_width_and_each_fits_a_phone(page: Page) -> None:
    home = page.url
    for reach in STATES:
        page.set_viewport_size({"width": 1280, "height": 900})
        if reach:
            reach(page)
        found = []
        for width in WIDTHS:
            found += find_violations(page, width, LOOKS[0])
            for look in LOOKS[1:]:  # which change colours alone
                found += find_violations(page, width, look, "color-contrast")
        assert found == [], reach
        assert fits_phone(page), reach
        page.unroute_all()
        page.evaluate("addEventListener('pagehide', () => sessionStorage.clear())")
        page.goto(home)
    for path in ("about", "docs", "licence", "none"):
        page.goto(f"{home}{path}")
        for width, look in zip(WIDTHS, LOOKS, strict=True):
            assert find_violations(page, width, look) == [], path
        assert fits_phone(page), path


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


def test_a_reload_takes_the_film_and_what_needs_it_from_a_refusal(page: Page) -> None:
    curable(page)
    page.reload()
    expect(page.locator("#refusal")).to_contain_text(str(REFUSAL["reason"]))
    for name in ("Invert it and read it", "Analyse it anyway"):
        expect(page.get_by_role("button", name=name)).to_be_hidden()
    expect(page.get_by_role("button", name="Choose another")).to_be_visible()


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


def test_on_a_phone_the_verdict_comes_into_view_below_the_film(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.locator("#choose-folder").focus()
    answered(page)
    expect(page.locator("#verdict-name")).to_be_in_viewport(ratio=1)
    expect(page.locator("#film")).to_be_in_viewport()
    expect(page.locator("#choose-folder")).to_be_focused()


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
