"""Checks of values that come from a caller or out of a checkpoint: wrong ones are refused early.

Each message names the value and what to change. Nothing here knows of networks or files.
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
        if not value > 0:
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


def require_whole(name: str, value: object, most: int) -> None:
    """Check that a size is a whole number from 1 to a bound.

    Raises:
        ValueError: if it is not. The bound keeps a hostile file from asking for a network that
            takes hours to build.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{name} must be a whole number, got {value!r}")
    require_positive(**{name: value})
    if value > most:
        raise ValueError(f"{name} must be at most {most}, got {value}")


def require_between(name: str, value: float, low: float, high: float) -> None:
    """Check that a value is a number within bounds, which NaN never is.

    Raises:
        ValueError: if it is not.
    """
    if type(value) not in {int, float} or not low <= value <= high:
        raise ValueError(f"{name} must be from {low:g} to {high:g}, got {value}")


def require_finite(part: str, tensors: Mapping[str, Tensor], refusal: type[ValueError]) -> None:
    """Refuse tensors that hold an infinity or NaN, naming the first."""
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise refusal(f"the {part}'s {name} holds a value that is not finite")


@contextmanager
def reading(part: str, refusal: type[ValueError]) -> Iterator[None]:
    """Turn what goes wrong while a part is put together from stored values into a refusal.

    Args:
        part: what is read, as the message calls it.
        refusal: what is raised; one that is raised inside passes through.
    """
    try:
        yield
    except refusal:
        raise
    except KeyError as error:
        raise refusal(f"the {part} lacks {error}") from error
    except (TypeError, AttributeError, ValueError, ArithmeticError, RuntimeError) as error:
        raise refusal(f"the {part} cannot be read: {error}") from error
