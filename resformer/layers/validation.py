"""Checks of constructor arguments that several layers share."""

from __future__ import annotations


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
