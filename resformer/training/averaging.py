"""The mean of the weights of trainings that started from one network.

Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy
without increasing inference time", ICML 2022. All that are given are averaged alike; their greedy
choice among many is not made here. The statistics of batch normalisation are averaged too, as those
of the moving average of a training are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from resformer.checkpoint import Checkpoint, CheckpointError
from resformer.devices import choose_device
from resformer.evaluation.lineage import list_stages
from resformer.training.conclusion import complete, conclude
from resformer.training.config import TrainingConfig
from resformer.training.state import Progress
from resformer.training.workspace import Workspace


def average_trainings(
    checkpoints: Sequence[Checkpoint],
    workspace: Workspace,
    outliers: Mapping[str, Sequence[Path]],
    *,
    trial: bool = False,
    device: str = "auto",
    progress: bool = True,
) -> Checkpoint:
    """Average trained networks; calibrate, judge and complete the mean as a training does.

    Args:
        checkpoints: two or more of one network that were trained on one split, from one start.
        workspace: the films of that split, at the size that the networks expect.
        outliers: files of pictures that the gate shall refuse, by kind.
        trial: whether to leave the test split alone and to fit neither gate nor abstention.
        device: where the network runs.
        progress: whether to draw progress bars.

    Returns:
        the checkpoint of the mean; ``training["initial"]`` is the list of what the checkpoints tell
        of their trainings.

    Raises:
        CheckpointError: if there is but one checkpoint, or they do not fit together or to the
            films, or have no training in common.
    """
    _check(checkpoints, workspace)
    first = checkpoints[0]
    config = TrainingConfig.from_dict(first.training.get("config", {}))
    config = replace(config, input_size=first.input_spec.size, start_size=0, normalisation_films=0)
    mean = Progress(
        best_weights=average_weights([checkpoint.state_dict for checkpoint in checkpoints]),
        initial=[checkpoint.training for checkpoint in checkpoints],
    )
    place = choose_device(device)
    made = conclude(first.model_config, mean, workspace, config, place, trial=trial)
    return complete(made, workspace, config, outliers, place, trial=trial, progress=progress)


def average_weights(weights: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the mean of the weights of networks of one kind, in their shapes and types.

    Args:
        weights: of each network, by name, as ``state_dict`` gives them.

    Returns:
        the mean, summed in float64; of counters, which are no floating point, the first's.
    """
    first, *_ = weights
    return {
        name: torch.stack([w[name].double() for w in weights]).mean(0).to(value.dtype)
        if value.is_floating_point()
        else value
        for name, value in first.items()
    }


def _check(checkpoints: Sequence[Checkpoint], workspace: Workspace) -> None:
    if len(checkpoints) < 2:
        raise CheckpointError(f"a mean is of two networks or more, got {len(checkpoints)}")
    first = checkpoints[0]
    for other in checkpoints[1:]:
        for name in ("model_config", "class_names", "input_spec"):
            if getattr(other, name) != getattr(first, name):
                raise CheckpointError(
                    f"the networks differ in {name}: {getattr(first, name)} and "
                    f"{getattr(other, name)}: average trainings that started from one network"
                )
    starts = [list_stages(checkpoint.training)[0] for checkpoint in checkpoints]
    if any(start != starts[0] for start in starts):
        raise CheckpointError(
            "the networks have no training in common, and the mean of networks that learned apart "
            "knows nothing: average those that train --initial made from one network"
        )
    classes = workspace.manifest.class_names
    if first.class_names != classes:
        raise CheckpointError(
            f"the networks know {', '.join(first.class_names)}, the films are of "
            f"{', '.join(classes)}: give the films that they were trained on"
        )
    digests = {checkpoint.training.get("data_digest") for checkpoint in checkpoints}
    if digests != {workspace.data_digest}:
        raise CheckpointError(
            "the networks were trained on other films or on another split than this one, so its "
            "test films may not be unseen: give the --data and the --manifest of their training"
        )
