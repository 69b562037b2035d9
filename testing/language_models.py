"""A small GPT and its objective, for exactness and attribution: a transformer that predicts tokens."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mgd_core.autodiff.layout import Params
from mgd_core.autodiff.objective import Features, PerExample, Rows, log_sum_exp
from mgd_core.models.transformers import INIT, Block, TransformerOptions


class SmallGPT(nn.Module):
    """Logits (n, L, vocabulary) of the token after each of (n, L) tokens; ``tied``: one embedding for both ends."""

    def __init__(self, options: TransformerOptions, vocabulary: int, length: int, tied: bool = False) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, options.width)
        self.positions = nn.Parameter(INIT * torch.randn(length, options.width))
        self.blocks = nn.Sequential(*(Block(options, causal=True) for _ in range(options.layers)))
        self.norm, self.head = nn.LayerNorm(options.width), nn.Linear(options.width, vocabulary, bias=False)
        nn.init.normal_(self.tokens.weight, std=INIT)
        nn.init.normal_(self.head.weight, std=INIT)
        if tied:
            self.head.weight = self.tokens.weight
        self.scale = options.logit_scale

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits, scaled."""
        x = self.tokens(tokens) + self.positions[: tokens.shape[1]]
        logits: Tensor = self.head(self.norm(self.blocks(x)))
        return self.scale * logits


class LanguageObjective(PerExample):
    """Causal cross-entropy. Rows: tokens (n, L + 1) int64 and which of the last L are predicted (n, L), 0 or 1.

    ``reduction``: the loss of a sample is the mean over its predicted tokens, or their sum; which one changes what a
    sample weighs by its length, and is said to matter (Engstrom et al. 2025, appendix D). The batch takes the mean.
    """

    def __init__(self, model: nn.Module, reduction: Literal["mean", "sum"] = "mean") -> None:
        self.model, self.reduction = model, reduction

    def encode(self, params: Params, rows: Rows) -> Features:
        """Losses (n,), nats."""
        tokens, wanted = rows
        logits = functional_call(self.model, dict(params), (tokens[:, :-1],))
        losses = log_sum_exp(logits, 2) - logits.gather(2, tokens[:, 1:, None]).squeeze(2)
        total = (losses * wanted).sum(1)
        return (total if self.reduction == "sum" else total / wanted.sum(1).clamp(min=1),)
