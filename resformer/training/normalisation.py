"""Measures the statistics of batch normalisation on films as they are served.

While a network learns, its layers average the statistics of varied films: sharpened, blurred,
covered, in foreign surroundings. Wu and Johnson, "Rethinking 'Batch' in BatchNorm"
(arXiv:2105.07576), measure them anew once the weights are fixed ("precise" statistics) and show
that the data they come from must be the data that the network will see. Here these are training
films without any variation.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from resformer.data.dataset import FilmDataset

_BATCH_SIZE = 64


@torch.no_grad()
def measure_normalisation(model: nn.Module, films: FilmDataset, count: int, seed: int = 0) -> None:
    """Replace the means and variances of all batch normalisation of a network, in place.

    Args:
        model: in evaluation mode, in which it is left.
        films: without augmentation.
        count: how many of them to use, drawn at random; all where there are no more.
        seed: of the draw.

    Raises:
        ValueError: if the network is in training mode, or there is no film to use.
    """
    if model.training:
        raise ValueError("the weights must be fixed first: call eval()")
    if count < 1 or not len(films):
        raise ValueError(f"cannot measure statistics on {min(count, len(films))} films: give some")
    layers = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the plain average over all batches
        layer.train()
    device = next(model.parameters()).device
    drawn = np.random.default_rng(seed).permutation(len(films))[:count]
    # Batches of one size, or the last one would count for more than its films.
    for chosen in np.array_split(drawn, max(1, round(len(drawn) / _BATCH_SIZE))):
        images = torch.stack([films[0, int(index)].image for index in chosen]).to(device)
        model(images.contiguous(memory_format=torch.channels_last))
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
        layer.eval()
