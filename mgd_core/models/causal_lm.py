"""Causal language models as an objective of the engine: the loss of what is predicted, and nothing else computed.

Logits are computed where a token is predicted and nowhere else: in instruction tuning that is the completion, and a
vocabulary of 49,152 costs more than eight layers of a small model. Where only the last layers are trained, what lies
below never changes, so its output (hidden states) is computed once a sample, by ``Stem``, and is the model's input.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mgd_core.autodiff.layout import Params
from mgd_core.autodiff.objective import Features, PerExample, Rows, log_sum_exp

NOT_PREDICTED = -100
"""Label of a position whose next token is not predicted (the prompt, and the filling at the end of a row)."""


class Decoder(nn.Module):
    """Logits (n, K, vocabulary) after positions ``at`` (n, K) of inputs: tokens (n, L), or hidden states (n, L, d)."""

    def __init__(self, body: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.body, self.head = body, head

    def hidden(self, inputs: Tensor) -> Tensor:
        """Last hidden states (n, L, d). Rows are filled at their ends, which causal attention never looks at, so there
        is no padding mask."""
        named = {"inputs_embeds" if inputs.is_floating_point() else "input_ids": inputs}
        states: Tensor = self.body(**named, use_cache=False).last_hidden_state
        return states

    def forward(self, inputs: Tensor, at: Tensor) -> Tensor:
        """Logits where they are asked for."""
        states = self.hidden(inputs)
        logits: Tensor = self.head(states.gather(1, at[:, :, None].expand(-1, -1, states.shape[2])))
        return logits


class Stem(nn.Module):
    """What lies below the trained layers: hidden states (n, L, d) of tokens (n, L)."""

    def __init__(self, body: nn.Module, first: nn.Module) -> None:
        super().__init__()
        self.body, self.first = body, first

    @property
    def width(self) -> int:
        """d."""
        config: Any = self.body.config
        return int(config.hidden_size)

    @torch.no_grad()
    def forward(self, tokens: Tensor) -> Tensor:
        """Runs the body up to its first trained layer."""

        def stop(_: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
            raise _Reached(args[0] if args else named["hidden_states"])

        handle = self.first.register_forward_pre_hook(stop, with_kwargs=True)
        try:
            self.body(input_ids=tokens, use_cache=False)
        except _Reached as reached:
            return reached.states
        finally:
            handle.remove()
        raise AssertionError("the body never came to its trained layers")


class _Reached(Exception):
    def __init__(self, states: Tensor) -> None:
        self.states = states


class CausalLmObjective(PerExample):
    """Cross-entropy of the predicted tokens. Rows: inputs (tokens (n, L) or states (n, L, d)) and labels (n, L).

    A label is the token that follows a position, or ``NOT_PREDICTED``. ``reduction``: the loss of a sample is the mean
    over its predicted tokens, or their sum; which one changes what a sample weighs by its length, and is said to matter
    (Engstrom et al. 2025, arXiv 2503.13751, appendix D). The batch takes the mean over samples.
    """

    def __init__(self, model: Decoder, reduction: Literal["mean", "sum"] = "mean") -> None:
        self.model, self.reduction = model, reduction

    def encode(self, params: Params, rows: Rows) -> Features:
        """Losses (n,), nats."""
        losses, wanted = self.token_losses(params, rows)
        total = (losses * wanted).sum(1)
        return (total if self.reduction == "sum" else total / wanted.sum(1).clamp(min=1),)

    def token_losses(self, params: Params, rows: Rows) -> tuple[Tensor, Tensor]:
        """Loss (n, K) of each row's predicted tokens in their order, nats, and which of the K places a row has."""
        logits, labels, wanted = self.predictions(params, rows)
        return log_sum_exp(logits, 2) - logits.gather(2, labels[:, :, None]).squeeze(2), wanted

    def predictions(self, params: Params, rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (n, K, vocabulary), labels (n, K), and which places are predicted (n, K), of the logits' dtype."""
        inputs, labels = rows
        at = (labels != NOT_PREDICTED).to(torch.int8).argsort(dim=1, descending=True, stable=True)
        at = at[:, : max(1, int((labels != NOT_PREDICTED).sum(1).max()))]
        labels = labels.gather(1, at)
        logits: Tensor = functional_call(self.model, dict(params), (inputs, at))
        if logits.dtype == torch.bfloat16:  # of autocast, which leaves exponentials there: too coarse for a loss
            logits = logits.float()
        return logits, labels.clamp(min=0), (labels != NOT_PREDICTED).to(logits.dtype)
