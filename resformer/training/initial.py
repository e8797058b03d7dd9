"""Weights of an earlier training, made to fit the network that is trained further."""

from __future__ import annotations

from dataclasses import replace

from resformer.checkpoint import Checkpoint
from resformer.model import ResFormerConfig


def fit_initial(
    initial: Checkpoint, network: ResFormerConfig, class_names: tuple[str, ...]
) -> Checkpoint:
    """Return a checkpoint whose weights fit a network.

    Statistics pooling may be new: the weights of the standard deviations are 0 then, so that the
    network says what it said before.

    Args:
        initial: the earlier training's.
        network: what is trained.
        class_names: of the films that it is trained on.

    Returns:
        the checkpoint itself, or one without gate, graph and abstention, which were its own.

    Raises:
        ValueError: if the weights are those of another network or of other classes.
    """
    if initial.class_names != class_names:
        raise ValueError(
            f"the initial weights know {', '.join(initial.class_names)}, the films are of "
            f"{', '.join(class_names)}: train these without initial weights"
        )
    if initial.model_config == network:
        return initial
    if replace(initial.model_config, statistics_pooling=True) != network:
        raise ValueError(
            f"the initial weights are of the network {initial.model_config}, not of {network}: "
            "give the options that it was trained with"
        )
    weight = initial.state_dict["fc.weight"]
    widened = weight.new_zeros(network.num_classes, network.pooled_width)
    widened[:, : weight.shape[1]] = weight
    return replace(
        initial,
        model_config=network,
        state_dict={**initial.state_dict, "fc.weight": widened},
        gate=None,
        graph=None,
        abstention=None,
    )
