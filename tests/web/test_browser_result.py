"""What a result offers in a real browser: reasons, refusal, abstention and feedback."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, Request, Route, expect

from resformer.phantom import draw_chest_phantom
from tests import data_sets
from tests.dicom_files import radiograph, write
from tests.web.browser import (
    answer_for,
    boxes,
    choose,
    expect_result,
    fits_phone,
    image,
    open_page,
    try_sample,
)
from tests.web.checkpoints import (
    write_abstaining_checkpoint,
    write_gated_checkpoint,
    write_upright_checkpoint,
)
from tests.web.posting import encode
from tests.web.serving import serve_in_thread
from tests.web.test_gate_and_abstention import WARNING
from tests.web.test_pages import read_themes
from web import WebConfig, create_app
from web.service import ModelService


@pytest.fixture(scope="module")
def serve() -> Iterator[Callable[[WebConfig], str]]:
    """Serves an application until the tests of this module end; its address."""
    with ExitStack() as stack:

        def begin(config: WebConfig, service: ModelService | None = None) -> str:
            config = dataclasses.replace(config, port=0)
            return stack.enter_context(serve_in_thread(create_app(config, service), config))

        yield begin


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
    expect(page.locator("#why-text")).to_contain_text(f"supports {best}.")
    expect(page.locator("#why-text")).to_contain_text("not where a disease is")
    expect(page.locator("#lungs")).to_be_hidden()  # this network does not look for any
    film = page.get_by_role("img", name="Preview of your image")
    expect(film).to_be_visible()
    above, below = boxes(page, "#overlay", "#film-image")
    assert above == below
    page.wait_for_function("document.getElementById('overlay').naturalWidth > 0")
    sizes = [part.evaluate("e => [e.naturalWidth, e.naturalHeight]") for part in (overlay, film)]
    assert sizes[0] == sizes[1] == [300, 300]


def shows_outline(page: Page) -> bool:
    """Whether the film has the outline's cyan, which neither film nor map has."""
    with Image.open(io.BytesIO(page.locator("#film").screenshot())) as picture:
        colours = picture.convert("RGB").getcolors(2**24) or []
    pixels = [(count, c) for count, c in colours if isinstance(c, tuple)]
    return sum(count for count, c in pixels if min(c[1], c[2]) - c[0] > 35) > 50


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
    assert shows_outline(page)
    page.keyboard.press("w")  # a windowed film lies under the outline, too
    expect(page.locator("#film-image[data-windowed]")).to_be_visible()
    assert shows_outline(page)
    page.get_by_role("button", name="Hide why").click()
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


def test_the_map_fades_by_keyboard_fits_a_phone_and_goes_by_button_and_for_another_film(
    page: Page,
) -> None:
    show_reasons(page)
    overlay, slider = page.locator("#overlay"), page.get_by_label("Opacity of the map")
    reasons, button = page.locator("#why"), page.locator("#show-why")
    expect(reasons).to_be_focused()
    expect(button).to_have_attribute("aria-expanded", "true")
    expect(overlay).to_have_css("opacity", "0.7")
    slider.press("ArrowLeft")
    expect(overlay).to_have_css("opacity", "0.65")
    expect(page.locator("#why-opacity-value")).to_have_text("65%")
    slider.press("Home")
    expect(overlay).to_have_css("opacity", "0")
    slider.press("End")
    expect(overlay).to_have_css("opacity", "1")
    assert fits_phone(page)
    box = reasons.bounding_box()
    assert box
    for part in page.locator("#why :is(select, input, button, output, svg)").all():
        inner = part.bounding_box()
        assert inner
        assert box["x"] <= inner["x"] <= inner["x"] + inner["width"] <= box["x"] + box["width"]
    page.get_by_role("button", name="Hide why").press("Enter")
    expect(reasons).to_be_hidden()
    expect(overlay).to_be_hidden()
    expect(button).to_be_focused()
    expect(button).to_have_attribute("aria-expanded", "false")
    button.press("Enter")
    expect(overlay).to_be_visible()
    choose(page, image(data=encode(200)))
    expect_result(page)
    expect(reasons).to_be_hidden()
    expect(overlay).to_be_hidden()
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


@pytest.fixture(scope="module")
def refusing_url(
    serve: Callable[..., str], tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """A server whose gate refuses every picture."""
    path = tmp_path_factory.mktemp("refusing") / "model.pth"
    return serve(WebConfig(write_gated_checkpoint(tiny_checkpoint, path, accepts=False), "cpu"))


@pytest.fixture
def refusing_page(browser: Browser, refusing_url: str) -> Iterator[Page]:
    with open_page(browser, refusing_url) as page:
        yield page


def test_a_refusal_is_told_and_the_person_may_go_on(refusing_page: Page) -> None:
    page = refusing_page
    choose(page, image())
    panel = page.locator("#refusal")
    expect(panel).to_be_visible()
    expect(panel).to_contain_text("This image was not analysed")
    expect(panel).to_contain_text("It does not look like an upright frontal chest X-ray.")
    expect(page.get_by_role("alert")).to_be_hidden()
    expect(page.locator("#bars")).to_be_hidden()
    expect(page.get_by_role("status").last).to_contain_text("You can have it analysed anyway.")
    page.get_by_role("button", name="Analyse it anyway").press("Enter")
    expect_result(page)
    expect(page.locator("#result")).to_be_focused()
    warning = "It does not look like an upright frontal chest X-ray. The estimate may mean nothing."
    expect(page.locator("#warning")).to_have_text(warning)
    expect(page.get_by_role("status").last).to_contain_text(warning)
    page.get_by_role("button", name="Show why").click()
    expect(page.locator("#overlay")).to_be_visible()
    choose(page, image())  # insistence is for one film
    expect(panel).to_be_visible()
    expect(page.locator("#warning")).to_be_hidden()


def test_who_insists_is_told_how_the_film_lies(
    serve: Callable[..., str], browser: Browser, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    film = draw_chest_phantom(120)[12:108]
    path = write_upright_checkpoint(tiny_checkpoint, tmp_path / "model.pth", film)
    with open_page(browser, serve(WebConfig(path, "cpu"))) as page:
        choose(page, image(data=data_sets.encode(np.rot90(film))))
        page.get_by_role("button", name="Analyse it anyway").click()
        expect_result(page)
        warning = "It looks like a chest X-ray that is sideways. The estimate may mean nothing."
        expect(page.locator("#warning")).to_have_text(warning)
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        expect(page.locator("#print-head")).to_contain_text(f"Warning: {warning}")


def test_a_refused_dicom_shows_its_picture_and_how_it_was_made(refusing_page: Page) -> None:
    page = refusing_page
    film = radiograph(draw_chest_phantom(200), ViewPosition="PA", PixelSpacing=[1, 1])
    choose(page, image("film.dcm", write(film)))
    expect(page.locator("#refusal")).to_be_visible()
    expect(page.locator("#film-told")).to_have_text("CR · PA")
    expect(page.locator("#film .scale-bar")).to_be_visible()
    preview = page.get_by_role("img", name="Preview of your image")
    expect(preview).to_be_visible()
    assert preview.evaluate("e => [e.naturalWidth, e.naturalHeight]") == [200, 200]


@pytest.fixture(scope="module")
def abstaining_url(
    serve: Callable[..., str], tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """A server whose model abstains from every film."""
    path = tmp_path_factory.mktemp("abstaining") / "model.pth"
    return serve(WebConfig(write_abstaining_checkpoint(tiny_checkpoint, path), "cpu"))


@pytest.fixture
def abstaining_page(browser: Browser, abstaining_url: str) -> Iterator[Page]:
    with open_page(browser, abstaining_url) as page:
        yield page


def test_uncertain_names_no_class_and_no_share_stands_out(abstaining_page: Page) -> None:
    page = abstaining_page
    choose(page, image())
    expect_result(page)
    expect(page.locator("#verdict-name")).to_have_text("Uncertain")
    expect(page.locator("#verdict-share")).to_have_text("")
    why = "The classes are close, and none stands out. Read this as undecided."
    assert WARNING["message"] == why
    expect(page.locator("#warning")).to_have_text(why)
    announced = page.get_by_role("status").last
    expect(announced).to_contain_text(why)
    expect(announced).to_contain_text("The model names no class. Not a diagnosis.")
    expect(announced).not_to_contain_text("estimate")
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme="dark" if theme == "dark" else "light")
        caution = tuple(bytes.fromhex(read_themes()[theme]["caution"][1:]))
        expect(page.locator("#verdict-name")).to_have_css("color", f"rgb{caution}")
    expect(page.locator(".bar-share")).to_have_count(4)
    assert all(text.endswith("%") for text in page.locator(".bar-share").all_inner_texts())
    for part, kind in ((".bar-name", "color"), (".bar-fill", "backgroundColor")):
        looks = page.locator(part).evaluate_all(
            "(all, kind) => all.map((e) => getComputedStyle(e)[kind])", kind
        )
        assert len(set(looks)) == 1, part
    page.route("**/predict", lambda route: answer_for(route, {"First": 0.9, "Second": 0.1}))
    choose(page, image())
    expect(page.locator("#verdict-name")).to_have_text("First")
    expect(page.locator("#verdict-share")).to_have_text("90%")
    expect(page.locator("#warning")).to_be_hidden()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "uploads"


@pytest.fixture
def giving_page(
    serve: Callable[..., str], browser: Browser, loaded: ModelService, folder: Path
) -> Iterator[Page]:
    """The page of a server that keeps images, up to two of them."""
    config = WebConfig(keep_feedback=True, uploads_path=folder, feedback_max_bytes=2 * 73728)
    with open_page(browser, serve(config, loaded)) as page:
        yield page


def kept(folder: Path) -> list[str]:
    """The classes of the images that are kept."""
    return sorted(path.parent.name for path in folder.glob("*/*.png"))


def test_a_class_is_confirmed_corrected_and_refused(giving_page: Page, folder: Path) -> None:
    page = giving_page
    expect(page.get_by_text("This server collects images for training.")).to_be_visible()
    form, status = page.locator("#feedback"), page.locator("#feedback-text")
    expect(form).to_be_hidden()
    choose(page, image("Mustermann.png"))
    expect_result(page)
    expect(form).to_be_visible()
    answered = page.locator("#verdict-name").inner_text()
    picker, button = page.get_by_label("The film shows"), form.get_by_role("button")
    assert picker.locator("option:checked").inner_text() == answered
    assert kept(folder) == []
    button.click()
    expect(status).to_contain_text(f"Kept as {answered}.")
    assert kept(folder) == [picker.input_value()]
    picker.select_option("Viral Pneumonia")
    button.press("Enter")
    expect(status).to_contain_text("Kept as Viral pneumonia.")
    assert kept(folder) == ["Viral Pneumonia"]
    assert fits_phone(page)
    choose(page, image(data=b"no image"))
    expect(page.get_by_role("alert")).to_be_visible()
    expect(form).to_be_hidden()


def test_a_drawing_is_not_asked_for_training(giving_page: Page) -> None:
    try_sample(giving_page)
    expect(giving_page.locator("#feedback")).to_be_hidden()


def test_a_refusal_is_said_and_the_next_image_starts_anew(giving_page: Page, folder: Path) -> None:
    page = giving_page
    status = page.locator("#feedback-text")
    choose(page, image(data=encode(1000)))
    expect_result(page)
    page.locator("#feedback-keep").click()
    expect(status).to_have_text(
        "Not kept. This server has no room for another image. Tell its operator."
    )
    expect(page.locator("#feedback-keep")).to_be_enabled()
    assert kept(folder) == []
    choose(page, image(data=encode(64)))
    expect_result(page)
    expect(status).to_contain_text("Only if you press the button")
    assert kept(folder) == []
