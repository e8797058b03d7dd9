"""Measure what the gate refuses, on pictures that it was not fitted on, and what it puts right.

    python -m benchmarks.refusal --data FOLDER

Gates are fitted anew as ``fit-gate`` does it: on half of each kind of outliers, measured on the
other half, and without one kind at a time, measured on that kind. Near-duplicates stay in one half.
The checkpoint's own gate is measured on films that it was not fitted on, as they are and spoilt. Of
films that are inverted or not upright it is counted how often the right correction is named, and of
pictures that are no films, how often one is.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from benchmarks.common import build_data_parser, list_data_sets, publish, show_share
from resformer.backends import PyTorchBackend
from resformer.checkpoint import Checkpoint, load_checkpoint
from resformer.data.duplicates import fingerprint, group_duplicates
from resformer.data.manifest import read_manifest
from resformer.data.unpack import open_data_roots
from resformer.evaluation.tables import render_table
from resformer.gate import Gate, find_objection
from resformer.orientation import CORRECTIONS, Correction, Orientation
from resformer.predict import Predictor
from resformer.training.data import TrainingData
from resformer.training.gate_alterations import ALTERATIONS
from resformer.training.gate_drawings import DRAWINGS
from resformer.training.gate_fit import (
    Blocks,
    Describer,
    GateConfig,
    GateSamples,
    collect_samples,
    find_outliers,
    fit_gate,
    read_outliers,
)

Pixels = NDArray[np.uint8]
# By table and row, how many pictures were refused, and of how many.
Tables = dict[str, dict[str, tuple[int, int]]]

HALVES = ("first", "second")
# Too unlike each other for a sum to mean anything.
NOT_SUMMED = "spoilt films and drawings, shipped gate"
PUT_RIGHT = "test films that are not upright, shipped gate"
OFFERED = "pictures that no correction makes a film, shipped gate"
# What is counted, where it is no refusal.
COUNTED = {PUT_RIGHT: "right correction named", OFFERED: "correction named"}


@dataclass(frozen=True)
class Measured:
    """Pictures that gates are asked about: as the network describes them, ``(N, D_b)`` a block.

    ``objections`` are the ``N`` sentences that their pixels alone say against them, empty for most.
    """

    blocks: Blocks
    objections: list[str]

    def refused(self, gate: Gate) -> tuple[int, int]:
        """Return how many are refused, and of how many."""
        scores = gate.scores(self.blocks).tolist()
        results = map(gate.judge, scores, self.objections)
        return sum(not result.accepted for result in results), len(scores)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write the tables."""
    parser = build_data_parser(__doc__, "refusal")
    parser.add_argument("--altered", type=int, default=200, help="films, by each alteration")
    parser.add_argument("--drawn", type=int, default=100, help="pictures of each kind of drawing")
    fit = GateConfig()
    parser.add_argument("--variations", type=int, default=fit.variations, help="of films, to fit")
    parser.add_argument("--copies", type=int, default=fit.copies, help="of each outlier, to fit")
    options = parser.parse_args(arguments)
    config = replace(fit, variations=options.variations, copies=options.copies)
    checkpoint = load_checkpoint(options.model)
    tables = measure(
        checkpoint, options.data, options.manifest, config, options.altered, options.drawn
    )
    made = f"Made by `python -m benchmarks.refusal` of the network {checkpoint.source[:12]}."
    publish(f"# What the gate refuses\n\n{made}\n\n{render(tables)}", options.out)


def measure(
    checkpoint: Checkpoint,
    data: Path,
    manifest_path: Path,
    config: GateConfig,
    altered: int,
    drawn: int,
) -> Tables:
    """Return what the checkpoint's gate refuses, and what gates do that are fitted anew.

    ``data`` has the folders of the data sets, ``external`` and ``not-chest-xray``. So many test
    films are ``altered`` in each way, and so many pictures of each kind are ``drawn``.

    Raises:
        ValueError: if the checkpoint has no gate.
    """
    if checkpoint.gate is None:
        raise ValueError("the checkpoint has no gate: give it one with fit-gate")
    gate = checkpoint.gate
    backend = PyTorchBackend(checkpoint, torch.device("cpu"))
    describer = Describer(backend, checkpoint.input_spec.size)
    with open_data_roots(list_data_sets(data)) as root, tempfile.TemporaryDirectory() as folder:
        manifest = read_manifest(manifest_path, root)
        films_of = TrainingData(root, manifest, Path(folder), checkpoint.input_spec)
        training = np.array(films_of.training_films(progress=True).films)
        validation = np.array(films_of.evaluation_films("validation").films)
        test = list(np.array(films_of.evaluation_films("test").films))
    outliers = find_outliers(data / "not-chest-xray")
    halves = {
        (kind, half): half_of_kind
        for kind, pictures in read_outliers(outliers).items()
        for half, half_of_kind in split_halves(pictures).items()
    }
    given = {"/".join(name): pictures for name, pictures in halves.items()}
    samples = collect_samples(describer, training, validation, given, config, progress=True)

    def look(pictures: Sequence[Pixels]) -> Measured:
        return Measured(describer(pictures), [find_objection(p) for p in pictures])

    films = {"test split": test, **read_outliers(find_outliers(data / "external"))}
    spoilt = spoil_films(test, checkpoint.input_spec.size, altered, drawn)
    chosen = choose_films(test, altered)
    return {
        **measure_outliers(samples, {name: look(p) for name, p in halves.items()}, config),
        "real films, shipped gate": {name: look(p).refused(gate) for name, p in films.items()},
        NOT_SUMMED: {name: look(p).refused(gate) for name, p in spoilt.items()},
        **count_corrections(Predictor(checkpoint, "cpu"), chosen, read_outliers(outliers)),
    }


def split_halves(pictures: Sequence[Pixels]) -> dict[str, list[Pixels]]:
    """Split pictures into two halves; groups of near-duplicates go to them in turn."""
    digests = [picture.tobytes().hex() for picture in pictures]
    groups = group_duplicates([fingerprint(picture) for picture in pictures], digests)
    halves: dict[str, list[Pixels]] = {half: [] for half in HALVES}
    for picture, group in zip(pictures, groups.tolist(), strict=True):
        halves[HALVES[group % 2]].append(picture)
    return halves


def spoil_films(
    films: Sequence[Pixels], size: int, altered: int, drawn: int
) -> dict[str, list[Pixels]]:
    """Spoil films, and draw, with other random numbers than those of a fit."""
    rng = np.random.default_rng(20_000)
    chosen = choose_films(films, altered)
    made = {"blank": [np.full((size, size), level, np.uint8) for level in range(0, 256, 16)]}
    for name, alter in ALTERATIONS.items():
        made[name.replace("_", " ")] = [np.ascontiguousarray(alter(film, rng)) for film in chosen]
    made["photographed screen"] = [photograph_screen(film, rng) for film in chosen]
    for name, draw in DRAWINGS.items():
        made[f"drawn {name}"] = [draw(size, rng) for _ in range(drawn)]
    return made


def choose_films(films: Sequence[Pixels], most: int) -> list[Pixels]:
    """Return some films, the same ones each time."""
    order = np.random.default_rng(10_000).permutation(len(films))
    return [films[i] for i in order[:most].tolist()]


def count_corrections(
    predictor: Predictor, films: Sequence[Pixels], pictures: Mapping[str, Sequence[Pixels]]
) -> Tables:
    """Count the right corrections that are named for films, and those that are for no films."""
    right: dict[str, tuple[int, int]] = {}
    for cure in CORRECTIONS:
        done = Correction(cure.invert, -cure.rotate % 360)
        found = [predictor.predict(done.apply(film)).find_orientation() for film in films]
        hits = sum(one is not None and one.correction == cure for one in found)
        row = f"{Orientation.of(cure).name}, {cure.rotate} degrees"
        right[row] = (hits, len(films))
    offered = {
        kind: (
            sum(predictor.predict(picture).find_orientation() is not None for picture in of_kind),
            len(of_kind),
        )
        for kind, of_kind in pictures.items()
    }
    return {PUT_RIGHT: right, OFFERED: offered}


def photograph_screen(film: Pixels, rng: np.random.Generator) -> Pixels:
    """Return a square film ``(S, S)`` as if photographed from a screen.

    It is slanted, with moire, glare and a little blur.
    """
    size = len(film)
    axis = np.linspace(-1, 1, size)
    x, y = np.meshgrid(axis, axis)
    waves = rng.uniform(0.5, 1.4, 2) * np.pi * size / 2
    light = film * rng.uniform(0.6, 0.9) + rng.uniform(10, 40)
    light = light * (1 + rng.uniform(0.02, 0.1) * np.sin(waves[0] * x + waves[1] * y + 3 * x * y))
    spot = (x - rng.uniform(-0.8, 0.8)) ** 2 + (y - rng.uniform(-0.8, 0.8)) ** 2
    light += rng.uniform(40, 140) * np.exp(-spot / rng.uniform(0.05, 0.3))
    picture = Image.fromarray(np.clip(light, 0, 255).astype(np.uint8))
    corners = np.array([-3, -3, -3, size + 3, size + 3, size + 3, size + 3, -3], dtype=np.float64)
    corners += rng.uniform(-0.07, 0.07, 8) * size
    slanted = picture.transform(
        (size, size), Image.Transform.QUAD, corners.tolist(), Image.Resampling.BICUBIC
    )
    return np.asarray(slanted.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.0))))


def measure_outliers(
    samples: GateSamples, looked_at: Mapping[tuple[str, str], Measured], config: GateConfig
) -> Tables:
    """Fit gates without a half, without a kind and without all, and measure on what was left out.

    Args:
        samples: all that is fitted on; its outliers hold ``kind/half`` for each half of a kind.
        looked_at: the pictures as they are, by kind and half.
        config: how to fit.
    """

    def fit_without(left_out: Sequence[str]) -> Gate:
        kept = {name: b for name, b in samples.outliers.items() if name not in left_out}
        return fit_gate(replace(samples, outliers=kept), config)

    kinds = list(dict.fromkeys(kind for kind, _ in looked_at))
    first, second = HALVES
    tables: Tables = {}
    for fitted, held_out in ((first, second), (second, first)):
        gate = fit_without([f"{kind}/{held_out}" for kind in kinds])
        tables[f"{held_out} half, gate fitted on the {fitted}"] = {
            kind: looked_at[kind, held_out].refused(gate) for kind in kinds
        }

    def refused_of_both(kind: str, gate: Gate) -> tuple[int, int]:
        counts = [looked_at[kind, half].refused(gate) for half in HALVES]
        return sum(refused for refused, _ in counts), sum(count for _, count in counts)

    tables["kind that the gate was not fitted on"] = {
        kind: refused_of_both(kind, fit_without([f"{kind}/{half}" for half in HALVES]))
        for kind in kinds
    }
    bare = fit_without([f"{kind}/{half}" for kind, half in looked_at])
    tables["kind, with no outliers given"] = {kind: refused_of_both(kind, bare) for kind in kinds}
    return tables


def render(tables: Tables) -> str:
    """Lay the figures out as tables, with exact (Clopper and Pearson) intervals."""
    parts = []
    for title, rows in tables.items():
        if title != NOT_SUMMED:
            refused_of = np.sum(list(rows.values()), axis=0).tolist()
            rows = {**rows, "together": tuple(refused_of)}
        cells = []
        for name, (refused, count) in rows.items():
            share = show_share(refused, count)
            cells.append((name.replace("_", " "), str(refused), str(count), share))
        parts.append(
            render_table(
                (title, COUNTED.get(title, "refused"), "of", "share (95 % interval)"), cells
            )
        )
    return "\n\n".join(parts)


if __name__ == "__main__":
    main()
