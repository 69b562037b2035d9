"""A small transformer with the menu of metasmoothness: a ViT that classifies.

Pre-norm blocks (Radford et al. 2019); QK-norm, layer norm of queries and keys (Dehghani et al. 2023), which Engstrom et
al. 2025 (arXiv 2503.13751, section 4) name for language models. No dropout: it destroys a metagradient. Attention is
``F.scaled_dot_product_attention``, for which the engine has rules.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

INIT = 0.02  # standard deviation of weights (Radford et al. 2019)


@dataclass(frozen=True)
class TransformerOptions:
    """Blocks of a transformer."""

    width: int = 64
    heads: int = 4
    layers: int = 2
    mlp_ratio: int = 4
    qk_norm: bool = True
    logit_scale: float = 1.0

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of the {self.heads} heads")


class Block(nn.Module):
    """Attention and an MLP, each normalised before it and added to its input."""

    def __init__(self, options: TransformerOptions, causal: bool) -> None:
        super().__init__()
        w, self.heads, self.causal = options.width, options.heads, causal
        self.before_attention, self.before_mlp = nn.LayerNorm(w), nn.LayerNorm(w)
        self.qkv, self.out = nn.Linear(w, 3 * w), nn.Linear(w, w)
        head = w // options.heads
        self.query_norm, self.key_norm = (nn.LayerNorm(head) if options.qk_norm else nn.Identity() for _ in range(2))
        self.mlp = nn.Sequential(nn.Linear(w, options.mlp_ratio * w), nn.GELU(), nn.Linear(options.mlp_ratio * w, w))

    def forward(self, x: Tensor) -> Tensor:
        """(n, L, width)."""
        x = x + self._attention(self.before_attention(x))
        x = x + self.mlp(self.before_mlp(x))
        return x

    def _attention(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        q, k, v = (y.view(n, length, self.heads, -1).transpose(1, 2) for y in self.qkv(x).chunk(3, dim=-1))
        mixed = F.scaled_dot_product_attention(self.query_norm(q), self.key_norm(k), v, is_causal=self.causal)
        y: Tensor = self.out(mixed.transpose(1, 2).reshape(n, length, width))
        return y


class SmallViT(nn.Module):
    """Logits (n, classes) of pictures (n, channels, size, size), by the mean over patches."""

    def __init__(
        self, options: TransformerOptions, size: int, patch: int, channels: int = 3, classes: int = 10
    ) -> None:
        super().__init__()
        if size % patch:
            raise ValueError(f"pictures of {size} pixels do not divide into patches of {patch}")
        self.patch = patch
        self.embed = nn.Linear(channels * patch * patch, options.width)
        self.positions = nn.Parameter(INIT * torch.randn((size // patch) ** 2, options.width))
        self.blocks = nn.Sequential(*(Block(options, causal=False) for _ in range(options.layers)))
        self.norm, self.head = nn.LayerNorm(options.width), nn.Linear(options.width, classes)
        self.scale = options.logit_scale

    def forward(self, x: Tensor) -> Tensor:
        """Logits, scaled."""
        n, channels, size, _ = x.shape
        side, p = size // self.patch, self.patch
        patches = x.view(n, channels, side, p, side, p).permute(0, 2, 4, 1, 3, 5).reshape(n, side * side, -1)
        y = self.blocks(self.embed(patches) + self.positions)
        logits: Tensor = self.head(self.norm(y).mean(1))
        return self.scale * logits
