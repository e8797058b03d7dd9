"""Looking at films in a real browser: zoom, move, window, turn and compare, by mouse and keys."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from resformer.phantom import draw_chest_phantom
from tests.dicom_files import radiograph, write
from tests.web.browser import boxes, choose, expect_result, image
from tests.web.posting import encode


@pytest.fixture
def film(page: Page) -> Page:
    """The page with a film that is answered."""
    choose(page, image())
    expect_result(page)
    expect(page.locator("#film-image")).to_be_visible()
    return page


def wheel(page: Page, share: float, amount: int) -> None:
    """Turn the wheel over the film, at a share of its width and height."""
    (film,) = boxes(page, "#film")
    page.mouse.move(film["x"] + share * film["width"], film["y"] + share * film["height"])
    page.mouse.wheel(0, amount)


def drag(page: Page, x: int, y: int, button: str = "left") -> None:
    """Drag from the middle of the film."""
    (film,) = boxes(page, "#film")
    start = film["x"] + film["width"] / 2, film["y"] + film["height"] / 2
    page.mouse.move(*start)
    page.mouse.down(button="right" if button == "right" else "left")
    page.mouse.move(start[0] + x, start[1] + y, steps=2)
    page.mouse.up(button="right" if button == "right" else "left")


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (1920, 1080)])
def test_the_film_is_as_high_as_the_window_allows(film: Page, width: int, height: int) -> None:
    film.set_viewport_size({"width": width, "height": height})
    viewer, pane, picture = boxes(film, "#viewer", "#film", "#film-image")
    assert height - 60 < viewer["bottom"] <= height
    assert picture["height"] == pytest.approx(min(pane["height"], pane["width"]), abs=1)
    assert pane["height"] > 0.7 * height


def test_the_wheel_zooms_where_it_points_and_the_map_follows(film: Page) -> None:
    film.get_by_role("button", name="Show why").click()
    expect(film.locator("#overlay")).to_be_visible()
    (before,) = boxes(film, "#film-image")
    wheel(film, 0.5, -300)
    expect(film.locator("#look-zoom")).to_have_text("195%")
    picture, overlay = boxes(film, "#film-image", "#overlay")
    assert picture["width"] == pytest.approx(before["width"] * 1.25**3, rel=0.01)
    assert overlay == picture
    middle = picture["x"] + picture["width"] / 2
    assert middle == pytest.approx(before["x"] + before["width"] / 2, abs=2)


def test_a_zoomed_film_is_moved_by_dragging_and_by_arrows(film: Page) -> None:
    film.keyboard.press("+")
    (before,) = boxes(film, "#film-image")
    drag(film, 40, -30)
    (moved,) = boxes(film, "#film-image")
    assert moved["x"] - before["x"] == pytest.approx(40, abs=2)
    assert moved["y"] - before["y"] == pytest.approx(-30, abs=2)
    film.locator(".panes").press("ArrowLeft")
    (further,) = boxes(film, "#film-image")
    assert further["x"] > moved["x"]
    film.keyboard.press("0")
    expect(film.locator("#look-zoom")).to_have_text("100%")


def test_window_and_level_follow_the_mouse_and_are_shown(film: Page) -> None:
    drag(film, 30, -20, "right")
    expect(film.locator("#look-window")).to_have_text("W 285 L 108")
    film.keyboard.press("d")
    drag(film, -60, 0)
    expect(film.locator("#look-window")).to_have_text("W 225 L 108")
    for key in ("W", "L"):
        film.keyboard.press(key)
    expect(film.locator("#look-window")).to_have_text("W 215 L 113")
    slope = film.locator("#film feFuncR").get_attribute("slope")
    assert float(slope or 0) == pytest.approx(255 / 215)
    assert "look" in film.locator("#film-image").evaluate("e => getComputedStyle(e).filter")
    film.get_by_role("button", name="Reset").click()
    expect(film.locator("#look-window")).to_have_text("W 255 L 128")


def test_a_film_is_inverted_and_turned_by_keys(film: Page) -> None:
    invert = film.get_by_role("button", name="Invert")
    film.keyboard.press("i")
    expect(invert).to_have_attribute("aria-pressed", "true")
    assert float(film.locator("#film feFuncR").get_attribute("slope") or 0) == -1
    film.keyboard.press("r")
    expect(film.locator("#look-turn")).to_have_text("90°")
    film.keyboard.press("R")
    film.keyboard.press("i")
    expect(film.locator("#look-turn")).to_be_empty()
    expect(invert).to_have_attribute("aria-pressed", "false")


def test_two_films_side_by_side_move_in_step(film: Page) -> None:
    film.set_input_files("#file", [image("second.png", encode(200))])
    expect(film.locator("#film .film-name")).to_have_text("second.png")
    film.keyboard.press("c")
    film.keyboard.press("k")
    expect(film.locator("#film .film-name")).to_have_text("film.png")
    expect(film.locator("#other-film .film-name")).to_have_text("second.png")
    wheel(film, 0.5, -200)
    first, second = boxes(film, "#film-image", "#other-film .film-image")
    assert first["width"] == pytest.approx(second["width"], abs=1)
    assert first["y"] == second["y"]
    film.keyboard.press("c")
    expect(film.locator("#other-film")).to_be_hidden()


def test_two_fingers_zoom(film: Page) -> None:
    film.evaluate("""() => {
      const film = document.getElementById("film");
      const { x, y, width, height } = film.getBoundingClientRect();
      const send = (type, pointerId, share) => film.dispatchEvent(new PointerEvent(type, {
        pointerId, bubbles: true, clientX: x + share * width, clientY: y + height / 2 }));
      film.setPointerCapture = () => {};
      send("pointerdown", 1, 0.4);
      send("pointerdown", 2, 0.6);
      send("pointermove", 2, 0.8);
    }""")
    expect(film.locator("#look-zoom")).to_have_text("200%")


def test_the_list_of_keys_opens_closes_and_switches_them_off(film: Page) -> None:
    film.keyboard.press("?")
    dialog = film.get_by_role("dialog", name="Keys")
    expect(dialog).to_be_visible()
    film.keyboard.press("i")  # not while the list is open
    dialog.get_by_label("Use single-key shortcuts").uncheck()
    film.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    film.keyboard.press("i")
    expect(film.get_by_role("button", name="Invert")).to_have_attribute("aria-pressed", "false")


def test_full_screen_leaves_the_film_and_its_tools(film: Page) -> None:
    film.keyboard.press("f")
    film.wait_for_function("() => document.fullscreenElement?.id === 'viewer'")
    expect(film.locator(".intake")).to_be_hidden()
    film.keyboard.press("f")
    film.wait_for_function("() => !document.fullscreenElement")


def test_a_dicom_tells_its_view_and_has_a_scale_and_windows_by_name(page: Page) -> None:
    told: dict[str, Any] = {
        "ViewPosition": "PA",
        "PixelSpacing": [1, 1],
        "WindowCenter": [128, 60],
        "WindowWidth": [256, 40],
        "WindowCenterWidthExplanation": ["NORMAL", "Lung"],
    }
    choose(page, image("film.dcm", write(radiograph(draw_chest_phantom(300), **told))))
    expect_result(page)
    expect(page.locator("#film-told")).to_have_text("CR · PA")
    bar = page.locator("#film .scale-bar")
    expect(bar).to_have_text("10 cm")
    picture, drawn = boxes(page, "#film-image", "#film .scale-bar")
    assert drawn["width"] == pytest.approx(picture["width"] / 3, abs=1)
    page.keyboard.press("+")
    page.keyboard.press("+")
    expect(bar).to_have_text("5 cm")
    picture, drawn = boxes(page, "#film-image", "#film .scale-bar")
    assert drawn["width"] == pytest.approx(picture["width"] / 6, abs=1)
    before = page.locator("#film-image").get_attribute("src") or ""
    with page.expect_response("**/predict") as answer:
        page.get_by_label("Window of the file").select_option("Lung (W 40 L 60)")
    assert answer.value.ok
    expect(page.locator("#film-image")).not_to_have_attribute("src", before)
    expect(page.get_by_label("Window of the file")).to_have_value("1")
    expect(page.locator("#look-window")).to_have_text("W 40 L 60")
    with page.expect_response("**/predict") as answer:  # for the file's values, not the picture's
        drag(page, 51, -51, "right")
    assert answer.value.ok
    expect(page.locator("#look-window")).to_have_text("W 48 L 52")
    expect(page.locator("#film-image")).not_to_have_attribute("data-windowed", "")
    page.keyboard.press("0")
    expect(page.locator("#look-window")).to_have_text("W 40 L 60")
    choose(page, image())
    expect_result(page)
    for gone in ("#film-facts", "#film .scale-bar", "#preset"):
        expect(page.locator(gone)).to_be_hidden()
