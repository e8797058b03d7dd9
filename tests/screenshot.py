"""Captures the page for its own drawn sample: ``python -m tests.screenshot FOLDER``.

``screenshot.png`` is the result, ``explanation.png`` the same with the evidence laid over the film.
Where the gate refuses the drawing, it is analysed as a person would go on, and the warning shows.
"""

from __future__ import annotations

import argparse
import io
import logging
import tempfile
from pathlib import Path
from typing import Literal

from PIL import Image
from playwright.sync_api import Page

from resformer import find_shipped_model
from tests.web.browser import open_chromium
from tests.web.serving import run_app
from web.config import PROJECT_ROOT

Theme = Literal["light", "dark"]

_logger = logging.getLogger(__name__)


def capture(url: str, folder: Path, *, width: int, height: int, theme: Theme) -> list[Path]:
    """Open the page, try the sample, save what a person sees and return the files."""
    with open_chromium() as browser:
        page = browser.new_page(
            viewport={"width": width, "height": height},
            color_scheme=theme,
            reduced_motion="reduce",
        )
        page.goto(url)
        page.click("#sample")
        page.wait_for_selector("#result:is([data-state=done], [data-state=refused])")
        if page.locator("#refusal").is_visible():
            _logger.warning("the gate refused the drawing: it is analysed anyway")
            page.click("#force")
            page.wait_for_selector("#result[data-state=done]")
        result = _save(page, folder / "screenshot.png")
        page.click("#show-why")
        page.wait_for_selector("#overlay:not([hidden])")
        page.wait_for_function("document.getElementById('overlay').complete")
        return [result, _save(page, folder / "explanation.png", "#workbench")]


def _save(page: Page, path: Path, part: str = "") -> Path:
    """Save the window from its top, or a part of the page, with few colours to keep it small."""
    page.evaluate("scrollTo(0, 0)")
    data = page.locator(part).screenshot() if part else page.screenshot()
    with Image.open(io.BytesIO(data)) as picture:
        small = picture.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=2)
        small.save(path, optimize=True)
    return path


def main() -> None:
    """Read the options and capture."""
    parser = argparse.ArgumentParser(prog="tests.screenshot", description=__doc__)
    parser.add_argument(
        "folder", type=Path, nargs="?", default=PROJECT_ROOT / "docs", help="where to write them"
    )
    parser.add_argument(
        "--model", type=Path, default=find_shipped_model(), help="checkpoint to serve"
    )
    parser.add_argument("--theme", choices=("light", "dark"), default="light")
    parser.add_argument("--width", type=int, default=1200, help="of the window, in pixels")
    parser.add_argument("--height", type=int, default=830, help="of the window, in pixels")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with (
        tempfile.TemporaryDirectory() as folder,
        run_app(options.model.resolve(), Path(folder) / "log.txt") as running,
    ):
        files = capture(
            running.url,
            options.folder,
            width=options.width,
            height=options.height,
            theme=options.theme,
        )
    for file in files:
        _logger.info("wrote %s, %d kB", file, file.stat().st_size // 1000)


if __name__ == "__main__":
    main()
