"""Checks of constructor arguments that several layers share.

How the optional parts of a checkpoint are read: whatever is wrong with one has a message.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


def require_positive(**values: float) -> None:
    """Check that every named argument is greater than zero.

    Raises:
        ValueError: naming the first argument that is not, and its value.
    """
    for name, value in values.items():
        if value <= 0:
            raise ValueError(f"{name} must be greater than 0, got {value}: pass a positive number")


def require_divisible(embed_dim: int, num_heads: int) -> None:
    """Check that the channels can be shared out evenly among the attention heads.

    Raises:
        ValueError: if ``embed_dim`` is not a multiple of ``num_heads``.
    """
    require_positive(embed_dim=embed_dim, num_heads=num_heads)
    if embed_dim % num_heads:
        raise ValueError(
            f"embed_dim ({embed_dim}) must be divisible by num_heads ({num_heads}): "
            "change one of them"
        )


@contextmanager
def reading(part: str, refusal: type[ValueError]) -> Iterator[None]:
    """Turn what goes wrong while a part is put together from its values into a refusal.

    Args:
        part: what is read, as the message calls it.
        refusal: what is raised; one that is raised inside passes through.
    """
    try:
        yield
    except KeyError as error:
        raise refusal(f"the {part} lacks {error}") from error
    except refusal:
        raise
    except (TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise refusal(f"the {part} cannot be read: {error}") from error


def require_finite(part: str, tensors: Mapping[str, Tensor], refusal: type[ValueError]) -> None:
    """Refuse tensors that hold an infinity or what is no number, naming the first."""
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise refusal(f"the {part}'s {name} holds what is no finite number")
