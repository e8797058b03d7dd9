"""IMTM, the identity-mapping transformer module: four scales talk to each other once.

Every scale is averaged down to the coarsest grid and projected to one width; one joint
self-attention runs over the tokens of all scales; each scale's tokens are projected back to its
channels. The caller enlarges the result and adds it to the features it came from (the identity
mapping). A learned embedding for each scale tells the tokens apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from resformer.checks import require_divisible, require_positive
from resformer.layers.attention import attend, map_rows


class IMTM(nn.Module):
    """Joint self-attention over all scales at the coarsest grid.

    Args:
        channels: channels of each scale, finest first.
        embed_dim: common width of the tokens.
        num_heads: attention heads; must divide ``embed_dim``.

    Raises:
        ValueError: if there is no scale, a width is not positive or the heads do not divide it.
    """

    def __init__(self, channels: Sequence[int], embed_dim: int, num_heads: int) -> None:
        super().__init__()
        require_positive(scales=len(channels))
        require_divisible(embed_dim, num_heads)
        self.num_heads = num_heads
        self.project_in = nn.ModuleList(nn.Conv2d(c, embed_dim, 1) for c in channels)
        self.scale_embedding = nn.Parameter(torch.zeros(len(channels), 1, embed_dim))
        nn.init.trunc_normal_(self.scale_embedding, std=0.02)
        self.norm = nn.LayerNorm(embed_dim)
        self.query_key_value = nn.Linear(embed_dim, 3 * embed_dim)
        self.project = nn.Linear(embed_dim, embed_dim)
        self.project_out = nn.ModuleList(nn.Conv2d(embed_dim, c, 1) for c in channels)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Map features of each scale ``(B, C_i, H_i, W_i)`` to fused ones ``(B, C_i, H_4, W_4)``.

        Raises:
            ValueError: if the number of scales differs, or a grid is not a multiple of the last.
        """
        if len(features) != len(self.project_in):
            raise ValueError(
                f"expected {len(self.project_in)} scales, got {len(features)}: pass one a stage"
            )
        height, width = features[-1].shape[-2:]
        tokens = torch.stack(
            [
                rearrange(project(_average_to(x, height, width)), "b c y x -> b (y x) c")
                for project, x in zip(self.project_in, features, strict=True)
            ],
            dim=1,
        )
        tokens = self._attend(tokens + self.scale_embedding)
        return [
            project(rearrange(scale, "b (y x) c -> b c y x", y=height, x=width))
            for project, scale in zip(self.project_out, tokens.unbind(1), strict=True)
        ]

    def _attend(self, tokens: Tensor) -> Tensor:
        """Run pre-norm residual self-attention over tokens ``(B, scales, N, embed_dim)``."""
        scales = tokens.shape[1]
        joint = rearrange(tokens, "b s n c -> b (s n) c")
        query, key, value = rearrange(
            map_rows(self.query_key_value, self.norm(joint)),
            "b n (three h d) -> three b h n d",
            three=3,
            h=self.num_heads,
        )
        attended = attend(query, key, value)
        joint = joint + map_rows(self.project, rearrange(attended, "b h n d -> b n (h d)"))
        split: Tensor = rearrange(joint, "b (s n) c -> b s n c", s=scales)
        return split


def _average_to(x: Tensor, height: int, width: int) -> Tensor:
    """Average ``(B, C, H, W)`` down to ``(B, C, height, width)``."""
    cell = x.shape[-2] // height
    if (cell * height, cell * width) != tuple(x.shape[-2:]):
        raise ValueError(
            f"a grid of {tuple(x.shape[-2:])} is no multiple of the coarsest {(height, width)}: "
            "pass images whose sides are divisible by 32"
        )
    return x if cell == 1 else F.avg_pool2d(x, cell)
