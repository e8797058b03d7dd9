"""A drawn chest radiograph, for tests and examples: no film of a person is needed.

The picture is composed the way a radiograph is made: every organ adds or takes away attenuation,
and the sum is turned into grey. Bone and the heart come out bright, the lungs and the air outside
dark. Coordinates run from -1 to 1, x to the right and y downwards; as on a film seen from the
front, the heart lies to the right of the middle.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Field = NDArray[np.float64]

_RIBS = 9


def draw_chest_phantom(size: int = 256, seed: int = 0) -> NDArray[np.uint8]:
    """Draw a frontal chest radiograph, ``(size, size)`` uint8; the seed varies the anatomy."""
    rng = np.random.default_rng(seed)
    axis = np.linspace(-1.0, 1.0, size)
    x, y = np.meshgrid(axis / rng.uniform(0.94, 1.04), axis / rng.uniform(0.96, 1.04))
    x = x + rng.uniform(-0.03, 0.03)

    body = _body(x, y)
    lungs = _lungs(x, y, rng)
    attenuation = 0.60 * body - 0.44 * lungs
    attenuation += 0.42 * _heart(x, y, rng) * (0.25 + 0.75 * lungs)
    attenuation += _mediastinum(x, y) * body
    attenuation += _vessels(size, rng) * lungs
    attenuation += _ribs(x, y, rng) * body
    attenuation += _clavicles(x, y, rng) * body + _scapulae(x, y) * body
    attenuation += _texture(size, rng) * body
    attenuation -= 0.16 * _inside(_ellipse(x, y, 0.40, 0.83, 0.17, 0.08), 0.05)

    noise = _smooth(rng.normal(0.0, 1.0, (size, size)), size / 420)
    grey = 0.03 + 1.02 * attenuation + 0.014 * noise / noise.std()
    pixels: NDArray[np.uint8] = (255 * np.clip(grey, 0.0, 1.0)).round().astype(np.uint8)
    return pixels


def _inside(distance: Field, softness: float) -> Field:
    """1 where ``distance`` is negative, 0 where it is positive, with a soft edge between."""
    share: Field = 1.0 / (1.0 + np.exp(np.clip(distance / softness, -30.0, 30.0)))
    return share


def _ellipse(x: Field, y: Field, x0: float, y0: float, width: float, height: float) -> Field:
    radius = np.hypot((x - x0) / width, (y - y0) / height)
    distance: Field = (radius - 1.0) * min(width, height)
    return distance


def _tube(distance: Field, width: float | Field) -> Field:
    """Draw a hollow bone seen from the side: a soft band whose two edges are a little brighter."""
    ratio = np.abs(distance) / width
    return _inside(ratio - 1.0, 0.12) * (0.62 + 0.38 * np.clip(ratio, 0.0, 1.0) ** 2)


def _smooth(field: Field, radius: float) -> Field:
    image = Image.fromarray(field.astype(np.float32))
    channel = np.asarray(image, dtype=np.float64)
    low, span = channel.min(), max(float(np.ptp(channel)), 1e-9)
    levels = Image.fromarray((255 * (channel - low) / span).astype(np.uint8))
    blurred = levels.filter(ImageFilter.GaussianBlur(radius))
    restored: Field = np.asarray(blurred, dtype=np.float64) / 255 * span + low
    return restored


def _body(x: Field, y: Field) -> Field:
    shoulder = -0.96 + 0.46 * np.clip(np.abs(x) - 0.30, 0.0, None) ** 1.6
    shoulder -= 0.5 * _inside(np.abs(x) - 0.24, 0.025)
    trunk = _inside(shoulder - y, 0.030)
    flank = _inside(np.abs(x) - (0.93 + 0.05 * np.cos(3 * y)), 0.018)
    arms = 0.75 * _inside(np.abs(x) - 1.3, 0.05) * _inside(-y - 0.15, 0.12)
    sides: Field = np.clip(flank + arms * _inside(y - 0.1, 0.15), 0.0, 1.0)
    return trunk * sides


def _lungs(x: Field, y: Field, rng: np.random.Generator) -> Field:
    total = np.zeros_like(x)
    for side in (-1.0, 1.0):
        u = x * side
        apex, dome = rng.uniform(-0.84, -0.79), rng.uniform(0.43, 0.52) + 0.05 * side
        depth = np.clip((y - apex) / 1.15, 0.0, 1.0)
        lateral = 0.30 + 0.50 * np.sin(0.5 * np.pi * depth) ** 0.8 - 0.30 * (1 - depth) ** 8
        medial = 0.13 + 0.05 * np.cos(2.2 * y) ** 2
        diaphragm = dome + 0.85 * np.clip(np.abs(u - 0.40), 0.0, 1.0) ** 1.9
        roof = apex + 2.6 * (u - 0.30) ** 2
        shape = _inside(u - lateral, 0.018) * _inside(medial - u, 0.022)
        shape *= _inside(y - diaphragm, 0.016) * _inside(roof - y, 0.03)
        total += shape * (0.90 + 0.10 * np.clip(depth * 2, 0.0, 1.0))
    return total


def _heart(x: Field, y: Field, rng: np.random.Generator) -> Field:
    width = rng.uniform(0.30, 0.36)
    turned_x, turned_y = x - 0.14 + 0.30 * (y - 0.3), y - 0.30 - 0.25 * (x - 0.14)
    ventricle = _inside(_ellipse(x - 0.42 * (y - 0.28), y, 0.15, 0.28, width, 0.31), 0.022)
    atrium = _inside(_ellipse(turned_x, turned_y, -0.20, 0.02, 0.17, 0.22), 0.025)
    aorta = _inside(_ellipse(x, y, 0.13, -0.30, 0.11, 0.11), 0.018)
    trunk = _inside(_ellipse(x, y, 0.14, -0.08, 0.12, 0.16), 0.03)
    shadow: Field = np.maximum.reduce([ventricle, 0.8 * atrium, 0.75 * aorta, 0.7 * trunk])
    return shadow


def _mediastinum(x: Field, y: Field) -> Field:
    band = 0.10 * _inside(np.abs(x) - 0.15, 0.05)
    gaps = 0.5 + 0.5 * np.cos(2 * np.pi * (y + 1.0) / 0.155)
    spine = (0.07 + 0.035 * gaps**2) * _inside(np.abs(x) - 0.085 - 0.012 * gaps, 0.012)
    airway = _inside(np.abs(x + 0.01) - 0.042, 0.012) * _inside(y + 0.26, 0.05)
    belly = 0.12 * _inside(0.62 - y, 0.12)
    return band + spine + belly - 0.13 * airway


def _ribs(x: Field, y: Field, rng: np.random.Generator) -> Field:
    total = np.zeros_like(x)
    spacing = rng.uniform(0.158, 0.172)
    for side in (-1.0, 1.0):
        u = np.clip(x * side, 0.0, None)
        for number in range(_RIBS):
            start = -0.80 + spacing * number + rng.uniform(-0.008, 0.008)
            reach = 0.44 + 0.40 * np.sin(0.5 * np.pi * min(1.0, (number + 0.6) / 5.0))
            bend = u / reach
            posterior = start - 0.11 * np.sin(np.pi * bend) + 0.10 * bend + 0.26 * bend**5
            ends = _inside(u - reach * 1.02, 0.012) * _inside(0.07 - u, 0.02)
            ends *= 1.0 - 0.75 * _inside(0.50 - y + 0.25 * u, 0.06)
            total += 0.115 * _tube(y - posterior, 0.026) * ends
            anterior = start + 0.58 - 0.30 * bend**1.6
            ends = _inside(u - reach, 0.02) * _inside(0.34 - u, 0.05) * _inside(y - 0.62, 0.05)
            total += 0.055 * _tube(y - anterior, 0.034) * ends
    return total


def _clavicles(x: Field, y: Field, rng: np.random.Generator) -> Field:
    total = np.zeros_like(x)
    for side in (-1.0, 1.0):
        u = x * side
        level = rng.uniform(-0.66, -0.62)
        curve = level - 0.20 * np.clip(u - 0.1, 0.0, None) + 0.035 * np.sin(7.0 * u)
        ends = _inside(u - 0.80, 0.02) * _inside(0.09 - u, 0.015)
        total += 0.20 * _tube(y - curve, 0.032 + 0.012 * np.exp(-(((u - 0.1) / 0.1) ** 2))) * ends
    return total


def _scapulae(x: Field, y: Field) -> Field:
    u = np.abs(x)
    blade = _inside(_ellipse(u + 0.35 * y, y, 0.70, -0.36, 0.15, 0.34), 0.02)
    joint = _inside(_ellipse(u, y, 0.93, -0.66, 0.12, 0.12), 0.02)
    return 0.07 * blade + 0.15 * joint


def _vessels(size: int, rng: np.random.Generator) -> Field:
    """Draw branches that leave the hila and thin out towards the edge of the lungs."""
    image = Image.new("L", (size, size))
    pen = ImageDraw.Draw(image)
    for side in (-1.0, 1.0):
        for _ in range(16):
            heading = rng.uniform(-1.25, 1.25)
            _branch(pen, (side * 0.20, -0.04), side, heading, 0.030, rng)
    soft = image.filter(ImageFilter.GaussianBlur(size / 190))
    brightness: Field = np.asarray(soft, dtype=np.float64)
    return 0.30 * brightness / 255


def _branch(
    pen: ImageDraw.ImageDraw,
    start: tuple[float, float],
    side: float,
    heading: float,
    width: float,
    rng: np.random.Generator,
) -> None:
    size = pen.im.size[0]
    (x, y), strength = start, 150.0
    while width > 0.004:
        end = (x + side * 0.06 * np.cos(heading), y + 0.06 * np.sin(heading))
        line = [((value + 1) / 2 * size) for value in (x, y, *end)]
        pen.line(line, fill=int(strength), width=max(1, round(width / 2 * size)))
        if width < 0.02 and rng.random() < 0.35:
            _branch(pen, end, side, heading + rng.choice((-0.7, 0.7)), 0.6 * width, rng)
        (x, y), width, strength = end, 0.82 * width, 0.90 * strength
        heading += rng.normal(0.0, 0.16)


def _texture(size: int, rng: np.random.Generator) -> Field:
    coarse = _smooth(rng.normal(0.0, 1.0, (size, size)), size / 24)
    fine = _smooth(rng.normal(0.0, 1.0, (size, size)), size / 120)
    texture: Field = 0.014 * coarse / coarse.std() + 0.010 * fine / fine.std()
    return texture
