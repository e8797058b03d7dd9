"""How the optional parts of a checkpoint are read: whatever is wrong with one has a message."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


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
