"""Trainings of one recipe side by side: other seeds, and networks that lack a part."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from resformer.checkpoint import load_checkpoint

SEED_FIGURES = ("accuracy", "macro_f1", "macro_auc", "expected_calibration_error")
_SAME_BUDGET = ("epochs", "data", "config")
_NEEDED = (*_SAME_BUDGET, "name", "parameters", "seconds", "validation", "lungs_blacked_out")


def compare_seeds(paths: Sequence[Path]) -> dict[str, Any] | None:
    """Tabulate the test reports that checkpoints hold; nothing is evaluated again.

    Returns:
        ``runs``: for each checkpoint its ``seed``, ``best_epoch`` and ``SEED_FIGURES``, plain
        values; ``spread``: by figure ``mean``, ``deviation`` (of the sample, None for one run),
        ``low`` and ``high``. None without a checkpoint.

    Raises:
        CheckpointError: if one cannot be read.
        ValueError: if one holds no test report, or the films are not the same.
    """
    runs: list[dict[str, Any]] = []
    digests = set()
    for path in paths:
        checkpoint = load_checkpoint(path)
        report, training = checkpoint.metrics.get("test"), checkpoint.training
        if not report:
            raise ValueError(f"{path} holds no test report: name a training that was no trial")
        digests.add(training.get("data_digest"))
        figures = {name: report[name]["value"] for name in SEED_FIGURES}
        seed = training.get("config", {}).get("seed")
        runs.append({"seed": seed, "best_epoch": training.get("best_epoch"), **figures})
    if not runs:
        return None
    if len(digests) > 1:
        raise ValueError("the checkpoints of the seeds were trained on different films or splits")
    return {"runs": runs, "spread": {name: _spread(runs, name) for name in SEED_FIGURES}}


def _spread(runs: Sequence[Mapping[str, Any]], name: str) -> dict[str, float | None]:
    values = [run[name] for run in runs if run[name] is not None]
    if not values:
        return dict.fromkeys(("mean", "deviation", "low", "high"))
    return {
        "mean": statistics.fmean(values),
        "deviation": statistics.stdev(values) if len(values) > 1 else None,
        "low": min(values),
        "high": max(values),
    }


def read_ablations(folder: Path) -> list[dict[str, Any]]:
    """Read what `benchmarks.ablations` wrote: one JSON file for each network, sorted by file.

    Raises:
        ValueError: if the folder holds none, a file lacks a field, or the networks did not have
            the same films, epochs and recipe, but for what each leaves out.
    """
    found = []
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        missing = [name for name in _NEEDED if name not in content]
        if missing:
            raise ValueError(f"{path} lacks {', '.join(missing)}: remove it and measure it again")
        found.append(content)
    if not found:
        raise ValueError(f"{folder} holds no JSON: run python -m benchmarks.ablations")
    for name in _SAME_BUDGET:
        if any(content[name] != found[0][name] for content in found):
            raise ValueError(f"the ablations in {folder} differ in {name}: measure them alike")
    return found
