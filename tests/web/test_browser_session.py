"""Many films in a real browser: the queue, the list, what a reload keeps, what is taken away."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import FilePayload, Page, Route, expect

from resformer.archive.csv_table import MadeBy, ResultsTable
from resformer.phantom import draw_chest_phantom
from tests.data_sets import CLASS_NAMES
from tests.dicom_files import radiograph, write
from tests.web.browser import (
    DRAWN,
    boxes,
    choose,
    expect_result,
    fits_phone,
    image,
    try_sample,
)
from tests.web.posting import encode

SMALL_FILM = encode(64)


def films(count: int, *more: FilePayload) -> list[FilePayload]:
    """Files as a person chooses them together."""
    return [*(image(f"film {number:02}.png", SMALL_FILM) for number in range(count)), *more]


def read_all(page: Page, files: list[FilePayload]) -> None:
    """Choose files and wait until every one has its answer."""
    page.set_input_files("#file", files)
    expect(page.locator("#strip-count")).to_have_text(f"{len(files)} of {len(files)} done")


def table(page: Page, folder: Path) -> list[dict[str, str]]:
    """The session as the page saves it."""
    with page.expect_download() as saved:
        page.get_by_role("button", name="Table of all films").click()
    path = folder / saved.value.suggested_filename
    saved.value.save_as(path)
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline="")))


def test_a_list_of_films_is_read_in_batches_and_walked_by_arrows(page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda r: asked.append(r.url) if r.method == "POST" else None)
    read_all(page, films(20, image("broken.png", b"no image")))
    assert sum(url.endswith("/predict/batch") for url in asked) in (2, 3)
    assert len(asked) <= 5
    rows = page.get_by_role("option")
    expect(rows).to_have_count(21)
    expect(rows.last).to_contain_text("Failed")
    expect(page.get_by_role("status").last).to_contain_text("All films are done.")
    expect(rows.first).to_contain_text("%")
    name = page.locator("#film .film-name")
    listing = page.get_by_role("listbox", name="Films")
    listing.press("ArrowRight")
    expect(rows.nth(1)).to_have_attribute("aria-selected", "true")
    expect(name).to_have_text("film 01.png")
    columns = len({box["left"] for box in boxes(page, *(f"#film-{n}" for n in range(1, 22)))})
    assert columns > 1
    listing.press("ArrowDown")
    expect(name).to_have_text(f"film {1 + columns:02}.png")
    listing.press("ArrowUp")
    listing.press("ArrowUp")
    expect(name).to_have_text("film 01.png")
    page.get_by_role("button", name="Choose a folder").press("ArrowRight")
    expect(name).to_have_text("film 02.png")
    page.get_by_role("button", name="Failed 1").press("Enter")
    expect(rows).to_have_count(1)
    expect(page.get_by_role("alert")).to_contain_text("not an image of a supported format")
    expect(page.get_by_role("button", name="Save the picture")).to_be_disabled()
    page.get_by_role("button", name="All 21").press("Enter")
    expect(name).to_have_text("broken.png")
    listing.press("Home")
    expect_result(page)
    expect(page.get_by_role("button", name="Save the picture")).to_be_enabled()
    assert fits_phone(page)


def test_three_films_of_the_list_fit_a_phone_side_by_side(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    read_all(page, films(5))
    listing, *rows = boxes(page, "#films", *(f"#film-{n}" for n in range(1, 6)))
    inside = [row for row in rows if row["right"] <= listing["right"]]
    assert len(inside) == 3
    assert rows[3]["left"] < listing["right"]  # a part of the next one tells that there are more
    page.get_by_role("option").nth(2).click()
    expect(page.locator("#film .film-name")).to_have_text("film 02.png")


def test_films_stay_in_the_window_beside_a_long_result(page: Page) -> None:
    page.set_viewport_size({"width": 1280, "height": 800})
    read_all(page, films(9))
    page.get_by_role("button", name="Show why").click()
    expect(page.locator("#overlay")).to_be_visible()
    page.locator("#print").evaluate("e => e.scrollIntoView({ block: 'end' })")
    assert page.evaluate("scrollY") > 100
    for part in ("#film", "#strip"):
        expect(page.locator(part)).to_be_in_viewport(ratio=1)


def test_the_queue_is_stopped_and_goes_on(page: Page) -> None:
    page.route("**/predict/batch", lambda route: None)
    page.set_input_files("#file", films(12))
    expect(page.locator("#strip-count")).to_have_text("1 of 12 done")
    page.get_by_role("button", name="Stop", exact=True).press("Enter")
    expect(page.get_by_role("option").last).to_contain_text("Not read")
    page.unroute("**/predict/batch")
    page.get_by_role("button", name="Go on").press("Enter")
    expect(page.locator("#strip-count")).to_have_text("12 of 12 done")


def test_a_busy_server_is_asked_again(page: Page) -> None:
    turned_away: list[Route] = []

    def turn_away_once(route: Route) -> None:
        if turned_away:
            route.continue_()
        else:
            turned_away.append(route)
            busy = {"success": False, "error": "Busy.", "code": "busy"}
            route.fulfill(status=503, json=busy, headers={"Retry-After": "1"})

    page.route("**/predict/batch", turn_away_once)
    read_all(page, films(6))
    assert turned_away
    expect(page.locator(".strip-row[data-state=failed]")).to_have_count(0)


def test_a_visit_elsewhere_and_a_reload_keep_the_answers(page: Page, tmp_path: Path) -> None:
    paths = [tmp_path / f"film {number}.png" for number in range(3)]
    for path in paths:
        path.write_bytes(SMALL_FILM)
    page.set_input_files("#file", paths)
    expect(page.locator("#strip-count")).to_have_text("3 of 3 done")
    page.get_by_role("option").nth(1).click()
    verdict = page.locator("#verdict-name").inner_text()
    page.get_by_role("navigation", name="Pages").get_by_role("link", name="The model").click()
    page.go_back()
    page.reload()
    expect(page.get_by_role("option")).to_have_count(3)
    expect(page.locator("#verdict-name")).to_have_text(verdict)
    expect(page.get_by_text("Choose this film again to see it.")).to_be_visible()
    expect(page.locator("#show-why")).to_be_hidden()
    signs = page.locator(".strip-picture").evaluate_all("all => all.map((e) => e.dataset.sign)")
    assert signs == [verdict[0]] * 3
    kept = page.evaluate("sessionStorage.getItem('resformer.session')")
    assert "iVBOR" not in kept
    assert len(kept) < 5000
    page.set_input_files("#file", paths[1:2])
    expect(page.locator("#film-image")).to_be_visible()
    expect(page.get_by_role("option")).to_have_count(3)
    page.get_by_role("button", name="Clear").click()
    page.reload()
    expect(page.get_by_text("No image yet")).to_be_visible()
    assert page.evaluate("sessionStorage.getItem('resformer.session')") is None


def test_a_folder_is_read_without_what_is_no_film(page: Page, tmp_path: Path) -> None:
    (tmp_path / "ward" / "a").mkdir(parents=True)
    for name in ("film.png", "a/1.2.840.113"):
        (tmp_path / "ward" / name).write_bytes(SMALL_FILM)
    for name in ("notes.txt", ".hidden"):
        (tmp_path / "ward" / name).write_text("no film")
    page.set_input_files("#folder", tmp_path / "ward")
    expect(page.locator("#strip-count")).to_have_text("2 of 2 done")
    expect(page.get_by_role("option").first).to_contain_text("1.2.840.113 ward/a")
    expect(page.locator("#intake-text")).to_contain_text("did not look like films")


def test_the_table_is_that_of_the_command_line(page: Page, tmp_path: Path) -> None:
    read_all(page, films(2, image("=cmd, film.png", SMALL_FILM), image("bad.png", b"bad")))
    rows = table(page, tmp_path)
    out = tmp_path / "cli.csv"
    out.touch()
    ResultsTable(out, CLASS_NAMES, MadeBy("")).start(force=False)
    columns = out.read_text().strip().split(",")
    assert list(rows[0]) == [*columns, "note"]
    assert [row["file"] for row in rows] == [
        "film 00.png",
        "film 01.png",
        "./=cmd, film.png",
        "bad.png",
    ]
    assert rows[0]["predicted_class"] in CLASS_NAMES
    shares = [float(rows[0][f"probability_{name}"]) for name in CLASS_NAMES]
    assert sum(shares) == pytest.approx(1, abs=1e-5)
    assert max(shares) == float(rows[0]["confidence"])
    assert (rows[3]["error_code"], rows[3]["predicted_class"]) == ("unsupported_format", "")
    assert all("not a medical device" in row["note"] for row in rows)


def test_the_picture_has_the_film_and_what_was_said_below_it(page: Page, tmp_path: Path) -> None:
    choose(page, image("film.png"))
    expect_result(page)
    page.get_by_role("button", name="Show why").click()
    expect(page.locator("#overlay")).to_be_visible()
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save the picture").click()
    assert saved.value.suggested_filename == "film-resformer.png"
    path = tmp_path / "picture.png"
    saved.value.save_as(path)
    with Image.open(path) as picture:
        assert picture.width == 900
        assert picture.height > 900 + 100  # a small film is enlarged
        colours = picture.convert("RGB").getcolors(2**24)
    assert colours
    assert any(max(c) - min(c) > 60 for _, c in colours if isinstance(c, tuple))  # the map


def test_the_text_that_is_copied_says_what_and_by_which_model(page: Page) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    choose(page, image("film.png"))
    expect_result(page)
    page.get_by_role("button", name="Copy as text").click()
    expect(page.locator("#takeaway-text")).to_have_text("Copied.")
    text = page.evaluate("navigator.clipboard.readText()")
    for words in ("Film: film.png", "Shares: ", "SHA-256 ", "not a medical device"):
        assert words in text


def test_paper_has_one_page_with_bars_and_without_controls(page: Page) -> None:
    choose(page, image("film.png"))
    expect_result(page)
    for paper in ("A4", "Letter"):
        assert (
            page.pdf(format=paper, margin={"top": "1cm", "bottom": "1cm"}).count(b"/Type /Page\n")
            == 1
        )
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(19, 32, 42)"
    for hidden in ("#takeaway", ".tools", ".intake", ".compute", ".facts", "nav"):
        expect(page.locator(hidden)).to_be_hidden()
    expect(page.locator("#print-head")).to_contain_text("not a medical device")
    fill = page.locator("[data-first] .bar-fill")
    expect(fill).to_be_visible()
    assert fill.evaluate("e => getComputedStyle(e).printColorAdjust") == "exact"


def test_a_drawn_sample_is_one_click_away(page: Page) -> None:
    page.get_by_role("button", name="Try a drawn sample").press("Enter")
    expect_result(page)
    expect(page.locator("#film .film-name")).to_have_text("drawn sample.png")


def test_a_drawn_sample_is_called_a_drawing_wherever_its_estimate_goes(
    page: Page, tmp_path: Path
) -> None:
    def tell_record(route: Route) -> None:
        answer = route.fetch().json()
        answer["prediction"]["track_record"] = {"called": 120, "right": 96}
        route.fulfill(json=answer)

    page.route("**/predict", tell_record)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    try_sample(page)
    expect(page.get_by_role("status").last).to_contain_text(DRAWN)
    page.get_by_role("button", name="Copy as text").click()
    expect(page.locator("#takeaway-text")).to_have_text("Copied.")
    copied = page.evaluate("navigator.clipboard.readText()")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    printed = page.locator("#print-head").inner_text()
    for text in (copied, printed):
        assert f"Warning: {DRAWN}" in text
        assert "Track record" not in text
    assert table(page, tmp_path)[0]["warnings"] == "drawn"
    page.reload()
    expect(page.locator("#warning")).to_have_text(DRAWN)
    choose(page, image())  # a file of one's own is none
    expect(page.locator("#record")).to_contain_text("Of 120 test films")
    expect(page.locator("#warning")).to_be_hidden()


def test_a_film_that_no_browser_shows_is_drawn_by_the_server(page: Page) -> None:
    pixels = draw_chest_phantom(128).repeat(12, axis=0).repeat(12, axis=1)
    choose(page, image("film.dcm", write(radiograph(pixels))))
    expect_result(page)
    film = page.locator("#film-image")
    expect(film).to_be_visible()
    page.wait_for_function("() => document.querySelector('#film-image').naturalWidth === 1024")
    for _ in range(5):
        page.keyboard.press("+")
    page.wait_for_function("() => document.querySelector('#film-image').naturalWidth === 1536")
