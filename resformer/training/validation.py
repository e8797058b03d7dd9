"""Figures of a network after an epoch: on the validation films, and on these in foreign style.

A network that learns longer does better on films of the hospitals that it was trained on, and often
worse elsewhere. The validation films in the surroundings, the tone and the sharpness of films of
other classes say some of that without any film from elsewhere.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.special import log_softmax
from sklearn.metrics import f1_score

from resformer.data.dataset import FilmDataset
from resformer.evaluation.controls import CONTROLS, FOREIGN, change_films, choose_donors
from resformer.evaluation.lungs import predict_lungs
from resformer.model import IdentityMappingResFormer
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


def make_foreign(films: FilmDataset, outliner: IdentityMappingResFormer, seed: int) -> FilmDataset:
    """Give films the surroundings, the tone and the sharpness of films of other classes.

    Args:
        films: as they are served.
        outliner: says where their lungs are; in evaluation mode, with a lung head.
        seed: of which film lends to which.

    Raises:
        ValueError: if all films are of one class.
    """
    pixels = np.asarray(films.films)
    outlines = predict_lungs(outliner, pixels, films.spec)
    donors = choose_donors(films.labels, seed)
    changed = np.stack([*change_films(CONTROLS[FOREIGN], pixels, outlines, donors)])
    return FilmDataset(changed, films.labels, films.spec)
