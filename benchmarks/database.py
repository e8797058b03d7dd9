"""Measure a data set of the size of the whole COVID-19 Radiography Database, from drawn films.

    python -m benchmarks.database

The database has 21,165 films of 299 x 299 with lung masks of 256 x 256 (Chowdhury et al., IEEE
Access 8 (2020) 132665; Rahman et al., Computers in Biology and Medicine 132 (2021) 104319). A
folder of as many drawn films in the same layout goes through what every training does: its files
are found, read and divided into splits without near-duplicates across them, films and masks are
decoded into the cache, and an epoch is trained at the side where the recipe starts and at the one
that it ends with. Of each step the time and the largest memory of the process until then are told,
memory-mapped files counted.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.common import build_speed_parser, describe_machine, publish
from resformer.data.find import IMAGES_FOLDER
from resformer.data.manifest import build_manifest
from resformer.data.masks import LUNGS_FOLDER
from resformer.data.split import SPLITS
from resformer.evaluation.tables import render_table
from resformer.model import ResFormerConfig
from resformer.phantom import draw_chest_phantom
from resformer.training.config import RECOMMENDED
from resformer.training.data import (
    TrainingData,
    build_augmentation,
    build_loader,
    build_training_films,
)
from resformer.training.distributed import ProcessGroup
from resformer.training.epoch import build_learner, build_loss, train_one_epoch
from resformer.transforms import InputSpec

FILMS = {"COVID": 3616, "Lung_Opacity": 6012, "Normal": 10192, "Viral Pneumonia": 1345}
_SIDE, _MASK_SIDE = 299, 256
# Phantoms take long to draw: each is used again under other shadows, which make another film of it.
_PHANTOMS, _SHADOWS, _CONTRAST = 48, 32, 50.0
_CPU = torch.device("cpu")

T = TypeVar("T")
Step = tuple[str, float, int]


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the films, measure, and write the table."""
    options = _parse(arguments)
    torch.set_num_threads(options.threads)
    machine = describe_machine(options.threads)
    counts = {name: max(20, round(count * options.share)) for name, count in FILMS.items()}
    with tempfile.TemporaryDirectory() as folder:
        drawn = Path(folder) / "films"
        draw_database(drawn, counts)
        steps = list(measure(drawn, Path(folder) / "run"))
    rows = [(what, f"{seconds:.0f}", f"{peak / 1e6:.0f}") for what, seconds, peak in steps]
    about = (
        f"{sum(counts.values()):,} drawn films of {_SIDE} x {_SIDE} and masks of {_MASK_SIDE} x "
        f"{_MASK_SIDE}, PNG; one process with {RECOMMENDED.workers} workers."
    )
    table = render_table(("step", "seconds", "memory at most until then, MB"), rows)
    publish(f"{machine}\n\n{about}\n\n{table}", options.out)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = build_speed_parser(__doc__, "database")
    parser.add_argument(
        "--share", type=float, default=1.0, help="of the database's films (default: all)"
    )
    return parser.parse_args(arguments)


def draw_database(folder: Path, counts: dict[str, int]) -> None:
    """Write drawn films with masks, in the database's layout; no two are near-duplicates."""
    with ThreadPoolExecutor() as pool:
        phantoms = list(pool.map(partial(draw_chest_phantom, _SIDE), range(_PHANTOMS)))
        mask = np.zeros((_MASK_SIDE, _MASK_SIDE), np.uint8)
        for x in (0.29, 0.71):
            centre = (round(x * _MASK_SIDE), _MASK_SIDE // 2)
            cv2.ellipse(mask, centre, (40, 80), 0, 0, 360, 255, cv2.FILLED)
        number = 0
        for name, count in counts.items():
            images, masks = folder / name / IMAGES_FOLDER, folder / name / LUNGS_FOLDER
            images.mkdir(parents=True)
            masks.mkdir()

            def write(k: int, first: int, name: str, images: Path, masks: Path) -> None:
                film = _vary(phantoms[(first + k) % _PHANTOMS], seed=first + k)
                cv2.imwrite(str(images / f"{name}-{k + 1}.png"), film)
                cv2.imwrite(str(masks / f"{name}-{k + 1}.png"), mask)

            job = partial(write, first=number, name=name, images=images, masks=masks)
            for _ in pool.map(job, range(count)):
                pass
            number += count


def _vary(film: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """Return a film under shadows of its own, ``(size, size)``."""
    shadows = np.random.default_rng(seed).normal(0, _CONTRAST, (_SHADOWS, _SHADOWS))
    spread = cv2.resize(shadows.astype(np.float32), film.shape, interpolation=cv2.INTER_CUBIC)
    varied: NDArray[np.uint8] = np.clip(film + spread, 0, 255).astype(np.uint8)
    return varied


def measure(films: Path, run: Path) -> Iterator[Step]:
    """Take the steps of a training; yield the name, the seconds and the memory of each."""
    run.mkdir()
    manifest, step = _time("find, read and split", partial(build_manifest, films))
    yield step
    config = RECOMMENDED
    data = TrainingData(films, manifest, run, InputSpec(config.input_size), with_masks=True)

    def cache() -> None:
        data.training_films()
        for split in SPLITS[1:]:
            data.evaluation_films(split)
        data.lungs("train")

    yield _time("decode films and masks into the cache", cache)[1]
    group = ProcessGroup(0, 1, _CPU)
    lungs = data.masks("train", config)
    training = build_training_films(data, config, lungs, lungs[0].masks)
    network = ResFormerConfig(num_classes=len(manifest.class_names))
    for size in config.sizes:
        loader = build_loader(
            training.resized(size, build_augmentation(size, config)), config, group
        )
        learner = build_learner(build_loss(network, config), len(loader), network, config, group)
        epoch = partial(train_one_epoch, learner, loader, group, label="", progress=False)
        yield _time(f"an epoch of {len(training):,} films at {size} pixels", epoch)[1]


def _time(what: str, work: Callable[[], T]) -> tuple[T, Step]:
    start = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - start
    # Linux counts in kilobytes.
    return result, (what, seconds, 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


if __name__ == "__main__":
    main()
