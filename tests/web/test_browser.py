"""The pages in a real browser: every way in, every outcome, by mouse and by keyboard."""

from __future__ import annotations

import base64
import re
from contextlib import suppress
from pathlib import Path

import pytest
from playwright.sync_api import Error, Page, Route, expect

from tests.web import browser
from tests.web.posting import encode

SEND_FILE = """([kind, name, type, content]) => {
  const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], name, { type }));
  const event = kind === "paste"
    ? new ClipboardEvent("paste", { clipboardData: data, bubbles: true })
    : new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
  document.body.dispatchEvent(event);
}"""


def test_a_chosen_image_is_previewed_and_classified(page: Page) -> None:
    expect(page.get_by_text("No image yet")).to_be_visible()
    browser.choose(page, browser.image())
    browser.expect_result(page)
    names = page.locator(".bar-name").all_inner_texts()
    shares = page.locator(".bar-share").all_inner_texts()
    assert sorted(names) == ["COVID", "Lung opacity", "Normal", "Viral pneumonia"]
    assert all(re.fullmatch(r"\d{1,2}%|<1%|>99%", share) for share in shares)
    expect(page.locator("#verdict-name")).to_have_text(names[0])
    expect(page.locator("#verdict-share")).to_have_text(shares[0])
    expect(page.get_by_role("status")).to_contain_text(f"{names[0]}, {shares[0]}")
    expect(page.get_by_text("Not a diagnosis.", exact=True)).to_be_visible()
    preview = page.get_by_role("img", name="Preview of your image")
    expect(preview).to_be_visible()
    assert preview.evaluate("e => [e.naturalWidth, e.naturalHeight]") == [300, 300]
    widths = page.locator(".bar-fill").evaluate_all("all => all.map((e) => e.style.width)")
    assert [float(width[:-1]) for width in widths] == sorted(
        (float(width[:-1]) for width in widths), reverse=True
    )


@pytest.mark.parametrize("kind", ["paste", "drop"])
def test_an_image_can_be_pasted_and_dropped(page: Page, kind: str) -> None:
    content = base64.b64encode(encode()).decode()
    page.evaluate(SEND_FILE, [kind, "film.png", "image/png", content])
    browser.expect_result(page)


def test_the_name_of_the_file_is_not_sent(page: Page) -> None:
    page.evaluate("""() => {
      const send = window.fetch;
      window.fetch = (address, options) => {
        const parts = [...options.body];
        window.sent = parts.map(([field, file]) => [field, file.name ?? file, file.size]);
        return send(address, options);
      };
    }""")
    browser.choose(page, browser.image("Mustermann_Erika.png"))
    browser.expect_result(page)
    assert page.evaluate("window.sent.at(-1)") == ["file", "image", len(encode(300))]


def test_a_file_that_the_browser_cannot_show_gets_the_preview_of_the_server(page: Page) -> None:
    browser.choose(page, browser.image("film.tif", encode(kind="TIFF")))
    browser.expect_result(page)
    expect(page.get_by_role("img", name="Preview of your image")).to_be_visible()
    expect(page.locator("#film .film-note")).to_be_hidden()


def test_keyboard_alone_is_enough(page: Page) -> None:
    # Playwright takes over the chooser with the first listener, in its own time: not in mid-press.
    page.on("filechooser", lambda _: None)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    chooser = page.get_by_label("Choose chest X-rays")
    expect(chooser).to_be_focused()
    outline = page.locator(".dropzone").evaluate("e => getComputedStyle(e).outlineStyle")
    assert outline == "solid"
    with page.expect_file_chooser() as opened:
        page.keyboard.press("Enter")
    opened.value.set_files([browser.image()])
    browser.expect_result(page)


def test_the_links_to_the_other_pages_come_first_in_the_order_of_the_keyboard(page: Page) -> None:
    page.keyboard.press("Tab")
    for name in ("ResFormer", "Classify", "The model", "API"):
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name=name, exact=True)).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_label("Choose chest X-rays")).to_be_focused()


def test_an_unusable_file_is_a_clear_error_and_the_next_one_works(page: Page) -> None:
    browser.choose(page, browser.image(data=b"no image at all"))
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("not an image of a supported format")
    expect(alert.get_by_role("button")).to_be_hidden()
    expect(page.locator(".bars")).to_be_hidden()
    browser.choose(page, browser.image())
    browser.expect_result(page)
    expect(alert).to_be_hidden()


def test_a_file_that_is_too_large_is_not_even_sent(page: Page) -> None:
    asked: list[str] = []
    browser.choose(page, browser.image())
    browser.expect_result(page)
    page.on("request", lambda request: asked.append(request.url))
    page.evaluate("""() => {
      const data = new DataTransfer();
      data.items.add(new File([new Uint8Array(36 * 1024 ** 2)], "large film.png"));
      document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true }));
    }""")
    expect(page.get_by_role("alert")).to_contain_text(
        "large film.png is too large: it has 36 MB, and up to 32 MB are possible."
    )
    expect(page.locator("#verdict-name")).to_be_hidden()  # the answer for the film before
    expect(page.get_by_role("option").last).to_contain_text("large film.png")
    expect(page.get_by_role("option").last).to_contain_text("Failed")
    assert [url for url in asked if "/predict" in url] == []


def test_an_unreachable_server_is_a_clear_error_and_can_be_tried_again(page: Page) -> None:
    page.route("**/predict", lambda route: route.abort())
    browser.choose(page, browser.image())
    expect(page.get_by_role("alert")).to_contain_text("The server cannot be reached.")
    page.unroute("**/predict")
    page.get_by_role("button", name="Try again").press("Enter")
    browser.expect_result(page)
    expect(page.locator("#result")).to_be_focused()


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (502, "<h1>Bad gateway</h1>", "cannot read (502)"),
        (503, '{"success": false, "error": "Not ready.", "code": "x"}', "Not ready."),
    ],
)
def test_answers_of_a_broken_server_are_clear_errors(
    page: Page, status: int, body: str, words: str
) -> None:
    page.route("**/predict", lambda route: route.fulfill(status=status, body=body))
    browser.choose(page, browser.image())
    expect(page.get_by_role("alert")).to_contain_text(words)
    expect(page.get_by_role("button", name="Try again")).to_be_visible()


def test_a_second_image_replaces_the_first_that_is_on_its_way(page: Page) -> None:
    waiting: list[Route] = []

    def keep_the_first(route: Route) -> None:
        if waiting:
            browser.answer_for(route, {"Second": 0.9, "First": 0.1})
        else:
            waiting.append(route)

    page.route("**/predict", keep_the_first)
    browser.choose(page, browser.image())
    expect(page.locator("#result")).to_have_attribute("aria-busy", "true")
    expect(page.get_by_text("Looking…")).to_be_visible()
    browser.choose(page, browser.image())
    browser.expect_result(page)
    with suppress(Error):  # the browser may have dropped the first request already
        browser.answer_for(waiting[0], {"First": 0.9, "Second": 0.1})
    page.wait_for_timeout(200)
    expect(page.locator("#verdict-name")).to_have_text("Second")


def test_extremes_are_bounds_names_are_text_and_only_the_model_says_what_is_uncertain(
    page: Page,
) -> None:
    answers = [{"<b>_Odd_</b>": 0.9991, "Normal": 0.0009}, {"A": 0.61, "B": 0.29, "C": 0.10}]
    page.route("**/predict", lambda route: browser.answer_for(route, answers.pop(0)))
    browser.choose(page, browser.image())
    expect(page.locator("#verdict-name")).to_have_text("<b>_Odd_</b>")
    assert page.locator(".bar-share").all_inner_texts() == [">99%", "<1%"]
    assert "100%" not in page.locator("#result").inner_text()
    browser.choose(page, browser.image())
    expect(page.locator("#verdict-name")).to_have_text("A")
    assert "ncertain" not in page.locator("#result").inner_text()


def test_two_columns_on_a_desktop_one_on_a_phone_and_the_theme_of_the_system(page: Page) -> None:
    left, right = browser.boxes(page, "#viewer", "#result")
    assert left["right"] < right["left"]
    assert left["top"] == right["top"]
    page.set_viewport_size({"width": 390, "height": 740})
    above, below = browser.boxes(page, "#viewer", "#result")
    assert below["top"] >= above["bottom"]
    colour = "getComputedStyle(document.body).backgroundColor"
    page.emulate_media(color_scheme="light")
    light = page.evaluate(colour)
    page.emulate_media(color_scheme="dark")
    assert (light, page.evaluate(colour)) == ("rgb(243, 245, 246)", "rgb(12, 18, 23)")


def test_reduced_motion_stops_the_spinner(page: Page) -> None:
    page.route("**/predict", lambda route: None)
    page.emulate_media(reduced_motion="reduce")
    browser.choose(page, browser.image())
    spinner = page.locator(".spinner")
    expect(spinner).to_be_visible()
    assert spinner.evaluate("e => getComputedStyle(e).animationIterationCount") == "1"


PAGES = [
    ("The model", "The model and its limits"),
    ("API", "The API"),
    ("Classify", "What does the model make of this chest X-ray?"),
]


def test_the_pages_lead_to_each_other(page: Page) -> None:
    for link, heading in PAGES:
        page.get_by_role("navigation", name="Pages").get_by_role("link", name=link).click()
        expect(page.get_by_role("heading", level=1)).to_have_text(heading)
        current = page.locator("nav [aria-current=page]")
        assert current.all_inner_texts() == [link]
    page.get_by_role("link", name="How good it is").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(PAGES[0][1])


def test_a_refusal_in_the_api_leads_to_its_codes(page: Page) -> None:
    page.get_by_role("navigation", name="Pages").get_by_role("link", name="API").click()
    page.locator("#predict").get_by_role("link", name="422").click()
    expect(page.locator("#status-422")).to_be_in_viewport()
    expect(page.locator("#status-422")).to_contain_text("not_a_chest_xray")


@pytest.mark.parametrize(("ci", "outcome"), [("true", Error), ("", pytest.skip.Exception)])
def test_missing_browser(
    ci: str, outcome: type[BaseException], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RESFORMER_CHROMIUM", str(tmp_path / "none"))
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome), browser.chromium_or_skip():
        pass
