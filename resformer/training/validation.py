"""Figures of a network on the validation films after an epoch."""

from __future__ import annotations

import numpy as np
import torch
from scipy.special import log_softmax
from sklearn.metrics import f1_score

from resformer.data.dataset import FilmDataset
from resformer.training.engine import split_logits


def validate(model: torch.nn.Module, films: FilmDataset, device: torch.device) -> dict[str, float]:
    """Return mean cross-entropy, accuracy and macro-F1 of a network on the validation films."""
    logits = split_logits(model, films, device)
    predicted, classes = logits.argmax(axis=1), range(logits.shape[1])
    log_likelihood = log_softmax(logits, axis=1)[np.arange(len(films)), films.labels]
    return {
        "validation_loss": float(-log_likelihood.mean()),
        "validation_accuracy": float((predicted == films.labels).mean()),
        "validation_macro_f1": float(
            f1_score(films.labels, predicted, average="macro", labels=classes, zero_division=0)
        ),
    }
