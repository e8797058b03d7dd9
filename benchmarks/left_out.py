"""Measures which part of the recipe helps with a source that no training film comes from.

    python -m benchmarks.left_out --data FOLDER/chest-xray --manifest docs/split.csv
    python -m benchmarks.left_out --data FOLDER/chest-xray --seed 1 --out docs/left_out/seed-1

One source of one class is taken out of the training, by default the Normal films of COVID-QU-Ex,
while the other classes keep their films of it. A network that has learned to tell sources apart
then takes these films for one of those classes, as it takes normal films of another hospital for
ill ones. Each variant of the recipe is trained from random weights as in `benchmarks.ablations`,
for more epochs, and asked about the films left out and about the validation films. The test split
is left alone.

Every variant leaves one JSON file, and one that has it is not measured again; the table of all
files goes beside them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.metrics import roc_auc_score

from benchmarks.ablation_networks import VARIANTS as ABLATIONS
from benchmarks.ablation_networks import Variant
from benchmarks.ablation_training import Bench, prepare, train_variant
from benchmarks.ablations import begin, build_parser, choose, measure_once
from benchmarks.reporting import publish
from resformer.data.find import open_dataset
from resformer.data.manifest import Manifest, read_manifest, source_of
from resformer.devices import choose_device
from resformer.evaluation.metrics import estimate_share, evaluate_predictions
from resformer.evaluation.tables import format_estimate, render_table
from resformer.model import ResFormerConfig
from resformer.training.films import Workspace
from resformer.training.learner import split_logits
from resformer.transforms import InputSpec

VARIANTS = (
    *choose(
        ABLATIONS,
        ["ours", "ours without background replacement", "ours without style exchange"],
    ),
    Variant(
        "ours without both",
        changes={"background_replacement": 0.0, "style_exchange": 0.0},
    ),
)


def leave_out(manifest: Manifest, class_name: str, source: str) -> Manifest:
    """Return a manifest whose test split is one source of one class, in no other split.

    The films of the given test split are left out altogether, and so are those of the source that
    have a near-duplicate elsewhere.

    Args:
        manifest: the split.
        class_name: whose films are left out.
        source: of them, as `resformer.data.manifest` tells it.

    Raises:
        ValueError: if the class has no film of that source for training or validation.
    """
    rows = [row for row in manifest.rows if row.split != "test"]
    left = {row for row in rows if (row.class_name, source_of(row.path)) == (class_name, source)}
    if not left:
        raise ValueError(f"no film of {class_name} is from {source}: name another source")
    elsewhere = {row.group for row in rows if row not in left}
    kept = [
        replace(row, split="test") if row in left else row
        for row in rows
        if row not in left or row.group not in elsewhere
    ]
    return replace(manifest, rows=tuple(kept))


def measure(bench: Bench, variant: Variant, class_name: str) -> dict[str, Any]:
    """Train a variant; what it calls the films left out, and how it does on validation films.

    Args:
        bench: its test split is what was left out.
        variant: of the recipe.
        class_name: of the films left out.

    Returns:
        plain data: ``name``, ``epochs``, ``config``, ``changes``, ``seconds``, ``left_out``,
        ``recall`` of those and of the class's validation films, ``auc`` of P(class) of either
        against the validation films of the other classes, ``called`` (films left out by the class
        that they are called), and ``validation``, a report of ``evaluate_predictions``.
    """
    config = replace(bench.recipe, **variant.changes)
    names = bench.workspace.manifest.class_names
    model, history = train_variant(bench, variant, config)
    films, left = (bench.workspace.evaluation_films(split) for split in ("validation", "test"))
    device = choose_device(config.device)
    home, away = (softmax(split_logits(model, each, device), axis=1) for each in (films, left))
    asked = names.index(class_name)
    known, others = home[films.labels == asked], home[films.labels != asked]
    called = np.bincount(away.argmax(1), minlength=len(names)).tolist()

    def area(probabilities: NDArray[np.float64]) -> float:
        truth = np.repeat([1, 0], [len(probabilities), len(others)])
        return float(roc_auc_score(truth, np.concatenate([probabilities, others])[:, asked]))

    hits = int((known.argmax(1) == asked).sum())
    return {
        "name": variant.name,
        "epochs": config.epochs,
        "config": asdict(bench.recipe),
        "changes": dict(variant.changes),
        "seconds": sum(epoch["seconds"] for epoch in history),
        "left_out": len(left),
        "recall": {
            "left out": estimate_share(called[asked], len(left)),
            "known": estimate_share(hits, len(known)),
        },
        "auc": {"left out": area(away), "known": area(known)},
        "called": dict(zip(names, called, strict=True)),
        "validation": evaluate_predictions(films.labels, home, names, seed=config.seed),
    }


def to_markdown(measured: Sequence[dict[str, Any]]) -> str:
    """Return the table of what was measured, one line for each variant."""
    names = list(measured[0]["called"])
    header = (
        *("variant", "epochs", "films left out", "recall of them", "recall of known sources"),
        *("AUC of them", "AUC of known sources"),
        *(f"of them called {name}" for name in names),
        *("accuracy", "macro-F1"),
    )
    rows = [
        (
            *(found["name"], str(found["epochs"]), str(found["left_out"])),
            *(format_estimate(found["recall"][key]) for key in ("left out", "known")),
            *(f"{found['auc'][key]:.3f}" for key in ("left out", "known")),
            *(str(found["called"][name]) for name in names),
            *(format_estimate(found["validation"][key]) for key in ("accuracy", "macro_f1")),
        )
        for found in measured
    ]
    return render_table(header, rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is not measured yet, and write the table."""
    parser = build_parser(__doc__, Path("docs/left_out"), VARIANTS, epochs=8)
    parser.add_argument("--class-name", default="Normal", help="whose films are left out")
    parser.add_argument("--source", default="QU", help="of the films left out")
    options = parser.parse_args(arguments)
    recipe = begin(options)
    with open_dataset(options.data) as root:
        manifest = read_manifest(options.manifest, root)
        reduced = leave_out(manifest, options.class_name, options.source)
        workspace = Workspace(root, reduced, options.cache, InputSpec(recipe.input_size), True)
        with FileLock(options.cache / "prepare.lock"):
            bench = prepare(workspace, recipe, ResFormerConfig())
        for variant in choose(VARIANTS, options.only):
            measure_once(variant, options, partial(measure, bench, variant, options.class_name))
    files = [options.out / variant.file_name for variant in VARIANTS]
    measured = [json.loads(path.read_text(encoding="utf-8")) for path in files if path.is_file()]
    text = (
        f"# Left out\n\nTrained without films of {options.class_name} from {options.source}; "
        f"seed {recipe.seed}.\n\n"
    )
    publish(text + to_markdown(measured), options.out / "README.md")


if __name__ == "__main__":
    main()
