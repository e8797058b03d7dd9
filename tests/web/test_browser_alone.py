"""The model in the browser: the server's answers, and no byte of a film that leaves the browser."""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from pydicom import uid
from pydicom.sequence import Sequence

from resformer import find_shipped_model
from resformer.cli import main
from resformer.images import decode_image
from resformer.phantom import draw_chest_phantom
from resformer.predict import Predictor
from resformer.transforms import resize_pixels
from tests.dicom_files import jpeg, lookup_table, radiograph, write, write_frame
from tests.image_files import png, png_header, save
from tests.web.browser import choose, expect_result, image, try_sample
from tests.web.posting import encode, post_file
from tests.web.serving import serve_checkpoint
from web import WebConfig, create_app

READY = re.compile("Films are read in this browser and sent nowhere")
# `[address, [[film in base64, options]]]` to an answer, or the refusal, for each film.
CLASSIFY = """async ([facts, films]) => {
  const { classifyHere } = await import(new URL("static/js/local.js", document.baseURI));
  const { signal } = new AbortController();
  const answers = [];
  for (const [film, options] of films) {
    const bytes = Uint8Array.from(atob(film), (letter) => letter.charCodeAt(0));
    const asked = classifyHere(facts, new File([bytes], "film"), options, signal);
    answers.push(await asked.catch((error) => error.answer ?? { error: `${error.stack}` }));
  }
  return answers;
}"""
# Films in base64 and a side to the network's inputs, in base64.
READ = """async ([films, side]) => {
  const { decodeImage } = await import(new URL("static/js/local/image.js", document.baseURI));
  const { resize } = await import(new URL("static/js/local/resize.js", document.baseURI));
  const inputs = [];
  for (const film of films) {
    const bytes = Uint8Array.from(atob(film), (letter) => letter.charCodeAt(0));
    const { pixels } = resize(await decodeImage(bytes, { maxPixels: 1e6 }), side, side);
    inputs.push(btoa(String.fromCharCode.apply(null, pixels)));
  }
  return inputs;
}"""


class _Site:
    """An exported site on a web server that knows nothing of it, and all that was asked of it."""

    def __init__(self, folder: Path) -> None:
        asked = self.asked = list[str]()

        class Handler(SimpleHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                length = self.headers.get("Content-Length", "0") if hasattr(self, "headers") else ""
                asked.append(f"{self.requestline} {length}")

        self.folder = folder
        self._server = ThreadingHTTPServer(
            ("127.0.0.1", 0), partial(Handler, directory=str(folder))
        )
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        # localhost, where browsers allow service workers without https
        self.url = f"http://localhost:{self._server.server_port}/"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of the shipped model, as a user exports it."""
    folder = tmp_path_factory.mktemp("site")
    assert main(["export", "--model", str(find_shipped_model()), "--site", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[_Site]:
    site = _Site(folder)
    yield site
    site.stop()


@pytest.fixture(scope="module")
def alone(browser: Browser, site: _Site) -> Iterator[Page]:
    """The exported page, ready and without complaints."""
    complaints: list[str] = []
    page = browser.new_context().new_page()
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text))
    page.goto(site.url)
    expect(page.locator("#compute-text")).to_have_text(READY)
    yield page
    page.context.close()
    assert complaints == []


@pytest.fixture(scope="module")
def client() -> FlaskClient:
    """The server with the same model."""
    return create_app(WebConfig(find_shipped_model(), "cpu")).test_client()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _ask(page: Page, films: list[tuple[bytes, dict[str, Any]]]) -> list[dict[str, Any]]:
    asked = [[_text(data), options] for data, options in films]
    answers: list[dict[str, Any]] = page.evaluate(CLASSIFY, ["local/model.json", asked])
    return answers


def _inputs(page: Page, films: list[bytes], side: int) -> list[NDArray[np.uint8]]:
    texts = page.evaluate(READ, [list(map(_text, films)), side])
    return [
        np.frombuffer(base64.b64decode(text), np.uint8).reshape(side, side).astype(np.int16)
        for text in texts
    ]


def _draw(seed: int = 0) -> NDArray[np.uint8]:
    """A drawn film with noise, 200 x 230."""
    noise = np.random.default_rng(seed).normal(0, 4, (230, 200))
    film = draw_chest_phantom(230, seed=seed)[:, 15:215] + noise
    return np.clip(film, 0, 255).astype(np.uint8)


def _films() -> list[bytes]:
    """Two hundred films: five drawings in forty kinds of files, exposures and cuts."""
    films = []
    for seed, cut, gain in product(range(5), (0, 13, 29, 41, 58), (0.6, 1.0)):
        drawn = np.rint(_draw(seed)[cut:, cut // 2 :] * gain).astype(np.uint8)
        deep = drawn.astype(np.uint16) * 16 + 7
        grey = Image.fromarray(drawn)
        colour = Image.merge("RGB", (grey, grey.transpose(Image.Transpose.ROTATE_180), grey))
        films += [
            save(grey, "JPEG", quality=80) if cut else save(grey, "PNG"),
            save(colour, "WEBP", quality=70) if cut else save(colour, "BMP"),
            png(deep) if cut else save(colour, "JPEG", quality=60),
            write(
                radiograph(deep, bits_stored=12),
                uid.RLELossless if cut else uid.ImplicitVRLittleEndian,
            ),
        ]
    return films


def test_two_hundred_films_get_the_answers_of_the_server(alone: Page) -> None:
    films = _films()
    predictor = Predictor.from_file(find_shipped_model(), "cpu")
    side = predictor.checkpoint.input_spec.size
    seen = _inputs(alone, films, side)
    expected = [resize_pixels(decode_image(film), side).astype(np.int16) for film in films]
    assert len(films) == 200
    assert max(int(np.abs(a - b).max()) for a, b in zip(seen, expected, strict=True)) <= 1
    here = _ask(alone, [(film, {"preview": 0, "force": 1}) for film in films])
    there = predictor.predict(films)
    shares = [list(answer["prediction"]["all_probabilities"].values()) for answer in here]
    wanted = [list(prediction.probabilities.values()) for prediction in there]
    assert np.abs(np.array(shares) - np.array(wanted)).max() <= 0.002


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x112] = orientation
    return exif


def _unusual_files() -> dict[str, bytes]:
    grey = Image.fromarray(_draw())
    deep = _draw().astype(np.uint16) * 16 + 7
    hot = deep.copy()
    hot[0, 0] = 65535
    see_through = Image.merge("LA", (grey, grey.point(lambda level: 255 * (level > 90))))
    tables = radiograph(deep, bits_stored=12)
    tables.VOILUTSequence = Sequence([lookup_table(0, 12, np.arange(4096) ** 2 // 4096)])
    return {
        **{
            f"{kind} turned {code}": save(grey, kind, exif=_exif(code))
            for kind, code in product(("PNG", "JPEG", "WEBP"), (2, 5, 6, 7, 8))
        },
        "palette": save(grey.convert("P"), "PNG"),
        "GIF": save(grey, "GIF"),
        "see-through": save(see_through, "PNG"),
        "16 bits, one hot pixel": png(hot),
        "16 bits, see-through": png(np.stack([deep * 16, np.roll(deep * 16, 9)], -1)),
        "16 bits, one colour see-through": png(deep, transparent=(int(deep[9, 9]),)),
        "16 bits, colour": png(np.stack([deep, deep // 2, deep], -1)),
        "16 bits, filtered": save(Image.fromarray(deep), "PNG"),
        "window": write(radiograph(deep, bits_stored=12, WindowCenter=1500, WindowWidth=[900])),
        "sigmoid": write(
            radiograph(
                deep, bits_stored=12, WindowCenter=9, WindowWidth=999, VOILUTFunction="SIGMOID"
            )
        ),
        "MONOCHROME1": write(radiograph(deep, PhotometricInterpretation="MONOCHROME1")),
        "padding": write(radiograph(deep, bits_stored=12, PixelPaddingValue=int(deep[0, 0]))),
        "signed": write(radiograph(deep.astype(np.int16) - 900, RescaleSlope=2)),
        "VOI LUT": write(tables, uid.ImplicitVRLittleEndian),
        "big-endian": write(radiograph(deep, bits_stored=12), uid.ExplicitVRBigEndian),
        "deflated": write(radiograph(deep, bits_stored=12), uid.DeflatedExplicitVRLittleEndian),
        "JPEG in DICOM": write_frame(
            radiograph(_draw()), uid.JPEGBaseline8Bit, jpeg(_draw()), fragments=2
        ),
    }


def test_unusual_files_become_the_same_input(alone: Page) -> None:
    files = _unusual_files()
    seen = dict(zip(files, _inputs(alone, list(files.values()), 160), strict=True))
    far = {
        name: int(np.abs(seen[name] - resize_pixels(decode_image(data), 160)).max())
        for name, data in files.items()
    }
    assert {name: distance for name, distance in far.items() if distance > 1} == {}


def _upright() -> bytes:
    return encode(300)


def _turned() -> bytes:
    return save(Image.fromarray(np.rot90(draw_chest_phantom(300))), "PNG")


@pytest.mark.parametrize(
    ("data", "options"),
    [
        pytest.param(_upright(), {}, id="accepted"),
        pytest.param(_turned(), {}, id="sideways"),
        pytest.param(_turned(), {"rotate": 90}, id="put right"),
        pytest.param(_turned(), {"force": 1}, id="forced"),
        pytest.param(_turned(), {"invert": 1}, id="inverted too"),
        pytest.param(save(Image.new("L", (200, 200), 90), "PNG"), {}, id="blank"),
        pytest.param(save(Image.new("L", (300, 90)), "PNG"), {}, id="too long"),
        pytest.param(encode(20), {}, id="too small"),
        pytest.param(b"", {}, id="empty"),
        pytest.param(png_header(100_000, 100_000), {}, id="too large"),
        pytest.param(png_header(100_000, 100_000, depth=16), {}, id="too large, 16 bits"),
        pytest.param(_upright()[:3000], {}, id="damaged"),
        pytest.param(
            write(radiograph(_draw(), Modality=None, SOPClassUID="1.2.3")), {}, id="no radiograph"
        ),
        pytest.param(write(radiograph(_draw()))[:9000], {}, id="incomplete"),
    ],
)
def test_the_answer_is_the_one_of_the_server(
    alone: Page, client: FlaskClient, data: bytes, options: dict[str, Any]
) -> None:
    (here,) = _ask(alone, [(data, {**options, "preview": 0})])
    there = post_file(
        client,
        data,
        address="/v1/predict",
        query="preview=0",
        **{k: str(v) for k, v in options.items()},
    ).get_json()
    assert _rounded(here) == _rounded(there)


def _rounded(value: Any) -> Any:
    """Numbers to three decimals: the last bits differ between processors."""
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    return pytest.approx(value, abs=1e-3) if isinstance(value, float) else value


def _tiff() -> bytes:
    return save(Image.fromarray(_draw()), "TIFF")


def test_what_no_browser_reads_is_said_and_what_to_do_instead(alone: Page) -> None:
    packed = write(radiograph(_draw().astype(np.uint16) * 16, bits_stored=12), uid.JPEG2000Lossless)
    answers = _ask(alone, [(_tiff(), {}), (packed, {}), (b"no image at all", {})])
    assert [(answer["code"], answer["error"]) for answer in answers] == [
        (
            "unsupported_format",
            "The browser cannot read TIFF. Convert the file to PNG, or use the app: its server "
            "reads it.",
        ),
        (
            "unsupported_dicom",
            "This DICOM file cannot be used: the browser cannot unpack its compression. Export it "
            "uncompressed, or use the app: its server reads it.",
        ),
        (
            "unsupported_format",
            "This is not an image of a format that the browser reads: PNG, JPEG, BMP, GIF, WebP "
            "or DICOM.",
        ),
    ]


def test_no_byte_of_a_film_leaves_the_browser_and_the_page_works_offline(
    browser: Browser, folder: Path
) -> None:
    site = _Site(folder)
    with browser.new_context() as context:
        asked: list[tuple[str, str, bytes | None]] = []
        context.on("request", lambda r: asked.append((r.method, r.url, r.post_data_buffer)))
        page = context.new_page()
        sockets: list[object] = []
        page.on("websocket", lambda socket: sockets.append(socket))
        page.goto(site.url)
        expect(page.locator("#compute-text")).to_contain_text("now works without a connection")
        known = len(site.asked)
        choose(page, image("Mustermann_Erika.png"))
        expect_result(page)
        # All that is needed was there before the film was chosen. By itself a browser looks for a
        # newer service worker a while after the page has loaded.
        assert {line.split()[1] for line in site.asked[known:]} <= {"/sw.js"}
        site.stop()
        page.reload()
        expect(page.locator("#compute-text")).to_have_text(READY)
        choose(page, image())
        expect_result(page)
        expect(page.locator("#verdict-name")).not_to_be_empty()
    files = {f"/{path.relative_to(folder).as_posix()}" for path in folder.rglob("*")} | {"/"}
    lines = [line.split() for line in site.asked]
    assert {(method, length) for method, _, _, length in lines} == {("GET", "0")}
    assert {path for _, path, _, _ in lines} <= files
    foreign = [url for _, url, _ in asked if not url.startswith((site.url, "blob:", "data:"))]
    assert (foreign, sockets) == ([], [])
    assert {(method, body) for method, _, body in asked} == {("GET", None)}


def test_a_site_replaces_an_earlier_one_and_nothing_else(
    tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    command = ["export", "--model", str(find_shipped_model()), "--site"]
    assert main([*command, str(tmp_path)]) == 1
    assert "choose another folder" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    worker = (folder / "sw.js").read_text(encoding="utf-8")
    assert main([*command, str(folder)]) == 0
    assert (folder / "sw.js").read_text(encoding="utf-8") == worker


def test_the_served_page_computes_here_while_its_switch_is_on(browser: Browser) -> None:
    with serve_checkpoint(find_shipped_model()) as url, browser.new_context() as context:
        posts: list[str] = []
        context.on("request", lambda r: posts.append(r.url) if r.method == "POST" else None)
        page = context.new_page()
        page.goto(url)
        stays, goes = page.get_by_text("They stay in this browser"), page.get_by_text("They go to")
        expect(goes).to_be_visible()
        expect(stays).to_be_hidden()
        page.get_by_label("Compute here, send nothing").check()
        expect(stays).to_be_visible()
        expect(goes).to_be_hidden()
        expect(page.locator("#compute-text")).to_have_text(READY)
        choose(page, image())
        expect_result(page)
        choose(page, image("film.tif", _tiff()))
        expect(page.get_by_role("alert")).to_contain_text(
            "Convert the file to PNG, or untick “Compute here, send nothing”: the server reads it."
        )
        page.get_by_role("option").first.click()
        expect_result(page)
        assert posts == []
        here = page.locator("#bars").inner_text()
        page.reload()  # the choice stays
        expect(page.locator("#compute-text")).to_have_text(READY)
        expect(stays).to_be_visible()
        page.get_by_label("Compute here, send nothing").uncheck()
        expect(goes).to_be_visible()
        choose(page, image())
        expect_result(page)
        assert len(posts) == 1
        assert page.locator("#bars").inner_text() == here


def test_the_drawn_sample_is_called_a_drawing_without_a_server_too(
    browser: Browser, site: _Site
) -> None:
    with serve_checkpoint(find_shipped_model()) as url, browser.new_context() as context:
        page = context.new_page()
        page.goto(url)
        page.get_by_label("Compute here, send nothing").check()
        expect(page.locator("#compute-text")).to_have_text(READY)
        try_sample(page)
        page.goto(site.url)
        expect(page.locator("#compute-text")).to_have_text(READY)
        try_sample(page)


def test_a_model_behind_a_key_is_not_handed_to_browsers(tiny_checkpoint: Path) -> None:
    config = WebConfig(find_shipped_model(), "cpu", api_key="secret")
    guarded = create_app(config).test_client()
    without_graph = create_app(WebConfig(tiny_checkpoint, "cpu")).test_client()
    for client in (guarded, without_graph):
        assert "compute-here" not in client.get("/").text
        for name in ("model.json", "film.onnx.gz"):
            assert client.get(f"/local/{name}").status_code == 404


def test_the_vendored_runtime_is_the_one_that_is_described() -> None:
    folder = Path(__file__).resolve().parents[2] / "static" / "vendor" / "onnxruntime-web"
    described = (folder / "README.md").read_text(encoding="utf-8")
    script = (folder / "ort.wasm.bundle.min.mjs").read_bytes()
    wasm = gzip.decompress((folder / "ort-wasm-simd-threaded.wasm.gz").read_bytes())
    for content in (script, wasm):
        assert hashlib.sha256(content).hexdigest() in described
