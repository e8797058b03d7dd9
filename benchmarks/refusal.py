"""Measures what the gate refuses, on pictures that it was not fitted on.

    python -m benchmarks.refusal --data FOLDER

Gates are fitted anew as ``fit-gate`` does it: on half of each kind of outliers, measured on the
other half, and without one kind at a time, measured on that kind. Near-duplicates stay in one half.
The checkpoint's own gate is measured on films that it was not fitted on, as they are and spoilt.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import binomtest

from benchmarks.options import build_parser
from benchmarks.screen_photo import photograph_screen
from resformer.backends import PyTorchBackend
from resformer.checkpoint import Checkpoint, load_checkpoint
from resformer.data.duplicates import fingerprint, group_duplicates
from resformer.data.find import open_dataset
from resformer.data.manifest import read_manifest
from resformer.gate.alterations import ALTERATIONS
from resformer.gate.drawings import DRAWINGS
from resformer.gate.fit import (
    Blocks,
    Describer,
    GateConfig,
    GateSamples,
    collect_samples,
    find_outliers,
    fit_gate,
    join_blocks,
    read_outliers,
)
from resformer.gate.gate import Gate, find_objection
from resformer.training.films import Workspace

Pictures = Sequence[NDArray[np.uint8]]
Tables = dict[str, dict[str, tuple[int, int]]]

HALVES = ("first", "second")
_ALTERED, _DRAWN = 200, 100
# Too unlike each other for a sum to mean anything.
NOT_SUMMED = "spoilt films and drawings, shipped gate"


@dataclass(frozen=True)
class Measured:
    """Pictures that gates are asked about.

    Attributes:
        blocks: their descriptions.
        objections: what their pixels alone say against them.
    """

    blocks: Blocks
    objections: list[str]

    def refused(self, gate: Gate) -> tuple[int, int]:
        """Return how many are refused, and of how many."""
        results = gate.judge(self.blocks, self.objections)
        return sum(not result.accepted for result in results), len(results)

    def __add__(self, other: Measured) -> Measured:
        """Return these pictures and then the others."""
        return Measured(
            join_blocks([self.blocks, other.blocks]), self.objections + other.objections
        )


def split_halves(pictures: Pictures) -> dict[str, list[NDArray[np.uint8]]]:
    """Split pictures into two halves; groups of near-duplicates go to them in turn."""
    digests = [picture.tobytes().hex() for picture in pictures]
    groups = group_duplicates([fingerprint(picture) for picture in pictures], digests)
    halves: dict[str, list[NDArray[np.uint8]]] = {half: [] for half in HALVES}
    for picture, group in zip(pictures, groups.tolist(), strict=True):
        halves[HALVES[group % 2]].append(picture)
    return halves


def spoil_films(films: Pictures, size: int) -> dict[str, list[NDArray[np.uint8]]]:
    """Spoil films, and draw, with other random numbers than those of a fit."""
    rng = np.random.default_rng(20_000)
    chosen = [films[i] for i in rng.permutation(len(films))[:_ALTERED].tolist()]
    made = {"blank": [np.full((size, size), level, np.uint8) for level in range(0, 256, 16)]}
    for name, alter in ALTERATIONS.items():
        made[name.replace("_", " ")] = [np.ascontiguousarray(alter(film, rng)) for film in chosen]
    made["photographed screen"] = [photograph_screen(film, rng) for film in chosen]
    for name, draw in DRAWINGS.items():
        made[f"drawn {name}"] = [draw(size, rng) for _ in range(_DRAWN)]
    return made


def measure_outliers(
    samples: GateSamples, looked_at: Mapping[tuple[str, str], Measured], config: GateConfig
) -> Tables:
    """Fit gates without a half, without a kind and without all, and measure on what was left out.

    Args:
        samples: all that is fitted on; its outliers hold ``kind/half`` for each half of a kind.
        looked_at: the pictures as they are, by kind and half.
        config: how to fit.
    """

    def fit(left_out: Sequence[str]) -> Gate:
        kept = {name: b for name, b in samples.outliers.items() if name not in left_out}
        return fit_gate(replace(samples, outliers=kept), config)

    kinds = list(dict.fromkeys(kind for kind, _ in looked_at))
    first, second = HALVES
    tables: Tables = {}
    for fitted, held_out in ((first, second), (second, first)):
        gate = fit([f"{kind}/{held_out}" for kind in kinds])
        tables[f"{held_out} half, gate fitted on the {fitted}"] = {
            kind: looked_at[kind, held_out].refused(gate) for kind in kinds
        }
    whole = {kind: looked_at[kind, first] + looked_at[kind, second] for kind in kinds}
    tables["kind that the gate was not fitted on"] = {
        kind: whole[kind].refused(fit([f"{kind}/{half}" for half in HALVES])) for kind in kinds
    }
    bare = fit([f"{kind}/{half}" for kind, half in looked_at])
    tables["kind, with no outliers given"] = {kind: whole[kind].refused(bare) for kind in kinds}
    return tables


def measure(checkpoint: Checkpoint, data: Path, manifest_path: Path) -> Tables:
    """Return ``(refused, of)`` by table and row.

    Raises:
        ValueError: if the checkpoint has no gate.
    """
    if checkpoint.gate is None:
        raise ValueError("the checkpoint has no gate: give it one with fit-gate")
    gate, config = checkpoint.gate, GateConfig()
    describer = Describer(
        PyTorchBackend(checkpoint, torch.device("cpu")), checkpoint.input_spec.size
    )
    with open_dataset(data / "chest-xray") as root, tempfile.TemporaryDirectory() as folder:
        manifest = read_manifest(manifest_path, root)
        workspace = Workspace(root, manifest, Path(folder), checkpoint.input_spec)
        training = np.array(workspace.training_films(0, progress=True).films)
        validation = np.array(workspace.evaluation_films("validation").films)
        test = list(np.array(workspace.evaluation_films("test").films))
    halves = {
        (kind, half): half_of_kind
        for kind, pictures in read_outliers(find_outliers(data / "not-chest-xray")).items()
        for half, half_of_kind in split_halves(pictures).items()
    }
    given = {"/".join(name): pictures for name, pictures in halves.items()}
    samples = collect_samples(describer, training, validation, given, config, progress=True)

    def look(pictures: Pictures) -> Measured:
        return Measured(describer(pictures), [find_objection(p) for p in pictures])

    films: dict[str, Pictures] = {"test split": test}
    films |= read_outliers(find_outliers(data / "external"))
    made = spoil_films(test, checkpoint.input_spec.size)
    return {
        **measure_outliers(samples, {name: look(p) for name, p in halves.items()}, config),
        "real films, shipped gate": {name: look(p).refused(gate) for name, p in films.items()},
        NOT_SUMMED: {name: look(pictures).refused(gate) for name, pictures in made.items()},
    }


def to_markdown(tables: Tables, source: str) -> str:
    """Lay the figures out as tables, with exact (Clopper and Pearson) intervals."""
    made = f"Made by `python -m benchmarks.refusal` of the network {source[:12]}."
    lines = ["# What the gate refuses", "", made, ""]
    for title, rows in tables.items():
        lines += [f"| {title} | refused | of | share (95 % interval) |", "|---|---|---|---|"]
        if title != NOT_SUMMED:
            together = (sum(r for r, _ in rows.values()), sum(n for _, n in rows.values()))
            rows = {**rows, "together": together}
        for name, (refused, count) in rows.items():
            low, high = binomtest(refused, count).proportion_ci(method="exact")
            share = f"{refused / count:.1%} ({low:.1%} to {high:.1%})"
            lines.append(f"| {name.replace('_', ' ')} | {refused} | {count} | {share} |")
        lines.append("")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the options, measure, print, write."""
    options = build_parser(__doc__, Path("benchmarks/refusal.md")).parse_args(arguments)
    checkpoint = load_checkpoint(options.model)
    text = to_markdown(measure(checkpoint, options.data, options.manifest), checkpoint.source)
    options.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
