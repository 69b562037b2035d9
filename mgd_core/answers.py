"""Questions put to a language model as a target: the loss of right answers, its gradient, and how many are right.

phi is the mean over questions of the right answer's loss (the mean over its tokens). With options, the answer is the
one of the highest likelihood; without, a question is right when greedy decoding would give the completion and end,
which is so exactly when every token of it is the most likely one after those before it: no text is generated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from mgd_core.causal_lm import CausalLmObjective
from mgd_core.dual_rules import plain_rules
from mgd_core.layout import ParameterLayout, Params
from mgd_core.objective import Rows


class AnswerScore(NamedTuple):
    """Loss (nats a token), accuracy and exact match (shares of the questions). ``scale``: there is none."""

    loss: float
    accuracy: float
    exact_match: float
    scale: None = None


@dataclass(frozen=True)
class AnswerTask:
    """``right``: rows of the right answers to ``size`` questions, some at a time; ``options``: rows of all options in
    the same way, none where a question has but its completion; ``owners`` (options,): question of each; ``places``
    (questions,): its right one among all options."""

    objective: CausalLmObjective
    layout: ParameterLayout
    size: int
    right: Sequence[Rows]
    options: Sequence[Rows]
    owners: Tensor
    places: Tensor
    likelihood: Literal["mean", "sum"] = "mean"

    def target(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """phi(theta) and its gradient (P,)."""
        theta = theta.detach().requires_grad_(True)
        phi, gradient = theta.new_zeros(()), torch.zeros_like(theta)
        for rows in self.right:
            with torch.enable_grad(), plain_rules():
                loss = self._losses(self.layout.unflatten(theta), rows)[0].sum() / self.size
                gradient += torch.autograd.grad(loss, theta)[0]
            phi += loss.detach()
        return phi, gradient

    @torch.no_grad()
    def score(self, theta: Tensor) -> AnswerScore:
        """Loss, accuracy, exact match."""
        with plain_rules():
            params = self.layout.unflatten(theta)
            found = [self._losses(params, rows) for rows in self.right]
            losses, exact = (torch.cat(x).double().mean().item() for x in zip(*found, strict=True))
            accuracy = self._by_likelihood(params).double().mean().item() if len(self.options) else exact
        return AnswerScore(losses, accuracy, exact)

    def metrics(self, theta: Tensor) -> dict[str, float]:
        """The score by the names of a table."""
        found = self.score(theta)
        return {"accuracy": found.accuracy, "exact_match": found.exact_match, "loss": found.loss}

    def _losses(self, params: Params, rows: Rows) -> tuple[Tensor, Tensor]:
        """Loss of each row, mean over its tokens, and whether greedy decoding gives it, both (n,)."""
        logits, labels, wanted = self.objective.predictions(params, rows)
        losses = torch.logsumexp(logits, 2) - logits.gather(2, labels[:, :, None]).squeeze(2)
        exact = ((logits.argmax(2) == labels) | (wanted == 0)).all(1)
        return (losses * wanted).sum(1) / wanted.sum(1), exact

    def _by_likelihood(self, params: Params) -> Tensor:
        """Whether the right option is the most likely one (questions,)."""
        scores = []
        for rows in self.options:
            losses, wanted = self.objective.token_losses(params, rows)
            total = (losses * wanted).sum(1)
            scores.append(-(total if self.likelihood == "sum" else total / wanted.sum(1)))
        score = torch.cat(scores)
        best = torch.full((self.size,), float("-inf"), dtype=score.dtype, device=score.device)
        best = best.scatter_reduce(0, self.owners, score, "amax")
        return score[self.places] >= best
