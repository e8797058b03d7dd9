"""The colours reach WCAG 2.2 AA: 4.5 to 1 for text, 3 to 1 for what else must be seen."""

from __future__ import annotations

import re

import pytest

from tests.web.serving import ROOT

TEXT, GRAPHIC = 4.5, 3.0
PAIRS = [
    *[("ink", back, TEXT) for back in ("page", "surface")],
    *[("muted", back, TEXT) for back in ("page", "surface")],
    *[("accent", back, TEXT) for back in ("page", "surface")],
    *[("ink", f"heat-{level}", TEXT) for level in range(4)],
    *[("on-accent", f"heat-{level}", TEXT) for level in (4, 5)],
    *[(front, "film-raised", TEXT) for front in ("film-ink", "film-muted")],
    ("film-accent", "film-raised", GRAPHIC),
    ("edge", "film-raised", GRAPHIC),
    ("edge", "surface", GRAPHIC),
    ("second", "surface", GRAPHIC),
    ("on-accent", "accent", TEXT),
    ("on-accent", "accent-hover", TEXT),
    ("danger", "danger-surface", TEXT),
    ("caution", "caution-surface", TEXT),
    ("caution", "surface", TEXT),
    ("film-ink", "film", TEXT),
    ("film-muted", "film", TEXT),
    ("film-accent", "film", GRAPHIC),
    ("edge", "film", GRAPHIC),
    ("bar", "surface", GRAPHIC),
    ("bar", "track", GRAPHIC),
    ("accent", "track", GRAPHIC),
    ("accent", "danger-surface", GRAPHIC),
    *[("focus", back, GRAPHIC) for back in ("page", "surface", "danger-surface")],
]


def read_themes() -> dict[str, dict[str, str]]:
    """Colours by name, in light and in dark."""
    text = (ROOT / "static/css/tokens.css").read_text(encoding="utf-8")
    light, dark = text.split("@media (prefers-color-scheme: dark)")
    pattern = re.compile(r"--([a-z0-9-]+): (#[0-9a-f]{6});")
    return {
        "light": dict(pattern.findall(light)),
        "dark": {**dict(pattern.findall(light)), **dict(pattern.findall(dark))},
    }


def luminance(colour: str) -> float:
    """Relative luminance of `#rrggbb` by WCAG."""
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(first: str, second: str) -> float:
    """Contrast of two colours, from 1 to 21."""
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_computed_as_wcag_does() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(("front", "back", "needed"), PAIRS)
def test_colours_can_be_told_apart(theme: str, front: str, back: str, needed: float) -> None:
    colours = read_themes()[theme]
    assert contrast(colours[front], colours[back]) >= needed


def test_only_the_tokens_hold_colours() -> None:
    for path in (ROOT / "static/css").glob("*.css"):
        if path.name != "tokens.css":
            assert re.findall(r"#[0-9a-f]{3,8}\b", path.read_text(encoding="utf-8")) == [], path
