"""Everything that is measured of a model, as the one report that card, README and page quote.

:func:`measure` classifies the test split as serving would; :func:`assemble` puts its figures beside
those of other hospitals, of other seeds, and of networks that lack a part. Also the folders of
figures that ``train`` and ``evaluate`` write.
"""

from __future__ import annotations

import json
import logging
import statistics
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from resformer.backends import choose_backend
from resformer.checkpoint import Checkpoint, load_checkpoint
from resformer.data.dataset import class_indices
from resformer.data.find import DataRoot
from resformer.data.manifest import Manifest, describe_manifest
from resformer.data.masks import cache_films
from resformer.data.split import SPLITS
from resformer.evaluation import plots, sources
from resformer.evaluation.controls import outline_lungs, run_controls
from resformer.evaluation.external import examine_folder
from resformer.evaluation.goals import Goal, compare_with_goals
from resformer.evaluation.lineage import describe_model
from resformer.evaluation.metrics import evaluate_predictions
from resformer.evaluation.predictions import (
    evaluate_abstention,
    pool_features,
    predict_files,
)
from resformer.evaluation.tables import AREAS, HEADLINES, SEED_FIGURES
from resformer.predict import Predictor
from resformer.track_record import KEY, count_track_records

logger = logging.getLogger(__name__)

# What a checkpoint keeps of the report beside its figures of the splits.
KEPT = (
    "sources",
    "within_sources",
    "readings",
    "traces",
    "abstention",
    "controls",
    "external",
    "seeds",
    "ablations",
    "goals",
    "about",
)
_SAME_BUDGET = ("epochs", "data", "config")
_OF_ABLATION = (
    *_SAME_BUDGET,
    "name",
    "seed",
    "parameters",
    "seconds",
    "validation",
    "within_sources",
    "elsewhere",
    "lungs_blacked_out",
)
_DOTS_PER_INCH = 150


def check_classes(predictor: Predictor, manifest: Manifest) -> None:
    """Make sure that a manifest is one of the checkpoint's classes.

    Raises:
        ValueError: if it is not.
    """
    if tuple(manifest.class_names) != tuple(predictor.class_names):
        raise ValueError(
            f"the checkpoint knows {', '.join(predictor.class_names)}, the manifest "
            f"{', '.join(manifest.class_names)}: give one of the same classes"
        )


def measure(
    predictor: Predictor,
    root: DataRoot,
    manifest: Manifest,
    *,
    lung_model: Predictor | None = None,
    before: Predictor | Mapping[str, Any] | None = None,
    bootstrap: int = 1000,
    progress: bool = False,
) -> tuple[dict[str, Any], dict[str, Figure]]:
    """Classify the test split, and again under every control.

    Args:
        predictor: what is measured.
        root: what the manifest's paths are relative to.
        manifest: films and their split.
        lung_model: one with a lung head; without it the controls that need lungs are left out.
        before: another network, in whose features the sources are looked for as well, or what was
            found there before (:func:`quote_traces`).
        bootstrap: number of bootstrap samples.
        progress: whether to draw progress bars.

    Returns:
        ``test``, what ``evaluate_predictions`` gives; ``sources``, ``within_sources``, ``readings``
        and ``traces`` (see :mod:`resformer.evaluation.sources`; of ``model`` and ``before``);
        ``abstention``; ``track_record``; ``controls``, the reports of ``run_controls`` in order,
        each with its ``name``. And the pictures by name.

    Raises:
        ValueError: if the manifest's classes are not the checkpoint's, no film can be read, or what
            is quoted of ``before`` was found on other films.
    """
    check_classes(predictor, manifest)
    names = predictor.class_names
    healthy = sources.find_healthy_class(predictor.checkpoint.training, names)
    every = manifest.subset("test")
    read, found = predict_files(predictor, root, [row.path for row in every], progress=progress)
    rows = [every[index] for index in read]
    labels = class_indices(rows, names)
    test = evaluate_predictions(labels, found.probabilities, names, bootstrap=bootstrap)

    size = predictor.checkpoint.input_spec.size
    with tempfile.TemporaryDirectory() as folder:
        films = cache_films(root, rows, size, Path(folder), progress=progress)
        traces = {"model": _trace(predictor, films, rows, bootstrap)}
        if isinstance(before, Predictor):
            others = cache_films(root, rows, before.checkpoint.input_spec.size, Path(folder))
            traces["before"] = _trace(before, others, rows, bootstrap)
            del others  # a memory map of a file in the folder
        elif before is not None:
            traces["before"] = dict(before)
            if _count_traced(before) != _count_traced(traces["model"]):
                raise ValueError(
                    "the report of --before counts other test films: name a checkpoint instead"
                )
        outlines = outline_lungs(lung_model, films) if lung_model else None
        controls = run_controls(
            predictor, films, labels, outlines, bootstrap=bootstrap, progress=progress
        )
        del films  # as above
    abstention = evaluate_abstention(labels, found)
    figures = {
        "test": test,
        "sources": sources.count_by_source(rows, found, names),
        "within_sources": sources.evaluate_within_sources(
            rows, found, names, healthy_class=healthy, bootstrap=bootstrap
        ),
        "readings": sources.compare_readings(rows, found, names, healthy_class=healthy),
        "traces": traces,
        "abstention": abstention,
        KEY: count_track_records(labels, found.predicted, found.shown, names),
        "controls": [{"name": name, **report} for name, report in controls.items()],
    }
    pictures = {
        "confusion_matrix": plots.plot_confusion_matrix(test),
        "roc": plots.plot_roc(labels, found.probabilities, names),
        "reliability": plots.plot_reliability(labels, found.probabilities),
        "risk_coverage": plots.plot_risk_coverage(labels, found.probabilities, abstention),
    }
    return figures, pictures


def _trace(
    predictor: Predictor, films: npt.NDArray[np.uint8], rows: Sequence[Any], bootstrap: int
) -> dict[str, Any]:
    """Look for the sources in a network's features of films; by class, and which network."""
    checkpoint = predictor.checkpoint
    backend = choose_backend(checkpoint, predictor.device, predictor.backend)
    features = pool_features(backend, films, checkpoint.input_spec.size)
    return {
        "source": checkpoint.source,
        "classes": sources.trace_sources(features, rows, bootstrap=bootstrap),
    }


def _count_traced(traces: Mapping[str, Any]) -> dict[str, Any]:
    return {name: found["sources"] for name, found in traces["classes"].items()}


def quote_traces(path: Path, source: str) -> dict[str, Any]:
    """Return what a report found of the sources in the features of the network that it is of.

    That is how a network whose weights this version cannot read is compared with.

    Args:
        path: the ``report.json``.
        source: fingerprint of the network to compare with it. If the report is of that one, what it
            says of the network before is returned.

    Raises:
        ValueError: if it is no report of ``python -m resformer report``, or tells of no other
            network than this one.
    """
    try:
        traces = json.loads(path.read_text(encoding="utf-8"))["traces"]
        known = [
            {
                "source": str(found["source"]),
                "classes": {
                    name: {"sources": dict(each["sources"]), "auc": dict(each["auc"])}
                    for name, each in found["classes"].items()
                },
            }
            for found in (traces["model"], traces.get("before"))
            if found is not None
        ]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no report.json of python -m resformer report") from error
    others = [found for found in known if found["source"] != source]
    if not others:
        raise ValueError(f"{path} tells of no other network than this one: name another --before")
    return others[0]


def read_about(path: Path) -> dict[str, Any]:
    """Read what only people know of a model's data and making, for its card.

    Returns:
        ``statements``: by name of :data:`resformer.evaluation.card.STATEMENTS`, a sentence or more;
        ``terms``: explanations of names of sets and sources; ``goals``: see
        :mod:`resformer.evaluation.goals`.

    Raises:
        ValueError: if it is not TOML, or has other tables than these, values that are no text, or
            a goal that is none.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid TOML: {error}") from error
    about: dict[str, Any] = {"statements": {}, "terms": {}, "goals": {}} | content
    for table, values in about.items():
        texts = isinstance(values, dict) and all(isinstance(v, str) for v in values.values())
        if table not in ("statements", "terms", "goals") or not texts:
            raise ValueError(
                f"{path}: expected the tables [statements], [terms] and [goals] of texts"
            )
    for gauge, text in about["goals"].items():
        Goal.parse(gauge, text)
    return about


def assemble(
    checkpoint: Checkpoint,
    manifest: Manifest,
    measured: Mapping[str, Any],
    *,
    external: Mapping[str, Any] | None = None,
    seeds: Mapping[str, Any] | None = None,
    ablations: list[dict[str, Any]] | None = None,
    about: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Put the parts together: ``model``, ``data``, those of :func:`measure`, and the others.

    Returns:
        plain data, the same that is read back from its JSON.

    Raises:
        ValueError: if a figure is no finite number.
    """
    report = {
        "model": describe_model(checkpoint),
        "data": describe_manifest(manifest)
        | {"composition": sources.describe_composition(manifest)},
        **measured,
        "external": external,
        "seeds": seeds,
        "ablations": ablations,
        "about": about,
    }
    report["goals"] = compare_with_goals(report, about["goals"]) if about else []
    plain: dict[str, Any] = json.loads(json.dumps(report, allow_nan=False))
    return plain


def keep_in(metrics: Mapping[str, Any], report: Mapping[str, Any]) -> dict[str, Any]:
    """Return a checkpoint's metrics with the report's test figures and its compact parts."""
    kept = {name: report[name] for name in KEPT if report[name] is not None}
    return {**metrics, "test": report["test"], KEY: report[KEY], "report": kept}


def compare_seeds(
    paths: Sequence[Path], external: Path | None = None, device: str = "auto"
) -> dict[str, Any] | None:
    """Tabulate the test reports that checkpoints hold, and what each says of other hospitals.

    Args:
        paths: of the checkpoints.
        external: folder of films of other hospitals, as for ``examine_folder``.
        device: as for ``Predictor``.

    Returns:
        ``runs``: for each checkpoint its ``seed``, ``best_epoch`` and ``SEED_FIGURES``, plain
        values, None where there are no such films; ``spread``: by figure ``mean``, ``deviation``
        (of the sample, None for one run), ``low`` and ``high``. None without a checkpoint.

    Raises:
        CheckpointError: if one cannot be read.
        ValueError: if one holds no test report, or the films are not the same.
        DatasetError: as ``examine_folder``.
    """
    runs: list[dict[str, Any]] = []
    digests = set()
    for path in paths:
        checkpoint = load_checkpoint(path)
        report, training = checkpoint.metrics.get("test"), checkpoint.training
        if not report:
            raise ValueError(f"{path} holds no test report: name a training that was no trial")
        digests.add(training.get("data_digest"))
        figures = {name: report[name]["value"] for name in HEADLINES}
        best = training["best_epoch"]
        figures["validation_score"] = training["history"][best - 1]["validation_score"]
        runs.append({"seed": training["config"]["seed"], "best_epoch": best, **figures})
    if not runs:
        return None
    if len(digests) > 1:
        raise ValueError("the checkpoints of the seeds were trained on different films or splits")
    for run, path in zip(runs, paths, strict=True):
        run |= dict.fromkeys(AREAS)
        if external:
            predictor = Predictor.from_file(path, device)
            found = examine_folder(predictor, external, bootstrap=0)
            run |= {name: (found[name]["auc"] or {}).get("value") for name in AREAS}
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
    """Read what ``benchmarks.ablations`` wrote: a JSON file for each network and seed, in order.

    Raises:
        ValueError: if the folder holds none, a file lacks a field, or the networks did not have
            the same films, epochs and recipe, but for what each leaves out.
    """
    found = []
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        missing = [name for name in _OF_ABLATION if name not in content]
        if missing:
            raise ValueError(f"{path} lacks {', '.join(missing)}: remove it and measure it again")
        found.append(content)
    if not found:
        raise ValueError(f"{folder} holds no JSON: run python -m benchmarks.ablations")
    for name in _SAME_BUDGET:
        if any(content[name] != found[0][name] for content in found):
            raise ValueError(f"the ablations in {folder} differ in {name}: measure them alike")
    return found


def write_evaluation(
    report: Mapping[str, Any],
    labels: npt.NDArray[Any],
    probabilities: npt.NDArray[Any],
    folder: Path,
) -> list[Path]:
    """Write ``metrics.json`` and the pictures, and return the files written.

    Raises:
        ValueError: if the plots cannot draw labels or probabilities.
        OSError: if the folder cannot be written.
    """
    pictures = {
        "confusion_matrix": plots.plot_confusion_matrix(report),
        "roc": plots.plot_roc(labels, probabilities, report["class_names"]),
        "reliability": plots.plot_reliability(labels, probabilities),
    }
    folder.mkdir(parents=True, exist_ok=True)
    return [write_json(report, folder / "metrics.json"), *save_figures(pictures, folder)]


def split_reports(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the reports of splits among a checkpoint's metrics; its track record is none."""
    return {split: metrics[split] for split in SPLITS if split in metrics}


def write_training_report(
    metrics: Mapping[str, Any], history: Sequence[Mapping[str, float]], folder: Path
) -> list[Path]:
    """Write what a checkpoint tells of its training, and return the files written.

    Raises:
        ValueError: if the history cannot be drawn.
        OSError: if the folder cannot be written.
    """
    logger.info("writing the report and its plots")
    folder.mkdir(parents=True, exist_ok=True)
    files = [
        write_json(metrics, folder / "metrics.json"),
        write_json(history, folder / "history.json"),
    ]
    pictures = {
        f"confusion_matrix_{split}": plots.plot_confusion_matrix(report)
        for split, report in split_reports(metrics).items()
    }
    return [*files, *save_figures({"history": plots.plot_history(history), **pictures}, folder)]


def save_figures(
    figures: Mapping[str, Figure], folder: Path, *, dots_per_inch: int = _DOTS_PER_INCH
) -> list[Path]:
    """Write each figure as ``<name>.png`` into an existing folder and return the files."""
    paths = [folder / f"{name}.png" for name in figures]
    for path, figure in zip(paths, figures.values(), strict=True):
        figure.savefig(path, dpi=dots_per_inch)
    return paths


def write_json(content: Any, path: Path, *, sort_keys: bool = False) -> Path:
    """Write plain data for people to read as well, and return the file written."""
    text = json.dumps(content, indent=2, allow_nan=False, sort_keys=sort_keys)
    path.write_text(text + "\n", encoding="utf-8")
    return path
