"""Near-duplicates: found through crops, shifts and exposure; strangers left apart."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from resformer.data import duplicates
from tests.data_sets import draw_texture, encode

Pixels = NDArray[np.uint8]


def _group(images: list[Pixels], threshold: float = duplicates.DUPLICATE_CORRELATION) -> list[int]:
    prints = [duplicates.fingerprint(pixels) for pixels in images]
    digests = [str(index) for index in range(len(images))]
    return [int(g) for g in duplicates.group_duplicates(prints, digests, threshold=threshold)]


def _exposed_otherwise(pixels: Pixels) -> Pixels:
    return (255 * (pixels / 255) ** 1.8 * 0.6 + 30).astype(np.uint8)


def _cropped(pixels: Pixels) -> Pixels:
    return np.asarray(Image.fromarray(pixels[8:-4, 2:-10]).resize((300, 300)))


def _stretched(pixels: Pixels) -> Pixels:
    return np.asarray(Image.fromarray(pixels[7:-7]).resize((128, 128)))


def _shifted(pixels: Pixels) -> Pixels:
    return np.pad(pixels, ((10, 0), (0, 6)))[:-10, 6:]


def _compressed(pixels: Pixels) -> Pixels:
    small = Image.fromarray(pixels).resize((80, 80))
    data = encode(np.asarray(small), "JPEG")
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize(
    "copy",
    [_exposed_otherwise, _cropped, _stretched, _shifted, _compressed],
    ids=lambda f: f.__name__,
)
def test_a_copy_is_grouped_with_its_film_and_strangers_are_not(
    copy: Callable[[Pixels], Pixels],
) -> None:
    films = [draw_texture(seed) for seed in range(12)]
    assert _group([*films, copy(films[3]), copy(films[7])]) == [*range(12), 3, 7]


def test_groups_hold_copies_of_copies_and_are_numbered_by_their_first_image() -> None:
    a, b, film = (draw_texture(seed) for seed in (5, 6, 1))
    copy = film[:, :-10]
    assert _group([a, film, b, copy, copy[8:, :]]) == [0, 1, 2, 1, 1]
    assert _group([b, a, a, b]) == [0, 1, 1, 0]
    many = [film // 2 + np.uint8(number) for number in range(40)]
    assert _group([a, *many, b]) == [0, *[1] * 40, 2]
    even = duplicates.fingerprint(np.full((64, 64), 90, dtype=np.uint8))
    equal = duplicates.group_duplicates([even] * 4, ["x", "y", "x", "z"])
    assert equal.tolist() == [0, 1, 0, 2]


def test_the_threshold_decides() -> None:
    film = draw_texture(1)
    noise = np.random.default_rng(0).normal(0, 25, film.shape)
    noisy = np.clip(film + noise, 0, 255).astype(np.uint8)
    details = [duplicates.fingerprint(pixels).detail for pixels in (film, noisy)]
    correlation = duplicates.aligned_correlation(*details)
    assert 0.6 < correlation < 1
    assert _group([film, noisy], threshold=correlation - 0.001) == [0, 0]
    assert _group([film, noisy], threshold=correlation + 0.001) == [0, 1]


def test_correlation_of_a_film_with_itself_its_negative_and_nothing() -> None:
    film = draw_texture(3)
    detail = duplicates.fingerprint(film).detail
    assert duplicates.aligned_correlation(detail, detail) == pytest.approx(1, abs=1e-3)
    assert duplicates.aligned_correlation(detail, duplicates.fingerprint(255 - film).detail) < 0.6
    nothing = duplicates.fingerprint(np.zeros((64, 64), dtype=np.uint8)).detail
    assert duplicates.aligned_correlation(detail, nothing) == 0
    assert duplicates.aligned_correlation(nothing, nothing) == 0


def test_candidates_are_found_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    prints = [duplicates.fingerprint(draw_texture(seed)) for seed in (0, 1, 2, 3, 4, 5, 6, 0)]
    whole = duplicates.candidate_pairs(prints)
    monkeypatch.setattr("resformer.data.duplicates._BLOCK", 3)
    assert duplicates.candidate_pairs(prints) == whole
    assert (0, 7) in whole
