"""Measures how faithful the evidence maps are, on films of the test split.

    python -m benchmarks.evidence --data FOLDER

Deletion and insertion follow Petsiuk et al. (BMVC 2018): the probability of the predicted class
while the film's pixels give way to an even grey, and while they come back to a blurred film, those
with the most evidence first. The share of the evidence for a film's own class inside the lungs and
the infection stands beside their share of the area, which chance would give. The maps of networks
with random weights must differ (Adebayo et al., NeurIPS 2018).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.evidence_measures import (
    Figures,
    Film,
    Row,
    measure_curves,
    measure_randomisation,
    measure_shares,
)
from benchmarks.options import build_parser
from resformer.checkpoint import load_checkpoint
from resformer.data.find import open_dataset
from resformer.data.manifest import read_manifest
from resformer.data.masks import mask_of
from resformer.evaluation.metrics import estimate_mean
from resformer.images import decode_image
from resformer.predict import Predictor

logger = logging.getLogger(__name__)

Tables = dict[str, dict[str, Row]]

_INFECTION_FOLDER = "infection masks"


def read_film(path: Path, class_name: str) -> Film:
    """Read a film and the masks that lie beside it."""
    infection = path.parent.parent / _INFECTION_FOLDER / f"{path.stem}.png"
    lungs = mask_of(path)
    return Film(
        decode_image(path.read_bytes()),
        class_name,
        decode_image(lungs.read_bytes()) if lungs else None,
        decode_image(infection.read_bytes()) if infection.is_file() else None,
    )


def measure(predictor: Predictor, films: Sequence[Film], per_class: int) -> Tables:
    """Return figures of single films, by table, row and column."""
    some = [
        film
        for name in predictor.class_names
        for film in [film for film in films if film.class_name == name][:per_class]
    ]
    logger.info("%d films for the curves", len(some))
    curves = measure_curves(predictor, some)
    ours = curves["evidence map"]
    lead = {
        f"evidence map against {name}": {
            "deletion less by": row["deletion"] - ours["deletion"],
            "insertion more by": ours["insertion"] - row["insertion"],
        }
        for name, row in curves.items()
        if row is not ours
    }
    logger.info("shares inside the masks")
    shares = {
        f"lungs, {name}": measure_shares(
            predictor, [film for film in films if film.class_name == name], lambda f: f.lungs
        )
        for name in predictor.class_names
    }
    shares["infection"] = measure_shares(predictor, films, lambda film: film.infection)
    logger.info("random weights")
    return {
        "area under the curve": curves,
        "difference": lead,
        "share inside the mask": {k: v for k, v in shares.items() if v["edges"].size},
        "likeness to a network with random weights": measure_randomisation(predictor, some),
    }


def to_markdown(tables: Mapping[str, Mapping[str, Row]], source: str) -> str:
    """Lay the means out as tables, with bootstrap intervals over films."""
    made = f"Made by `python -m benchmarks.evidence` of the network {source[:12]}."
    lines = ["# How faithful the evidence maps are", "", made]
    for title, rows in tables.items():
        columns = list(next(iter(rows.values()), {}))
        lines += ["", f"| {' | '.join([title, 'films', *columns])} |"]
        lines.append("|---" * (len(columns) + 2) + "|")
        for name, figures in rows.items():
            counted = max(int(np.isfinite(values).sum()) for values in figures.values())
            cells = [name.replace("_", " "), str(counted), *map(_to_cell, figures.values())]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _to_cell(values: Figures) -> str:
    mean = estimate_mean(values)
    if mean["value"] is None:
        return "none"
    return f"{mean['value']:.3f} ({mean['low']:.3f} to {mean['high']:.3f})"


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the options, measure, print, write."""
    parser = build_parser(__doc__, Path("benchmarks/evidence.md"))
    parser.add_argument("--films", type=int, default=40, help="of each class, for the curves")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    predictor = Predictor(load_checkpoint(options.model), "cpu")
    with open_dataset(options.data / "chest-xray") as root:
        rows = read_manifest(options.manifest, root).subset("test")
        films = [read_film(root / row.path, row.class_name) for row in rows]
    order = np.random.default_rng(0).permutation(len(films)).tolist()
    tables = measure(predictor, [films[i] for i in order], options.films)
    text = to_markdown(tables, predictor.checkpoint.source)
    options.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
