"""Fits a gate: the subspaces of the films, the weights of the evidence, the threshold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from resformer.gate.gate import Gate
from resformer.gate.samples import Blocks, GateConfig, GateSamples, join_blocks
from resformer.gate.subspace import LEAST_SCALE, Subspace, principal_directions


def fit_gate(samples: GateSamples, config: GateConfig) -> Gate:
    """Fit a gate.

    Films as they are weigh as much as varied films, films as much as outliers, and a kind of
    outliers by the square root of its size.

    Args:
        samples: descriptions of films and outliers.
        config: how to fit.

    Raises:
        ValueError: if there is no outlier to fit on.
    """
    if not samples.outliers:
        raise ValueError("the gate needs outliers to fit on: give a folder of them or let it draw")
    films = join_blocks([samples.films, samples.varied])
    subspaces = tuple(_fit_subspace(block, config.directions) for block in films)
    length = sum(len(subspace.deviation) + 2 for subspace in subspaces)
    unfitted = Gate(subspaces, torch.zeros(length), 0.0)
    weights, bias = _fit_weights(unfitted, samples, config.inverse_penalty)
    fitted = replace(unfitted, weights=weights, bias=bias)
    return replace(fitted, bias=bias - _threshold(fitted, samples.validation, config))


def _fit_subspace(block: Tensor, most: int) -> Subspace:
    """Return the principal directions of films ``(N, D)``."""
    mean, scale = block.mean(0), block.std(0).clamp(min=LEAST_SCALE)
    scaled = ((block - mean) / scale).double()
    directions, variances = principal_directions(scaled.T @ scaled / len(scaled), most)
    return Subspace(
        mean=mean,
        scale=scale,
        basis=directions.float().contiguous(),
        deviation=variances.sqrt().float(),
    )


def _fit_weights(gate: Gate, samples: GateSamples, inverse_penalty: float) -> tuple[Tensor, float]:
    """Return weights ``(E,)`` and bias of a logistic regression of films against outliers."""
    from sklearn.linear_model import LogisticRegression

    films = [gate.evidence(samples.films), gate.evidence(samples.varied)]
    outliers = [gate.evidence(blocks) for blocks in samples.outliers.values()]
    evidence = torch.cat(films + outliers).double()
    mean = evidence[: len(films[0])].mean(0)
    scale = evidence[: sum(map(len, films))].std(0).clamp(min=LEAST_SCALE)
    film_shares = [np.full(len(part), 0.25 / len(part)) for part in films]
    outlier_shares = [np.full(len(part), len(part) ** -0.5) for part in outliers]
    total = 2 * sum(float(part.sum()) for part in outlier_shares)
    shares = np.concatenate(film_shares + [part / total for part in outlier_shares])
    labels = np.repeat([1, 0], [sum(map(len, films)), sum(map(len, outliers))])
    regression = LogisticRegression(C=inverse_penalty, max_iter=500)
    regression.fit(((evidence - mean) / scale).numpy(), labels, sample_weight=shares * len(shares))
    weights = torch.from_numpy(regression.coef_[0]) / scale
    return weights.float(), float(regression.intercept_[0] - weights @ mean)


def _threshold(gate: Gate, validation: Blocks, config: GateConfig) -> float:
    """Return the logit below which the chosen share of the validation films lies."""
    logits = gate.evidence(validation).double() @ gate.weights.double() + gate.bias
    return float(torch.quantile(logits, config.refused_share))
