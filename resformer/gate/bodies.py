"""Drawings of what else is X-rayed or scanned: limbs, joints, and sections of bodies."""

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


def draw_joint(size: int, rng: np.random.Generator) -> Pixels:
    """Radiographs of a joint: bones that widen towards a dark gap, in soft tissue, on air."""
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


def _chord(distance: Field, radius: Field | float) -> Field:
    """Return the length of a ray's way through a rod of that radius, 1 through its middle."""
    share: Field = np.sqrt(np.clip(1 - (distance / radius) ** 2, 0, None))
    return share
