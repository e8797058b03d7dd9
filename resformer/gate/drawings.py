"""Pictures that are no chest X-ray, drawn from random numbers, to show the gate what to refuse.

They cover the ways in which a picture can differ from a film rather than the things in the world:
spectrum (noise whose power falls as ``1 / f ** a``), occlusion (the dead leaves of Lee, Mumford
and Huang, IJCV 2001, whose statistics are those of photographs), print, flat shapes, gratings,
bodies that absorb rays (limbs) and sections of bodies (scans).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from resformer.gate.bodies import draw_joint, draw_limbs, draw_section
from resformer.gate.canvas import Pixels, coloured_noise, make_grid, to_pixels

_WORDS = ["chest", "film", "of", "the", "report", "patient", "finding", "date", "2019", "37.5"]


def draw_outlier(size: int, rng: np.random.Generator) -> Pixels:
    """Draw a picture ``(size, size)`` of a kind taken at random."""
    return DRAWINGS[rng.choice(list(DRAWINGS))](size, rng)


def _draw_noise(size: int, rng: np.random.Generator) -> Pixels:
    """White noise to clouds."""
    return to_pixels(coloured_noise(size, rng, rng.uniform(0.0, 4.0)))


def _draw_gradient(size: int, rng: np.random.Generator) -> Pixels:
    """A ramp or a glow, with a little noise."""
    x, y = make_grid(size)
    angle, centre = rng.uniform(0, 2 * np.pi), rng.uniform(-0.8, 0.8, 2)
    if rng.random() < 0.5:
        ramp = np.cos(angle) * x + np.sin(angle) * y
    else:
        stretch = rng.uniform(0.5, 2.0)
        ramp = rng.choice([-1, 1]) * np.hypot(x - centre[0], stretch * (y - centre[1]))
    noise = rng.uniform(0, 0.3) * coloured_noise(size, rng, rng.uniform(0, 2))
    return to_pixels(ramp + noise)


def _draw_grating(size: int, rng: np.random.Generator) -> Pixels:
    """Stripes, checks or rings, sharp or smooth."""
    x, y = make_grid(size)
    angle, bend = rng.uniform(0, np.pi), rng.choice([0.0, 0.3]) * rng.normal()
    u = np.cos(angle) * x + np.sin(angle) * y + bend * np.sin(3 * y)
    v = -np.sin(angle) * x + np.cos(angle) * y
    waves = np.pi * rng.uniform(1.0, 16.0)
    pattern = np.sin(waves * u + rng.uniform(0, 7))
    match rng.integers(3):
        case 0:
            pattern = pattern * np.sin(waves * v + rng.uniform(0, 7))
        case 1:
            pattern = np.sin(waves * np.hypot(x - rng.normal(0, 0.4), y - rng.normal(0, 0.4)))
    if rng.random() < 0.5:
        pattern = np.sign(pattern)
    return to_pixels(pattern + rng.uniform(0, 0.4) * coloured_noise(size, rng, 1.0))


def _draw_text(size: int, rng: np.random.Generator) -> Pixels:
    """A page, a form or a label: lines of words, rules and boxes."""
    paper, ink = (255, 0) if rng.random() < 0.75 else (0, 255)
    page = Image.new("L", (2 * size, 2 * size), int(abs(paper - rng.integers(60))))
    pen = ImageDraw.Draw(page)
    height = int(rng.integers(8, 48))
    font = ImageFont.load_default(height)
    margin = int(rng.integers(0, size // 3))
    top = margin + int(rng.integers(0, height))
    while top < 2 * size - margin:
        if rng.random() < 0.85:
            words = " ".join(rng.choice(_WORDS, rng.integers(1, 14)))
            pen.text((margin, top), words, fill=ink, font=font)
        if rng.random() < 0.15:
            pen.line((margin, top, 2 * size - margin, top), fill=ink, width=2)
        top += int(height * rng.uniform(1.0, 2.0))
    if rng.random() < 0.3:
        pen.rectangle(_random_box(2 * size, rng), outline=ink, width=3)
    return np.asarray(page.rotate(rng.normal(0, 3), fillcolor=paper).resize((size, size)))


def _draw_shapes(size: int, rng: np.random.Generator) -> Pixels:
    """Flat shapes on a flat ground: logos, charts, icons, windows of a screen."""
    picture = Image.new("L", (size, size), int(rng.integers(256)))
    pen = ImageDraw.Draw(picture)
    for _ in range(rng.integers(1, 25)):
        grey, box = int(rng.integers(256)), _random_box(size, rng)
        match rng.integers(4):
            case 0:
                pen.ellipse(box, fill=grey)
            case 1:
                pen.rectangle(box, fill=grey)
            case 2:
                pen.polygon(rng.uniform(0, size, (rng.integers(3, 7), 2)).ravel().tolist(), grey)
            case _:
                pen.line(box, fill=grey, width=int(rng.integers(1, 8)))
    if rng.random() < 0.3:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 8.0)))
    return np.asarray(picture)


def _draw_leaves(size: int, rng: np.random.Generator) -> Pixels:
    """Dead leaves: textured discs and boxes of all sizes, each hiding what lies below."""
    canvas = coloured_noise(size, rng, 2.0)
    grain = coloured_noise(size, rng, rng.uniform(0.0, 2.0))
    x, y = (axis.astype(np.float32) for axis in make_grid(size))
    smallest, flat = rng.uniform(0.03, 0.2), rng.random() < 0.5
    turn = rng.uniform(0, np.pi) if rng.random() < 0.5 else 0.0
    for _ in range(rng.integers(20, 80)):
        radius = smallest * rng.random() ** -0.5
        angle = turn * rng.integers(4)
        u, v = x - rng.uniform(-1.2, 1.2), y - rng.uniform(-1.2, 1.2)
        u, v = np.cos(angle) * u + np.sin(angle) * v, np.cos(angle) * v - np.sin(angle) * u
        v = v * rng.uniform(0.4, 2.5)
        inside = (np.maximum(abs(u), abs(v)) if flat else np.hypot(u, v)) < radius
        shade = rng.normal() + rng.normal(0, 0.6) * u[inside] / radius
        canvas[inside] = shade + rng.uniform(0, 0.4) * grain[inside]
    picture = Image.fromarray(to_pixels(canvas))
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.5))))


DRAWINGS: dict[str, Callable[[int, np.random.Generator], Pixels]] = {
    "noise": _draw_noise,
    "gradient": _draw_gradient,
    "grating": _draw_grating,
    "text": _draw_text,
    "shapes": _draw_shapes,
    "leaves": _draw_leaves,
    "limbs": draw_limbs,
    "joint": draw_joint,
    "section": draw_section,
}


def _random_box(size: int, rng: np.random.Generator) -> tuple[float, float, float, float]:
    x, y = np.sort(rng.uniform(-0.1 * size, 1.1 * size, (2, 2)), axis=1)
    return float(x[0]), float(y[0]), float(x[1]), float(y[1])
