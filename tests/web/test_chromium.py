"""A missing browser is a skip on a person's machine and a failure in CI."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Error

from tests.web.browser import chromium_or_skip, find_chromium


def test_the_browser_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESFORMER_CHROMIUM", "/opt/my-browser")
    assert find_chromium() == "/opt/my-browser"


def test_without_any_browser_playwright_looks_for_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("RESFORMER_CHROMIUM", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_chromium() is None


@pytest.mark.parametrize(("ci", "outcome"), [("true", Error), ("", pytest.skip.Exception)])
def test_missing_browser(
    ci: str, outcome: type[BaseException], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RESFORMER_CHROMIUM", str(tmp_path / "none"))
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome), chromium_or_skip():
        pass
