"""What the browser tests do again and again."""

from __future__ import annotations

import base64

from playwright.sync_api import FilePayload, Page, Route, expect

from tests.web.conftest import encode


def image(name: str = "film.png", data: bytes | None = None) -> FilePayload:
    """A file as Playwright hands it to a file chooser."""
    content = encode(300) if data is None else data
    return {"name": name, "mimeType": "image/png", "buffer": content}


def choose(page: Page, file: FilePayload) -> None:
    page.set_input_files("#file", [file])


def expect_result(page: Page) -> None:
    expect(page.locator("#result")).to_have_attribute("data-state", "done")
    expect(page.locator("#result")).to_have_attribute("aria-busy", "false")


def answer_for(route: Route, shares: dict[str, float]) -> None:
    best = max(shares, key=shares.__getitem__)
    prediction = {
        "predicted_class": best,
        "confidence": shares[best],
        "all_probabilities": shares,
    }
    picture = base64.b64encode(encode()).decode()
    route.fulfill(json={"success": True, "prediction": prediction, "image": picture})


def boxes(page: Page, *selectors: str) -> list[dict[str, float]]:
    """Where parts of the page are, all at one moment: it may still be scrolling."""
    found: list[dict[str, float]] = page.evaluate(
        "all => all.map((one) => document.querySelector(one).getBoundingClientRect().toJSON())",
        list(selectors),
    )
    return found
