"""What a training sees of a film: masks, augmentation, other surroundings and another style."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from resformer.data.augment import STRENGTHS, AugmentationConfig, FilmAugmentation
from resformer.data.dataset import NO_CLASS, FilmDataset, share_of_region
from resformer.data.find import JoinedRoot
from resformer.data.manifest import ManifestRow, build_manifest
from resformer.data.masks import RegionMasks, cache_masks
from resformer.data.surroundings import (
    BackgroundReplacement,
    LungConcealment,
    StyleExchange,
    blend,
    cumulated_levels,
    match_sharpness,
    match_tone,
    ring_strengths,
    soften,
    spectrum_rings,
)
from resformer.images import ImageError
from resformer.phantom import draw_chest_phantom
from resformer.transforms import InputSpec
from tests.data_sets import draw_texture, encode, write_data_set

Pixels = NDArray[np.uint8]

LUNGS = (slice(20, 60), slice(20, 60))


def _block(side: int) -> Pixels:
    """Draw a mask that is white in its upper left quarter."""
    mask = np.zeros((side, side), dtype=np.uint8)
    mask[: side // 2, : side // 2] = 255
    return mask


def _write_mask(root: Path, class_name: str, name: str, data: bytes) -> None:
    folder = root / class_name / "masks"
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(data)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes of four films; two of the first have a mask, one of another size."""
    root = write_data_set(tmp_path / "data", {"COVID": 4, "Normal": 4})
    _write_mask(root, "COVID", "COVID-001.png", encode(_block(128)))
    _write_mask(root, "COVID", "COVID-003.png", encode(_block(256)))
    infection = root / "COVID" / "infection masks"
    infection.mkdir()
    (infection / "COVID-000.png").write_bytes(encode(_block(128)))
    return root


@pytest.fixture(scope="module")
def films() -> Pixels:
    return np.stack([draw_texture(seed, 80) for seed in range(4)])


@pytest.fixture(scope="module")
def outlines(films: Pixels) -> Pixels:
    outlines = np.zeros_like(films)
    outlines[:, *LUNGS] = 255
    return outlines


def test_masks_are_found_beside_the_images_and_may_be_missing(root: Path, tmp_path: Path) -> None:
    manifest = build_manifest(root)
    masks = cache_masks(root, manifest.rows, 64, tmp_path / "cache")
    known = masks.known > 0
    assert [row.path for row, there in zip(manifest.rows, known, strict=True) if there] == [
        "COVID/images/COVID-001.png",
        "COVID/images/COVID-003.png",
    ]
    for mask in masks.masks[known]:
        np.testing.assert_array_equal(mask[:31, :31], 255)
        assert mask[33:].max() == mask[:, 33:].max() == 0
    assert masks.masks[~known].max() == 0
    _write_mask(root, "Normal", "Normal-001.png", encode(_block(128)))
    assert build_manifest(root) == manifest


def test_a_changed_mask_makes_a_new_array(root: Path, tmp_path: Path) -> None:
    rows = build_manifest(root).rows
    first = cache_masks(root, rows, 64, tmp_path / "cache")
    assert cache_masks(root, rows, 64, tmp_path / "cache").digest == first.digest
    _write_mask(root, "COVID", "COVID-001.png", encode(255 - _block(128)))
    second = cache_masks(root, rows, 64, tmp_path / "cache")
    assert second.digest != first.digest
    assert second.masks[1, 0, 0] == 0
    _write_mask(root, "COVID", "COVID-001.png", b"not an image")
    with pytest.raises(ImageError):
        cache_masks(root, rows, 64, tmp_path / "cache")


def test_masks_of_a_second_data_set_are_found(root: Path, tmp_path: Path) -> None:
    uploads = write_data_set(tmp_path / "uploads", {"COVID": 2, "Normal": 1})
    _write_mask(uploads, "COVID", "COVID-000.png", encode(_block(128)))
    rows = (
        ManifestRow("COVID/images/COVID-000.png", "COVID", 0, "train", "a" * 64),
        ManifestRow("data-2/COVID/images/COVID-000.png", "COVID", 1, "train", "b" * 64),
    )
    masks = cache_masks(JoinedRoot((root, uploads)), rows, 64, tmp_path / "cache")
    assert masks.known.tolist() == [0, 1]


def test_films_in_plain_class_folders_have_no_masks(tmp_path: Path) -> None:
    root = write_data_set(tmp_path / "data", {"COVID": 3, "Normal": 3}, folder=".")
    _write_mask(root, "COVID", "COVID-000.png", encode(_block(128)))
    rows = build_manifest(root).rows
    assert not cache_masks(root, rows, 64, tmp_path / "cache").known.any()


def test_a_film_brings_its_lungs_and_what_its_source_says(films: Pixels) -> None:
    blocks = np.stack([_block(80), _block(80) * 0])
    masks = RegionMasks(blocks, np.array([1, 0], np.float32), "digest")
    priors = np.log(np.array([[0.2, 0.8], [0.5, 0.5]], np.float32))
    spec = InputSpec(size=64)
    dataset = FilmDataset(films[:2], np.array([1, 0]), spec, masks=[masks], priors=priors)
    known, unknown = dataset[0, 0], dataset[0, 1]
    assert (known.label, known.known.tolist()) == (1, [1.0])
    assert known.prior.tolist() == priors[0].tolist()
    assert known.regions.shape == (1, 16, 16)
    assert known.regions[0, :7, :7].min() == 1
    assert known.regions[0, 9:].max() == 0
    assert (unknown.known.item(), unknown.regions.max().item()) == (0.0, 0.0)
    some = dataset.subset(np.array([1]))
    assert (len(some), some[0, 0].prior.tolist()) == (1, priors[1].tolist())


def test_a_share_of_lung_is_an_average_over_the_heads_grid() -> None:
    mask = np.zeros((64, 64), dtype=np.uint8)
    mask[:4, :2] = 255
    share = share_of_region(mask, 64)
    assert share.shape == (1, 16, 16)
    assert share[0, 0, 0] == share.sum() == 0.5


@pytest.mark.parametrize("strength", STRENGTHS)
def test_a_seed_gives_one_film_and_its_mask_goes_with_it(strength: str) -> None:
    """A film that is its own mask, and a strength whose changes of grey are then undone."""
    augment = FilmAugmentation(64, STRENGTHS[strength])
    film = np.full((80, 80), 40, dtype=np.uint8)
    mask = np.zeros((80, 80), dtype=np.uint8)
    film[20:50, 30:60], mask[20:50, 30:60] = 220, 255
    made, overlaps = set(), []
    for seed in range(40):
        varied, (moved,) = augment.vary(film, [mask], seed)
        assert varied.shape == moved.shape == (64, 64)
        np.testing.assert_array_equal(varied, augment(film, seed))
        bright = varied > (int(varied.min()) + int(varied.max())) / 2
        inside = moved > 127
        overlaps.append(2 * (bright & inside).sum() / (bright.sum() + inside.sum()))
        made.add(varied.tobytes())
    assert len(made) == 40
    # Holes and noise move single films; a mask that did not follow would move them all.
    assert np.median(overlaps) > 0.95


def test_strongest_varies_more_than_moderate(films: Pixels) -> None:
    def spread(strength: str) -> float:
        augment = FilmAugmentation(64, STRENGTHS[strength])
        return float(np.std([augment(films[0], seed).mean() for seed in range(60)]))

    moderate, strongest = map(spread, STRENGTHS)
    assert moderate < strongest


def test_whether_a_film_is_flipped_says_nothing_of_how_else_it_is_varied() -> None:
    """A flip is seen in the mask; brightness, noise and holes in a film that was flat before."""
    augment = FilmAugmentation(64)
    film, mask = np.full((80, 80), 128, np.uint8), np.zeros((80, 80), np.uint8)
    mask[:, :40] = 255
    flipped, varied = [], []
    for seed in range(400):
        picture, (moved,) = augment.vary(film, [mask], seed)
        flipped.append(moved[:, :32].mean() < moved[:, 32:].mean())
        varied.append([picture[28:36, 28:36].mean() != 128, len(np.unique(picture[20:44])) > 2])
    assert 0.4 < np.mean(flipped) < 0.6
    for column in np.array(varied, dtype=float).T:
        assert abs(np.corrcoef(flipped, column)[0, 1]) < 0.2


def test_films_that_are_not_cropped_are_shown_whole() -> None:
    """A disc keeps its share of a whole film; a crop of a third of the film enlarges it or not."""
    config = AugmentationConfig(scale=(1, 1), crop_area=(0.3, 0.3), crop_probability=0.25)
    augment = FilmAugmentation(64, config)
    y, x = np.mgrid[:80, :80] - 39.5
    disc = np.where(np.hypot(x, y) < 15, 255, 0).astype(np.uint8)
    shares = [augment.vary(disc, [disc], seed)[1][0].mean() / disc.mean() for seed in range(400)]
    whole = np.abs(np.array(shares) - 1) < 0.1
    assert 0.68 < whole.mean() < 0.82


def test_the_inside_of_the_lungs_is_left_as_it_is(films: Pixels, outlines: Pixels) -> None:
    replace = BackgroundReplacement(films, outlines, 1.0)
    for seed in range(30):
        film = replace(2, np.random.default_rng(seed))
        np.testing.assert_array_equal(film[LUNGS], films[2][LUNGS])
        assert (film[:8] != films[2, :8]).mean() > 0.5


def test_nothing_is_left_of_covered_lungs_and_all_of_what_is_far_from_them(
    films: Pixels, outlines: Pixels
) -> None:
    cover = LungConcealment(outlines, 1.0)
    for seed in range(30):
        first = cover(2, films[2], np.random.default_rng(seed))
        second = cover(2, films[3], np.random.default_rng(seed))
        assert first is not None
        assert second is not None
        np.testing.assert_array_equal(first[LUNGS], second[LUNGS])
        np.testing.assert_array_equal(first[:4], films[2, :4])


def test_surroundings_are_replaced_and_lungs_covered_as_often_as_said(
    films: Pixels, outlines: Pixels
) -> None:
    replace, cover = BackgroundReplacement(films, outlines, 0.3), LungConcealment(outlines, 0.3)
    made = [replace(0, np.random.default_rng(seed)) for seed in range(200)]
    assert 40 <= sum((film != films[0]).any() for film in made) <= 80
    again = [replace(0, np.random.default_rng(seed)) for seed in range(200)]
    np.testing.assert_array_equal(made, again)
    covered = [cover(0, films[0], np.random.default_rng(seed)) for seed in range(200)]
    assert 40 <= sum(film is not None for film in covered) <= 80
    never = BackgroundReplacement(films, outlines, 0.0)
    np.testing.assert_array_equal(never(0, np.random.default_rng(0)), films[0])


@pytest.mark.parametrize("area", [0, 5, 75])
def test_an_outline_that_can_be_no_lungs_changes_nothing(films: Pixels, area: int) -> None:
    outlines = np.zeros_like(films)
    outlines[:, :area, :area] = 255
    replace = BackgroundReplacement(films, outlines, 1.0)
    np.testing.assert_array_equal(replace(0, np.random.default_rng(0)), films[0])
    assert LungConcealment(outlines, 1.0)(0, films[0], np.random.default_rng(0)) is None


@pytest.mark.parametrize("probability", [-0.1, 1.5])
def test_what_is_impossible_is_refused(films: Pixels, probability: float) -> None:
    message = rf"probability must be in \[0, 1\], got {probability}"
    with pytest.raises(ValueError, match=message):
        BackgroundReplacement(films, films, probability)
    with pytest.raises(ValueError, match=message):
        LungConcealment(films, probability)
    with pytest.raises(ValueError, match=message):
        StyleExchange(films[:2], np.array([0, 1]), probability)
    with pytest.raises(ValueError, match="need one shape"):
        BackgroundReplacement(films, films[:1], 0.5)


def test_an_outline_is_widened_and_fades_out() -> None:
    outline = _block(80)
    weight = soften(outline, 0.05)
    assert weight.min() == 0
    assert (weight[outline > 127] == 1).all()
    assert 0 < weight[20, 43] < 1
    assert (np.diff(weight[20, 39:]) <= 0).all()
    film, other = np.full((80, 80), 200, np.uint8), np.full((80, 80), 100, np.uint8)
    mixed = blend(film, other, weight)
    np.testing.assert_array_equal(mixed, np.rint(100 + 100 * weight))


def test_a_film_without_lungs_brings_neither_class_nor_regions(
    films: Pixels, outlines: Pixels
) -> None:
    dataset = FilmDataset(
        films,
        np.array([3, 2, 1, 0]),
        InputSpec(size=64),
        masks=[RegionMasks(outlines, np.ones(4, dtype=np.float32), "digest")],
        concealment=LungConcealment(outlines, 0.5),
    )
    made = [dataset[epoch, 0] for epoch in range(20)]
    assert {(film.label, film.known.item()) for film in made} == {(3, 1.0), (NO_CLASS, 0.0)}


def _strengths(film: Pixels) -> NDArray[np.float64]:
    amplitude = np.abs(np.fft.rfft2(film.astype(np.float32)))
    return ring_strengths(amplitude, spectrum_rings(film.shape))


def test_a_film_matched_with_itself_stays_as_it_is() -> None:
    film = draw_chest_phantom(96, seed=1)
    np.testing.assert_array_equal(match_tone(film, cumulated_levels(film)), film)
    same = match_sharpness(film, _strengths(film), spectrum_rings(film.shape))
    assert np.abs(same.astype(int) - film).max() <= 1


def test_the_tone_of_a_curved_copy_is_taken_over_exactly() -> None:
    film = np.arange(96 * 96, dtype=np.int64).reshape(96, 96) % 251
    curved = (film**2 / 251).astype(np.uint8)
    matched = match_tone(film.astype(np.uint8), cumulated_levels(curved))
    assert np.abs(matched.astype(int) - curved).max() <= 1
    halfway = match_tone(film.astype(np.uint8), cumulated_levels(curved), 0.5)
    assert np.abs(halfway - (film + curved) / 2).max() <= 1


def test_a_blurred_film_becomes_as_sharp_as_the_sharp_one() -> None:
    rng = np.random.default_rng(0)
    sharp = np.clip(
        draw_chest_phantom(96, seed=2) / 2 + 64 + rng.normal(0, 8, (96, 96)), 0, 255
    ).astype(np.uint8)
    blurred = gaussian_filter(sharp.astype(float), 0.6).astype(np.uint8)
    target, before = _strengths(sharp), _strengths(blurred)
    after = _strengths(match_sharpness(blurred, target, spectrum_rings(sharp.shape)))
    # The finest rings were dampened beyond what may be amplified again.
    reached = (target / before < 3) & (target / before > 1.1)
    assert reached.sum() > 5
    np.testing.assert_allclose(after[reached], target[reached], rtol=0.1)


def test_coarse_structures_are_left_alone() -> None:
    film = draw_chest_phantom(96, seed=4)
    smooth = np.zeros(len(_strengths(film)))
    blurred = match_sharpness(film, smooth, spectrum_rings(film.shape))
    before, after = np.fft.rfft2(film.astype(float)), np.fft.rfft2(blurred.astype(float))
    np.testing.assert_allclose(np.abs(after[:4, :4]), np.abs(before[:4, :4]), rtol=0.1)
    assert np.abs(after[30:60, 30:]).mean() < 0.5 * np.abs(before[30:60, 30:]).mean()


def test_a_style_depends_on_the_generator_alone_and_comes_as_often_as_told() -> None:
    films = np.stack([draw_chest_phantom(96, seed=seed) for seed in range(4)])
    labels = np.array([0, 0, 1, 1])
    exchange = StyleExchange(films, labels, 0.5)
    one = [exchange(films[0], np.random.default_rng(seed)) for seed in range(60)]
    again = [exchange(films[0], np.random.default_rng(seed)) for seed in range(60)]
    np.testing.assert_array_equal(one, again)
    untouched = sum(bool((film == films[0]).all()) for film in one)
    assert 5 <= untouched <= 27  # a quarter of 60, four standard deviations around
    never = StyleExchange(films, labels, 0.0)
    np.testing.assert_array_equal(never(films[1], np.random.default_rng(0)), films[1])


def test_rare_classes_lend_as_often_as_frequent_ones() -> None:
    """A film that is one grey level tells by its tone which class lent it."""
    films = np.full((10, 64, 64), 50, dtype=np.uint8)
    films[9] = 200
    exchange = StyleExchange(films, np.array([0] * 9 + [1]), 1.0)
    ramp = np.tile(np.arange(64, dtype=np.uint8) * 4, (64, 1))
    levels = [exchange(ramp, np.random.default_rng(seed)).mean() for seed in range(200)]
    bright = sum(level > 125 for level in levels)
    assert 60 <= bright <= 140


def test_a_film_without_structure_survives() -> None:
    even = np.full((96, 96), 7, dtype=np.uint8)
    exchange = StyleExchange(np.stack([even, draw_chest_phantom(96)]), np.array([0, 1]), 1.0)
    for seed in range(8):
        for film in (even, draw_chest_phantom(96, seed=5)):
            assert exchange(film, np.random.default_rng(seed)).shape == (96, 96)
