"""Everything that is measured of a shipped model, as the one report that all texts quote."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from resformer.checkpoint import Checkpoint
from resformer.data.composition import describe_manifest
from resformer.data.records import Manifest
from resformer.data.roots import DataRoot
from resformer.evaluation.answers import Answers
from resformer.evaluation.controls import run_controls
from resformer.evaluation.films import answer_films
from resformer.evaluation.lineage import tell_stages
from resformer.evaluation.metrics import evaluate_predictions
from resformer.evaluation.plots import plot_confusion_matrix, plot_reliability, plot_roc
from resformer.evaluation.risk_coverage import evaluate_abstention, plot_risk_coverage
from resformer.evaluation.subgroups import evaluate_sources
from resformer.inference import Predictor
from resformer.training.workspace import Workspace

# What a checkpoint keeps of the report beside its figures of the splits.
KEPT = ("sources", "abstention", "controls", "external", "seeds", "ablations")


def measure_split(
    predictor: Predictor, root: DataRoot, manifest: Manifest, *, bootstrap: int, progress: bool
) -> tuple[dict[str, Any], dict[str, Figure]]:
    """Classify the test split once; its figures and their pictures.

    Returns:
        ``test``, what ``evaluate_predictions`` gives, ``sources`` and ``abstention``; and the
        pictures by name.

    Raises:
        ValueError: if the manifest's classes are not the checkpoint's, or no film can be read.
    """
    if manifest.class_names != predictor.class_names:
        raise ValueError(
            f"the checkpoint knows {', '.join(predictor.class_names)}, the manifest "
            f"{', '.join(manifest.class_names)}: give one of the same classes"
        )
    items = [(row.path, row.class_name) for row in manifest.subset("test")]
    read, answers = answer_films(predictor, root, items, progress=progress)
    names = predictor.class_names
    labels = np.array([names.index(name) for _, name in read], dtype=np.int64)
    test = evaluate_predictions(labels, answers.probabilities, names, bootstrap=bootstrap)
    figures = {
        "test": test,
        "sources": evaluate_sources(read, answers, names),
        "abstention": evaluate_abstention(labels, answers),
    }
    return figures, _draw(test, labels, answers)


def measure_controls(
    predictor: Predictor,
    outliner: Predictor | None,
    root: DataRoot,
    manifest: Manifest,
    folder: Path,
    *,
    bootstrap: int,
    progress: bool,
) -> list[dict[str, Any]]:
    """Classify the test split under every control, its decoded films kept in a folder.

    Without an outliner, a network with a lung head, the controls that need lungs are left out.

    Returns:
        the reports of ``run_controls``, in order, each with its ``name``.
    """
    workspace = Workspace(root, manifest, folder, predictor.checkpoint.input_spec)
    films = workspace.evaluation_films("test", progress=progress)
    reports = run_controls(
        *(predictor, films.films, films.labels, outliner), bootstrap=bootstrap, progress=progress
    )
    return [{"name": name, **report} for name, report in reports.items()]


def describe_model(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what the checkpoint tells of itself and of its training, as plain data."""
    training = checkpoint.training
    history = training.get("history", [])
    stages = tell_stages(training)
    epochs = [entry for stage in stages for entry in stage.get("history", [])]
    return {
        "class_names": list(checkpoint.class_names),
        "parameters": sum(w.numel() for w in checkpoint.build_model().parameters()),
        "network": checkpoint.model_config.to_dict(),
        "input_size": checkpoint.input_spec.size,
        "temperature": checkpoint.temperature,
        "gate_threshold": checkpoint.gate.threshold if checkpoint.gate else None,
        "abstention": checkpoint.abstention.thresholds() if checkpoint.abstention else None,
        "source": checkpoint.source,
        "versions": checkpoint.versions,
        "config": training.get("config", {}),
        "films": training.get("films", {}),
        "best_epoch": training.get("best_epoch"),
        "epochs": len(history),
        "earlier": [
            {
                "config": stage["config"],
                "epochs": len(stage["history"]),
                "averaged": stage["averaged"],
            }
            for stage in stages[:-1]
        ],
        "training_seconds": sum(entry["seconds"] for entry in epochs),
        "process_seconds": sum(entry["seconds"] * entry.get("processes", 1) for entry in epochs),
        "lung_dice": training.get("lungs", {}).get("validation_dice"),
        "validation": checkpoint.metrics.get("validation"),
    }


def assemble(
    checkpoint: Checkpoint,
    manifest: Manifest,
    measured: Mapping[str, Any],
    *,
    controls: list[dict[str, Any]],
    external: Mapping[str, Any] | None,
    seeds: Mapping[str, Any] | None,
    ablations: list[dict[str, Any]] | None,
) -> dict[str, Any]:
    """Put the parts together: ``model``, ``data``, those of :func:`measure_split`, the others.

    Returns:
        plain data, the same that is read back from its JSON.

    Raises:
        ValueError: if a figure is no finite number.
    """
    report = {
        "model": describe_model(checkpoint),
        "data": describe_manifest(manifest),
        **measured,
        "controls": controls,
        "external": external,
        "seeds": seeds,
        "ablations": ablations,
    }
    plain: dict[str, Any] = json.loads(json.dumps(report, allow_nan=False))
    return plain


def keep_in(metrics: Mapping[str, Any], report: Mapping[str, Any]) -> dict[str, Any]:
    """Return a checkpoint's metrics with the report's test figures and its compact parts."""
    kept = {name: report[name] for name in KEPT if report[name] is not None}
    return {**metrics, "test": report["test"], "report": kept}


def _draw(
    test: Mapping[str, Any], labels: NDArray[np.int64], answers: Answers
) -> dict[str, Figure]:
    return {
        "confusion_matrix": plot_confusion_matrix(test),
        "roc": plot_roc(labels, answers.probabilities, test["class_names"]),
        "reliability": plot_reliability(labels, answers.probabilities),
        "risk_coverage": plot_risk_coverage(labels, answers),
    }
