"""Pictures that are no chest X-ray, drawn from random numbers, to show the gate what to refuse.

They cover the ways in which a picture can differ from a film rather than the things in the world:
spectrum (noise whose power falls as ``1 / f ** a``), occlusion (the dead leaves of Lee, Mumford
and Huang, IJCV 2001, whose statistics are those of photographs), print, flat shapes, gratings,
and what else is X-rayed or scanned: limbs, joints and sections of bodies. :data:`DRAWINGS` has
them by name; each maps a side in pixels and a random generator to ``(size, size)`` uint8.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

Pixels = NDArray[np.uint8]
Field = NDArray[np.float64]

_WORDS = ["chest", "film", "of", "the", "report", "patient", "finding", "date", "2019", "37.5"]


def _draw_noise(size: int, rng: np.random.Generator) -> Pixels:
    """White noise to clouds."""
    return to_pixels(coloured_noise(size, rng, rng.uniform(0.0, 4.0)))


def _draw_gradient(size: int, rng: np.random.Generator) -> Pixels:
    """Draw a ramp or a glow, with a little noise."""
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
    """Draw a page, a form or a label: lines of words, rules and boxes."""
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


def _draw_limbs(size: int, rng: np.random.Generator) -> Pixels:
    """Draw radiographs of limbs: tapering bones with bright edges inside soft tissue, on air."""
    x, y = make_grid(size)
    absorbed = np.zeros((size, size))
    for _ in range(rng.integers(1, 4)):
        angle, offset = rng.uniform(0, np.pi), rng.normal(0, 0.35)
        along = np.cos(angle) * x + np.sin(angle) * y
        across = np.cos(angle) * y - np.sin(angle) * x - offset
        across = across - rng.normal(0, 0.15) * along**2
        length = rng.uniform(0.5, 2.0)
        taper = 1 + rng.normal(0, 0.3) * along + rng.uniform(0, 0.8) * (along / length) ** 4
        flesh, bone = rng.uniform(0.2, 0.9) * taper, rng.uniform(0.06, 0.3) * taper
        ends = 1 / (1 + np.exp(np.clip(40 * (abs(along) - length), -30, 30)))
        absorbed += rng.uniform(0.2, 0.8) * _chord(across, flesh)
        for shift in rng.normal(0, 0.25, rng.integers(1, 4)):
            shell = _chord(across - shift, bone) - 0.8 * _chord(across - shift, 0.75 * bone)
            absorbed += rng.uniform(0.3, 1.2) * ends * (shell + 0.2 * _chord(across, bone))
    absorbed += rng.uniform(0, 0.06) * coloured_noise(size, rng, rng.uniform(0, 2))
    return to_pixels(absorbed, rng.uniform(0.6, 1.2))


def _draw_joint(size: int, rng: np.random.Generator) -> Pixels:
    """Draw radiographs of a joint: bones that widen towards a dark gap, in soft tissue, on air."""
    x, y = make_grid(size)
    angle = rng.normal(0, 0.15) if rng.random() < 0.7 else rng.uniform(0, np.pi)
    along, across = np.cos(angle) * y + np.sin(angle) * x, np.cos(angle) * x - np.sin(angle) * y
    absorbed = np.zeros((size, size))
    for middle in rng.normal(0, 0.08, 1) if rng.random() < 0.75 else (-0.5, 0.5):
        narrow = 1.0 if abs(middle) < 0.3 else 0.5
        place = along - rng.normal(0, 0.2)
        swelling = np.exp(-((place / rng.uniform(0.2, 0.6)) ** 2))
        side = across - middle - rng.normal(0, 0.05) * along
        flesh = narrow * rng.uniform(0.5, 1.1) * (1 + rng.uniform(-0.1, 0.35) * swelling)
        bone = narrow * rng.uniform(0.2, 0.4) * (1 + rng.uniform(0.3, 1.1) * swelling)
        gap = place + rng.uniform(0.0, 0.15) * np.cos(np.pi * side / bone)
        opening = 1 - rng.uniform(0.4, 1.0) * np.exp(-((gap / rng.uniform(0.02, 0.06)) ** 2))
        hollow = rng.uniform(0.3, 0.9) * _chord(side, 0.8 * bone)
        absorbed += rng.uniform(0.5, 1.5) * _chord(side, flesh)
        absorbed += rng.uniform(0.4, 1.2) * opening * (_chord(side, bone) - 0.5 * hollow)
        if rng.random() < 0.5:
            thin = rng.uniform(0.04, 0.12) * narrow
            absorbed += 0.4 * (place > 0.15) * _chord(side - rng.choice([-1, 1]) * bone, thin)
    absorbed *= 1 + rng.uniform(0, 0.06) * coloured_noise(size, rng, rng.uniform(1, 3))
    return to_pixels(absorbed, rng.uniform(0.7, 1.6))


def _draw_section(size: int, rng: np.random.Generator) -> Pixels:
    """Draw sections of a body: nested ovals of even grey with organs in them, on black or white."""
    x, y = make_grid(size)
    angle, aspect = rng.normal(0, 0.3), rng.uniform(0.65, 1.5)
    u, v = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    wobble = 1 + 0.06 * coloured_noise(size, rng, 4.0)
    radius = np.hypot(u, v * aspect) * wobble / rng.uniform(0.6, 1.0)
    canvas = np.where(radius < 1, rng.uniform(0.1, 0.9), 0.0)
    canvas[(radius < 0.97) & (radius > 0.97 - rng.uniform(0.0, 0.2))] = rng.uniform(0, 1.2)
    for _ in range(rng.integers(1, 12)):
        centre, extent = rng.normal(0, 0.35, 2), rng.uniform(0.04, 0.45, 2)
        for side in (-1, 1) if rng.random() < 0.5 else (1,):
            organ = np.hypot((u - side * centre[0]) / extent[0], (v - centre[1]) / extent[1])
            canvas[(organ * wobble < 1) & (radius < 0.95)] = rng.uniform(0, 1)
    texture = rng.uniform(0, 0.12) * coloured_noise(size, rng, rng.uniform(0.5, 3))
    canvas += texture * (radius < 1) + 0.01 * rng.normal(size=(size, size))
    return to_pixels(-canvas if rng.random() < 0.1 else canvas)


DRAWINGS: dict[str, Callable[[int, np.random.Generator], Pixels]] = {
    "noise": _draw_noise,
    "gradient": _draw_gradient,
    "grating": _draw_grating,
    "text": _draw_text,
    "shapes": _draw_shapes,
    "leaves": _draw_leaves,
    "limbs": _draw_limbs,
    "joint": _draw_joint,
    "section": _draw_section,
}


def coloured_noise(size: int, rng: np.random.Generator, steepness: float) -> Field:
    """Return noise ``(size, size)`` of mean 0 and deviation 1, of power ``1 / f**steepness``."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.normal(size=(size, size))) * frequency ** (-steepness / 2)
    noise = np.fft.irfft2(spectrum, s=(size, size))
    standardised: Field = noise / noise.std()
    return standardised


def make_grid(size: int) -> tuple[Field, Field]:
    """Return x to the right and y downwards, both from -1 to 1, ``(size, size)``."""
    axis = np.linspace(-1.0, 1.0, size)
    x, y = np.meshgrid(axis, axis)
    return x, y


def to_pixels(values: Field, gamma: float = 1.0) -> Pixels:
    """Stretch values to the whole range of 8 bits."""
    span = max(float(values.max() - values.min()), 1e-9)
    pixels: Pixels = (255 * ((values - values.min()) / span) ** gamma).round().astype(np.uint8)
    return pixels


def _chord(distance: Field, radius: Field | float) -> Field:
    """Return the length of a ray's way through a rod of that radius, 1 through its middle."""
    share: Field = np.sqrt(np.clip(1 - (distance / radius) ** 2, 0, None))
    return share


def _random_box(size: int, rng: np.random.Generator) -> tuple[float, float, float, float]:
    x, y = np.sort(rng.uniform(-0.1 * size, 1.1 * size, (2, 2)), axis=1)
    return float(x[0]), float(y[0]), float(x[1]), float(y[1])
