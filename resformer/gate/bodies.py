"""Drawings of what else is X-rayed or scanned: limbs, and sections of bodies."""

from __future__ import annotations

import numpy as np

from resformer.gate.canvas import Field, Pixels, coloured_noise, make_grid, to_pixels


def draw_limbs(size: int, rng: np.random.Generator) -> Pixels:
    """Radiographs of limbs: tapering bones with bright edges inside soft tissue, on air."""
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


def draw_section(size: int, rng: np.random.Generator) -> Pixels:
    """Sections of a body: nested ovals of even grey with organs in them, on black or white."""
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


def _chord(distance: Field, radius: Field) -> Field:
    """Return the length of a ray's way through a rod of that radius, 1 through its middle."""
    share: Field = np.sqrt(np.clip(1 - (distance / radius) ** 2, 0, None))
    return share
