"""Captures the page with the result for a drawn film: `python -m tests.screenshot OUT.png`."""

from __future__ import annotations

import argparse
import io
import logging
import tempfile
from pathlib import Path
from typing import Literal

from PIL import Image
from playwright.sync_api import FilePayload

from tests.phantom import draw_chest_phantom
from tests.web.browser import open_chromium
from tests.web.serving import run_app
from web.config import DEFAULT_MODEL

Theme = Literal["light", "dark"]

_logger = logging.getLogger(__name__)


def capture(url: str, out: Path, *, width: int, height: int, theme: Theme, seed: int) -> None:
    """Open the page, classify a drawn film and save what a person sees."""
    buffer = io.BytesIO()
    Image.fromarray(draw_chest_phantom(768, seed)).save(buffer, "PNG")
    with open_chromium() as browser:
        page = browser.new_page(
            viewport={"width": width, "height": height},
            color_scheme=theme,
            reduced_motion="reduce",
        )
        page.goto(url)
        film = FilePayload(name="film.png", mimeType="image/png", buffer=buffer.getvalue())
        page.set_input_files("#file", film)
        page.wait_for_selector("#result:is([data-state=done], [data-state=error])")
        page.evaluate("scrollTo(0, 0)")
        page.screenshot(path=out)


def main() -> None:
    """Read the options and capture."""
    parser = argparse.ArgumentParser(prog="tests.screenshot", description=__doc__)
    parser.add_argument("out", type=Path, help="the PNG file to write")
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL, help="checkpoint to serve")
    parser.add_argument("--theme", choices=("light", "dark"), default="light")
    parser.add_argument("--width", type=int, default=1200, help="of the window, in pixels")
    parser.add_argument("--height", type=int, default=830, help="of the window, in pixels")
    parser.add_argument("--seed", type=int, default=0, help="anatomy of the drawn film")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with (
        tempfile.TemporaryDirectory() as folder,
        run_app(options.model.resolve(), Path(folder) / "log.txt") as running,
    ):
        capture(
            running.url,
            options.out,
            width=options.width,
            height=options.height,
            theme=options.theme,
            seed=options.seed,
        )
    _logger.info("wrote %s", options.out)


if __name__ == "__main__":
    main()
