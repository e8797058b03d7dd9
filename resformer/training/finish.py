"""What a trained network is given at the end: calibration, figures, a gate, an abstention, files.

Gate and abstention can be fitted again later, by ``python -m resformer fit-gate``; with the
split it also counts the track record again, of what they let through.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from resformer.abstention import AbstentionConfig, FilmFeatures, fit_abstention
from resformer.backends import PyTorchBackend
from resformer.checkpoint import Checkpoint, save_checkpoint
from resformer.devices import place_model
from resformer.evaluation.metrics import evaluate_predictions
from resformer.evaluation.predictions import predict_films
from resformer.evaluation.report import split_reports, write_training_report
from resformer.evaluation.tables import format_estimate
from resformer.export import add_graph_if_possible
from resformer.inference import fold_batch_norm
from resformer.predict import Predictor
from resformer.track_record import KEY as TRACK_RECORD
from resformer.track_record import count_track_records
from resformer.training.calibration import fit_calibration
from resformer.training.data import TrainingData
from resformer.training.gate_fit import (
    Describer,
    GateConfig,
    collect_samples,
    fit_gate,
    read_outliers,
)
from resformer.transforms import InputSpec, resize_pixels, to_input

logger = logging.getLogger(__name__)

_BATCH_SIZE = 64


def compute_logits(
    model: nn.Module, films: NDArray[np.uint8], spec: InputSpec
) -> NDArray[np.float64]:
    """Return the logits of films ``(N, H, W)``, ``(N, num_classes)``.

    The network takes images ``(B, 1, H, W)``, is in evaluation mode and has its channels last.
    """
    device = next(model.parameters()).device
    found = []
    with torch.inference_mode():
        for start in range(0, len(films), _BATCH_SIZE):
            batch = [
                to_input(film, spec) for film in np.asarray(films[start : start + _BATCH_SIZE])
            ]
            images = torch.stack(batch).to(device, memory_format=torch.channels_last)
            found.append(model(images).cpu().double())
    logits: NDArray[np.float64] = torch.cat(found).numpy()
    return logits


def calibrate(checkpoint: Checkpoint, data: TrainingData, device: torch.device) -> Checkpoint:
    """Fit temperature and class offsets of an uncalibrated checkpoint on the validation films."""
    logger.info("fitting the calibration")
    films = data.evaluation_films("validation")
    model = place_model(fold_batch_norm(checkpoint.build_model()), device)
    logits = compute_logits(model, films.films, data.spec)
    return fit_calibration(logits, films.labels).apply(checkpoint)


def evaluate(
    checkpoint: Checkpoint,
    data: TrainingData,
    split: str,
    device: torch.device,
    *,
    seed: int,
    progress: bool = False,
) -> dict[str, Any]:
    """Return the report of a split, of what :class:`resformer.predict.Predictor` answers."""
    logger.info("measuring on the %s films", split)
    films = data.evaluation_films(split, progress=progress)
    predictor = Predictor(checkpoint, str(device), "torch")
    probabilities = predict_films(predictor, films.films).probabilities
    return evaluate_predictions(films.labels, probabilities, checkpoint.class_names, seed=seed)


def warn_of_guessing(report: Mapping[str, Any]) -> None:
    """Warn where a report is not clearly better than that of always naming the same class.

    That is where the interval of the accuracy reaches down to the share of the most frequent class.
    """
    supports = {name: scores["support"] for name, scores in report["per_class"].items()}
    frequent = max(supports, key=supports.__getitem__)
    share, accuracy = supports[frequent] / report["count"], report["accuracy"]
    if accuracy["low"] > share:
        return
    logger.warning(
        "%s than always naming %s, on %d validation films: accuracy %s against %.3f. Do not rely "
        "on this model: train for longer, or on more films",
        "no better" if accuracy["value"] <= share else "not clearly better",
        frequent,
        report["count"],
        format_estimate(accuracy),
        share,
    )


def add_gate(
    checkpoint: Checkpoint,
    data: TrainingData,
    outliers: Mapping[str, Sequence[Path]],
    device: torch.device,
    config: GateConfig,
    progress: bool = False,
) -> Checkpoint:
    """Return a checkpoint with a gate for its network, in place of the one that it may have.

    It is fitted on films of the training split against outliers (files by kind, to which others
    are added); those of validation set the threshold.

    Raises:
        ValueError: if a split is empty.
    """
    logger.info("fitting the gate")
    samples = collect_samples(
        Describer(PyTorchBackend(checkpoint, device), checkpoint.input_spec.size),
        data.training_films(progress=progress).films,
        data.evaluation_films("validation", progress=progress).films,
        read_outliers(outliers),
        config,
        progress=progress,
    )
    return replace(checkpoint, gate=fit_gate(samples, config))


def add_abstention(
    checkpoint: Checkpoint,
    data: TrainingData,
    device: torch.device,
    *,
    progress: bool = False,
) -> Checkpoint:
    """Return a calibrated checkpoint with an abstention; a graph has to be exported again.

    It is fitted on films of the training split; those of validation set the thresholds.

    Raises:
        ValueError: if there are no validation films, or a class has no training film.
    """
    logger.info("fitting the abstention")
    training, validation = (
        find_features(checkpoint, data, split, device, progress=progress)
        for split in ("train", "validation")
    )
    num_classes = len(checkpoint.class_names)
    fitted = fit_abstention(training, validation, num_classes, AbstentionConfig())
    return replace(checkpoint, abstention=fitted)


def find_features(
    checkpoint: Checkpoint,
    data: TrainingData,
    split: str,
    device: torch.device,
    *,
    progress: bool = False,
) -> FilmFeatures:
    """Return what a checkpoint's network makes of the films of a split."""
    backend, size = PyTorchBackend(checkpoint, device), checkpoint.input_spec.size
    films = data.training_films() if split == "train" else data.evaluation_films(split)
    features, confidence = [], []
    starts, label = range(0, len(films.films), _BATCH_SIZE), f"abstention, {split}"
    for start in tqdm(starts, desc=label, unit="batch", disable=None if progress else True):
        batch = np.asarray(films.films[start : start + _BATCH_SIZE])
        outputs = backend.compute(np.stack([resize_pixels(film, size) for film in batch]))
        features.append(torch.from_numpy(outputs.features))
        confidence.append(torch.from_numpy(outputs.probabilities).max(dim=1).values)
    labels = torch.from_numpy(films.labels)
    return FilmFeatures(torch.cat(features), torch.cat(confidence), labels)


def add_track_record(
    checkpoint: Checkpoint, data: TrainingData, device: torch.device, *, progress: bool = False
) -> Checkpoint:
    """Return a finished checkpoint with how often its classes are right on test films.

    Raises:
        ValueError: if there are no test films.
    """
    logger.info("counting on the test films how often each class is right")
    films = data.evaluation_films("test", progress=progress)
    found = predict_films(Predictor(checkpoint, str(device), "torch"), films.films)
    counted = count_track_records(
        films.labels, found.predicted, found.shown, checkpoint.class_names
    )
    return replace(checkpoint, metrics={**checkpoint.metrics, TRACK_RECORD: counted})


def write_results(checkpoint: Checkpoint, folder: Path, out: Path, *, trial: bool) -> Checkpoint:
    """Write a finished checkpoint to ``out``, and its report and plots into the run's folder.

    Returns:
        the checkpoint as it was written: with an ONNX graph, unless it is a trial or the network
        cannot be exported.
    """
    save_checkpoint(checkpoint, out)  # first of all, whatever becomes of the rest
    write_training_report(checkpoint.metrics, checkpoint.training["history"], folder)
    if not trial:
        checkpoint = add_graph_if_possible(checkpoint)
        save_checkpoint(checkpoint, out)
    log_summary(checkpoint.metrics)
    logger.info("wrote %s", out)
    return checkpoint


def log_summary(metrics: Mapping[str, Any]) -> None:
    """Log the headline figures of each split, which differ from those of the epochs."""
    for split, report in split_reports(metrics).items():
        for name in ("accuracy", "macro_f1"):
            logger.info("%s %s after calibration: %s", split, name, format_estimate(report[name]))
