"""Tables of an evaluation, as plain rows that a data frame or a text file takes.

Where the weights of a checkpoint come from: the trainings before its own.

Trainings of one recipe side by side: other seeds, and networks that lack a part.

Everything that is measured of a shipped model, as the one report that all texts quote.

Writing an evaluation to a folder: `metrics.json` and one PNG for each picture.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from numpy.typing import NDArray

from resformer.checkpoint import Checkpoint, load_checkpoint
from resformer.data.find import DataRoot
from resformer.data.manifest import Manifest, describe_manifest
from resformer.evaluation.answers import (
    Answers,
    answer_films,
    evaluate_abstention,
    plot_risk_coverage,
)
from resformer.evaluation.controls import run_controls
from resformer.evaluation.external import evaluate_sources
from resformer.evaluation.metrics import CLASS_METRICS, check_predictions, evaluate_predictions
from resformer.evaluation.plots import (
    plot_confusion_matrix,
    plot_history,
    plot_reliability,
    plot_roc,
)
from resformer.predict import Predictor
from resformer.training.films import Workspace

_OVERALL = ("accuracy", *(f"macro_{name}" for name in CLASS_METRICS), "expected_calibration_error")


def format_estimate(estimate: Mapping[str, float | None]) -> str:
    """Return an estimate of `evaluate_predictions` as ``0.912 (0.871 to 0.944)``."""
    value, low, high = (estimate[key] for key in ("value", "low", "high"))
    if value is None:
        return "undefined"
    return f"{value:.3f}" if low is None else f"{value:.3f} ({low:.3f} to {high:.3f})"


def overall_table(report: Mapping[str, Any]) -> dict[str, str]:
    """Return the scores over all films with their intervals, by name."""
    return {name: format_estimate(report[name]) for name in _OVERALL}


def class_table(report: Mapping[str, Any]) -> dict[str, dict[str, int | str]]:
    """Return the scores of each class against the rest with their intervals, by class name."""
    return {
        name: {"support": scores["support"]}
        | {metric: format_estimate(scores[metric]) for metric in CLASS_METRICS}
        for name, scores in report["per_class"].items()
    }


@dataclass(frozen=True)
class Mistake:
    """A film that the network put into the wrong class.

    Attributes:
        path: of the film, relative to the data set.
        true_class: the label.
        predicted_class: the most probable class.
        probability: of the predicted class.
        true_probability: of the label.
    """

    path: str
    true_class: str
    predicted_class: str
    probability: float
    true_probability: float


def worst_mistakes(
    paths: Sequence[str],
    labels: npt.NDArray[Any],
    probabilities: npt.NDArray[Any],
    class_names: Sequence[str],
    *,
    count: int = 12,
) -> list[Mistake]:
    """Return the wrongly classified films, those first whose label was thought least probable.

    Args:
        paths: of N films.
        labels: `(N,)` integer class indices.
        probabilities: `(N, K)`, each row sums to 1.
        class_names: the K class names, in column order.
        count: how many at most.

    Raises:
        ValueError: the arguments do not fit together.
    """
    labels, probabilities = check_predictions(labels, probabilities, class_names)
    if len(paths) != labels.size:
        raise ValueError(f"give one path for each film: {len(paths)} paths, {labels.size} films")
    films = np.arange(labels.size)
    predicted = probabilities.argmax(axis=1)
    of_label = probabilities[films, labels]
    wrong = films[predicted != labels]
    worst = wrong[np.argsort(of_label[wrong], kind="stable")][:count]
    return [
        Mistake(
            path=paths[film],
            true_class=class_names[labels[film]],
            predicted_class=class_names[predicted[film]],
            probability=float(probabilities[film, predicted[film]]),
            true_probability=float(of_label[film]),
        )
        for film in worst
    ]


def list_stages(training: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return what a checkpoint tells of its training, after all that it started from.

    A mean of several trainings started from each of them; what these have in common comes once.
    """
    stages: list[Mapping[str, Any]] = []
    for initial in initial_trainings(training):
        stages += [stage for stage in list_stages(initial) if stage not in stages]
    return [*stages, training]


def tell_stages(training: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the stages of :func:`list_stages`, none of which holds another.

    Returns:
        copies without ``initial``; those whose weights were averaged have a true ``averaged``.
    """
    initial = initial_trainings(training)
    means = initial if len(initial) > 1 else []
    return [
        {name: value for name, value in stage.items() if name != "initial"}
        | {"averaged": stage in means}
        for stage in list_stages(training)
    ]


def initial_trainings(training: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the trainings whose weights a training started from: none, one, or those of a mean."""
    initial = training.get("initial") or []
    return list(initial) if isinstance(initial, list) else [initial]


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


_DOTS_PER_INCH = 150


def write_report(
    report: Mapping[str, Any],
    labels: npt.NDArray[Any],
    probabilities: npt.NDArray[Any],
    history: Sequence[Mapping[str, float]],
    folder: Path,
) -> list[Path]:
    """Write `metrics.json` and the pictures, and return the files written.

    Args:
        report: what `evaluate_predictions` returned for these labels and probabilities.
        labels: `(N,)` integer class indices.
        probabilities: `(N, K)`, each row sums to 1.
        history: one entry for each epoch; empty leaves `history.png` out.
        folder: is made where it does not exist; files of the same names are replaced.

    Raises:
        ValueError: labels, probabilities or history that the plots cannot draw.
        OSError: the folder cannot be written.
    """
    figures = {
        "confusion_matrix": plot_confusion_matrix(report),
        "roc": plot_roc(labels, probabilities, report["class_names"]),
        "reliability": plot_reliability(labels, probabilities),
    }
    if history:
        figures["history"] = plot_history(history)
    folder.mkdir(parents=True, exist_ok=True)
    metrics = write_json(report, folder / "metrics.json")
    return [metrics, *save_figures(figures, folder)]


def write_training_report(
    metrics: Mapping[str, Any], history: Sequence[Mapping[str, float]], folder: Path
) -> list[Path]:
    """Write what a checkpoint tells of its training, and return the files written.

    Args:
        metrics: reports of `evaluate_predictions` by split.
        history: one entry for each epoch.
        folder: is made where it does not exist; files of the same names are replaced.

    Raises:
        ValueError: a history that cannot be drawn.
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [
        write_json(metrics, folder / "metrics.json"),
        write_json(history, folder / "history.json"),
    ]
    figures = {f"confusion_matrix_{s}": plot_confusion_matrix(r) for s, r in metrics.items()}
    return [*files, *save_figures({"history": plot_history(history), **figures}, folder)]


def save_figures(
    figures: Mapping[str, Figure], folder: Path, *, dots_per_inch: int = _DOTS_PER_INCH
) -> list[Path]:
    """Write each figure as `<name>.png` into an existing folder and return the files."""
    paths = [folder / f"{name}.png" for name in figures]
    for path, figure in zip(paths, figures.values(), strict=True):
        figure.savefig(path, dpi=dots_per_inch)
    return paths


def write_json(content: Any, path: Path, *, sort_keys: bool = False) -> Path:
    """Write plain data for people to read as well, and return the file written."""
    text = json.dumps(content, indent=2, allow_nan=False, sort_keys=sort_keys)
    path.write_text(text + "\n", encoding="utf-8")
    return path
