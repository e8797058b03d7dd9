"""Masks beside the images, their fate under augmentation, and the replaced background."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from resformer.data.augment import STRENGTHS, FilmAugmentation
from resformer.data.dataset import FilmDataset, share_of_region
from resformer.data.find import JoinedRoot
from resformer.data.manifest import Manifest, ManifestRow, build_manifest
from resformer.data.masks import RegionMasks, cache_masks
from resformer.data.surroundings import BackgroundReplacement, blend, soften
from resformer.images import ImageError
from resformer.transforms import InputSpec
from tests.data_sets import draw_texture, encode, write_data_set


def _block(side: int) -> NDArray[np.uint8]:
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


def test_masks_are_found_beside_the_images_and_may_be_missing(root: Path, tmp_path: Path) -> None:
    manifest = build_manifest(root)
    masks = cache_masks(root, manifest.rows, 64, tmp_path / "cache")
    assert [row.path for row, known in zip(manifest.rows, masks.known, strict=True) if known] == [
        "COVID/images/COVID-001.png",
        "COVID/images/COVID-003.png",
    ]
    for index in np.flatnonzero(masks.known):
        np.testing.assert_array_equal(masks.masks[index, :31, :31], 255)
        assert masks.masks[index, 33:].max() == masks.masks[index, :, 33:].max() == 0
    assert masks.masks[~masks.known].max() == 0


def test_a_changed_mask_makes_a_new_array(root: Path, tmp_path: Path) -> None:
    rows = build_manifest(root).rows
    first = cache_masks(root, rows, 64, tmp_path / "cache")
    assert cache_masks(root, rows, 64, tmp_path / "cache").digest == first.digest
    _write_mask(root, "COVID", "COVID-001.png", encode(255 - _block(128)))
    second = cache_masks(root, rows, 64, tmp_path / "cache")
    assert second.digest != first.digest
    assert second.masks[1, 0, 0] == 0


def test_masks_of_a_second_data_set_are_found(root: Path, tmp_path: Path) -> None:
    uploads = write_data_set(tmp_path / "uploads", {"COVID": 2, "Normal": 1})
    _write_mask(uploads, "COVID", "COVID-000.png", encode(_block(128)))
    rows = (
        ManifestRow("COVID/images/COVID-000.png", "COVID", 0, "train", "a" * 64),
        ManifestRow("data-2/COVID/images/COVID-000.png", "COVID", 1, "train", "b" * 64),
    )
    masks = cache_masks(JoinedRoot((root, uploads)), rows, 64, tmp_path / "cache")
    assert masks.known.tolist() == [False, True]


def test_films_in_plain_class_folders_have_no_masks(tmp_path: Path) -> None:
    root = write_data_set(tmp_path / "data", {"COVID": 3, "Normal": 3}, folder=".")
    _write_mask(root, "COVID", "COVID-000.png", encode(_block(128)))
    rows = build_manifest(root).rows
    assert not cache_masks(root, rows, 64, tmp_path / "cache").known.any()


def test_a_broken_mask_is_refused(root: Path, tmp_path: Path) -> None:
    rows = build_manifest(root).rows
    _write_mask(root, "COVID", "COVID-001.png", b"not an image")
    with pytest.raises(ImageError):
        cache_masks(root, rows, 64, tmp_path / "cache")


def test_a_manifest_does_not_depend_on_masks(root: Path) -> None:
    before: Manifest = build_manifest(root)
    _write_mask(root, "Normal", "Normal-001.png", encode(_block(128)))
    assert build_manifest(root) == before


@pytest.mark.parametrize("strength", STRENGTHS)
def test_a_mask_goes_where_its_film_goes(strength: str) -> None:
    """A film that is its own mask, and a strength whose changes of grey are then undone."""
    augment = FilmAugmentation(64, STRENGTHS[strength])
    film = np.full((80, 80), 40, dtype=np.uint8)
    mask = np.zeros((80, 80), dtype=np.uint8)
    film[20:50, 30:60], mask[20:50, 30:60] = 220, 255
    overlaps = []
    for seed in range(40):
        varied, (moved,) = augment.vary(film, [mask], seed)
        assert varied.shape == moved.shape == (64, 64)
        np.testing.assert_array_equal(varied, augment(film, seed))
        bright = varied > (int(varied.min()) + int(varied.max())) / 2
        inside = moved > 127
        overlaps.append(2 * (bright & inside).sum() / (bright.sum() + inside.sum()))
    # Holes and noise move single films; a mask that did not follow would move them all.
    assert np.median(overlaps) > 0.95


def test_each_strength_varies_more_than_the_one_before() -> None:
    film = draw_texture(0, 80).astype(np.uint8)

    def spread(strength: str) -> float:
        augment = FilmAugmentation(64, STRENGTHS[strength])
        return float(np.std([augment(film, seed).mean() for seed in range(60)]))

    moderate, strong, strongest = map(spread, STRENGTHS)
    assert moderate < strong < strongest


def test_the_inside_of_the_lungs_is_left_as_it_is() -> None:
    films = np.stack([draw_texture(seed, 80) for seed in range(4)])
    outlines = np.zeros_like(films)
    outlines[:, 20:60, 20:60] = 255
    replace = BackgroundReplacement(films, outlines, 1.0)
    for seed in range(30):
        film = replace(2, np.random.default_rng(seed))
        np.testing.assert_array_equal(film[20:60, 20:60], films[2, 20:60, 20:60])
        assert (film[:8] != films[2, :8]).mean() > 0.5


def test_a_background_is_replaced_as_often_as_said_and_always_alike() -> None:
    films = np.stack([draw_texture(seed, 80) for seed in range(4)])
    outlines = np.zeros_like(films)
    outlines[:, 20:60, 20:60] = 255
    sometimes = BackgroundReplacement(films, outlines, 0.3)
    made = [sometimes(0, np.random.default_rng(seed)) for seed in range(200)]
    assert 40 <= sum((film != films[0]).any() for film in made) <= 80
    again = [sometimes(0, np.random.default_rng(seed)) for seed in range(200)]
    np.testing.assert_array_equal(made, again)
    never = BackgroundReplacement(films, outlines, 0.0)
    np.testing.assert_array_equal(never(0, np.random.default_rng(0)), films[0])


@pytest.mark.parametrize("area", [0, 5, 75])
def test_an_outline_that_can_be_no_lungs_replaces_nothing(area: int) -> None:
    films = np.stack([draw_texture(seed, 80) for seed in range(2)])
    outlines = np.zeros_like(films)
    outlines[:, :area, :area] = 255
    replace = BackgroundReplacement(films, outlines, 1.0)
    np.testing.assert_array_equal(replace(0, np.random.default_rng(0)), films[0])


def test_impossible_replacements_are_refused() -> None:
    films = np.zeros((2, 8, 8), dtype=np.uint8)
    with pytest.raises(ValueError, match="need one shape"):
        BackgroundReplacement(films, films[:1], 0.5)
    with pytest.raises(ValueError, match=r"probability must be in \[0, 1\], got 1.5"):
        BackgroundReplacement(films, films, 1.5)


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


def test_a_film_brings_its_lungs_and_its_weight() -> None:
    films = np.stack([draw_texture(seed, 80) for seed in range(2)])
    masks = RegionMasks(np.stack([_block(80), _block(80) * 0]), np.array([True, False]), "digest")
    dataset = FilmDataset(
        films,
        np.array([1, 0]),
        InputSpec(size=64),
        masks=[masks],
        weights=np.array([0.5, 2.0]),
    )
    known, unknown = dataset[0, 0], dataset[0, 1]
    assert (known.label, known.known.tolist(), known.weight) == (1, [1.0], 0.5)
    assert known.regions.shape == (1, 16, 16)
    assert known.regions[0, :7, :7].min() == 1
    assert known.regions[0, 9:].max() == 0
    assert (unknown.known.item(), unknown.regions.max().item()) == (0.0, 0.0)
    some = dataset.subset(np.array([1]))
    assert len(some) == 1
    assert some[0, 0].weight == 2.0


def test_a_share_of_lung_is_an_average_over_the_heads_grid() -> None:
    mask = np.zeros((64, 64), dtype=np.uint8)
    mask[:4, :2] = 255
    share = share_of_region(mask, 64)
    assert share.shape == (1, 16, 16)
    assert share[0, 0, 0] == 0.5
    assert share.sum() == 0.5
