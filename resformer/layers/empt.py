"""EMPT, the convolution-aware transformer block that ends each stage of the network.

Pre-norm transformer block (Dosovitskiy et al., ICLR 2021). Keys and values come from a strided
convolution (spatial reduction: Wang et al., "Pyramid Vision Transformer", ICCV 2021), so that
attention costs ``N * N / ratio^2`` and not ``N^2``; the MLP holds a depthwise 3x3 that tells
tokens where they are (Xie et al., "SegFormer", NeurIPS 2021), so no position embedding fixes the
image size.
"""

from __future__ import annotations

from einops import rearrange
from torch import Tensor, nn

from resformer.checks import require_divisible, require_positive
from resformer.layers.attention import map_channels, map_rows


class SpatialReductionAttention(nn.Module):
    """Multi-head attention from every position to a coarser grid of keys and values.

    Args:
        embed_dim: channels of the input and of the output.
        num_heads: attention heads; must divide ``embed_dim``.
        reduction_ratio: side of the square of positions that one key stands for.

    Raises:
        ValueError: if ``num_heads`` does not divide ``embed_dim`` or an argument is not positive.
    """

    def __init__(self, embed_dim: int, num_heads: int, reduction_ratio: int) -> None:
        super().__init__()
        require_divisible(embed_dim, num_heads)
        require_positive(reduction_ratio=reduction_ratio)
        self.num_heads = num_heads
        self.query = nn.Linear(embed_dim, embed_dim)
        self.reduction = (
            nn.Conv2d(embed_dim, embed_dim, reduction_ratio, stride=reduction_ratio)
            if reduction_ratio > 1
            else nn.Identity()
        )
        self.norm = nn.LayerNorm(embed_dim) if reduction_ratio > 1 else nn.Identity()
        self.key_value = nn.Linear(embed_dim, 2 * embed_dim)
        self.project = nn.Linear(embed_dim, embed_dim)

    def forward(self, tokens: Tensor, height: int, width: int) -> Tensor:
        """Map tokens ``(B, height * width, embed_dim)`` to the same shape."""
        grid = rearrange(tokens, "b (y x) c -> b c y x", y=height, x=width)
        reduced = self.norm(rearrange(self.reduction(grid), "b c y x -> b (y x) c"))
        key, value = rearrange(
            map_rows(self.key_value, reduced),
            "b m (two h d) -> two b h m d",
            two=2,
            h=self.num_heads,
        )
        # There are far fewer keys than positions: what maps every position, the query and the
        # projection, is multiplied into the keys and values instead. With W, b of the query,
        # (W x + b) k = x (W^T k) + b k.
        key = key * key.shape[-1] ** -0.5
        query = rearrange(self.query.weight, "(h d) c -> h d c", h=self.num_heads)
        offset = key @ rearrange(self.query.bias, "(h d) -> h d 1", h=self.num_heads)
        scores = tokens @ rearrange(key @ query, "b h m c -> b c (h m)")
        scores = scores + rearrange(offset, "b h m 1 -> b 1 (h m)")
        shares = scores.unflatten(-1, (self.num_heads, -1)).softmax(dim=-1).flatten(-2)
        project = rearrange(self.project.weight, "c (h d) -> h d c", h=self.num_heads)
        # The shares of a position sum to 1 for each head, and so bring the whole bias.
        projected = value @ project + self.project.bias / self.num_heads
        attended: Tensor = shares @ rearrange(projected, "b h m c -> b (h m) c")
        return attended


class ConvolutionalMlp(nn.Module):
    """Linear, depthwise 3x3, GELU, linear.

    Args:
        embed_dim: channels of the input and of the output.
        hidden_dim: channels between the two linear layers.

    Raises:
        ValueError: if an argument is not positive.
    """

    def __init__(self, embed_dim: int, hidden_dim: int) -> None:
        super().__init__()
        require_positive(embed_dim=embed_dim, hidden_dim=hidden_dim)
        self.expand = nn.Linear(embed_dim, hidden_dim)
        self.depthwise = nn.Conv2d(hidden_dim, hidden_dim, 3, padding=1, groups=hidden_dim)
        self.activation = nn.GELU()
        self.contract = nn.Linear(hidden_dim, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, embed_dim, H, W)`` to the same shape."""
        hidden = self.activation(self.depthwise(map_channels(self.expand, x)))
        return map_channels(self.contract, hidden)


class EMPT(nn.Module):
    """Attention and MLP over a feature map, each after a LayerNorm and each residual.

    Args:
        embed_dim: channels of the input and of the output.
        num_heads: attention heads; must divide ``embed_dim``.
        reduction_ratio: side of the square of positions that one key stands for.
        mlp_ratio: hidden channels of the MLP as a multiple of ``embed_dim``.

    Raises:
        ValueError: if an argument is not positive or the heads do not divide the channels.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        *,
        reduction_ratio: int = 1,
        mlp_ratio: float = 2.0,
    ) -> None:
        super().__init__()
        require_positive(mlp_ratio=mlp_ratio)
        self.attention_norm = nn.LayerNorm(embed_dim)
        self.attention = SpatialReductionAttention(embed_dim, num_heads, reduction_ratio)
        self.mlp_norm = nn.LayerNorm(embed_dim)
        self.mlp = ConvolutionalMlp(embed_dim, round(embed_dim * mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, embed_dim, H, W)`` to the same shape."""
        height, width = x.shape[-2:]
        tokens = rearrange(x, "b c y x -> b (y x) c")
        tokens = tokens + self.attention(self.attention_norm(tokens), height, width)
        normed, residual = (
            rearrange(t, "b (y x) c -> b c y x", y=height, x=width)
            for t in (self.mlp_norm(tokens), tokens)
        )
        attended: Tensor = residual + self.mlp(normed)
        return attended
