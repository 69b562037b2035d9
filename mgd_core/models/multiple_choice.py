"""Questions put to a language model as a target: a loss, its gradient, and how many are right.

phi is the mean over questions of a loss: `completion`, that of the right answer (the mean over its tokens); `choice`,
the cross-entropy of the right option among all of a question's, whose scores are their log-likelihoods; or `both`,
their sum. The first asks for what a model is tuned to, the second for telling right from wrong.

With options, a question is right when the right one is the likeliest; without, when greedy decoding would give the
completion and end, which is so exactly when every token of it is the most likely one after those before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from mgd_core.autodiff.derivatives import target_at
from mgd_core.autodiff.dual_rules import plain_rules
from mgd_core.autodiff.layout import ParameterLayout, Params
from mgd_core.autodiff.objective import Rows
from mgd_core.models.causal_lm import CausalLmObjective


class AnswerScore(NamedTuple):
    """Loss (nats), accuracy and exact match (shares of the questions). ``scale``: there is none."""

    loss: float
    accuracy: float
    exact_match: float
    scale: None = None


class Asked(NamedTuple):
    """Whole questions: ``rows`` of all their options, the question of each (options,) and each question's right one
    (questions,), both as places among these."""

    rows: Rows
    owners: Tensor
    right: Tensor


@dataclass(frozen=True)
class AnswerTask:
    """``right``: rows of the right answers to ``size`` questions, some at a time; ``asked``: the same questions with
    their options, some at a time, or none where they have but a completion."""

    objective: CausalLmObjective
    layout: ParameterLayout
    size: int
    right: Sequence[Rows]
    asked: Sequence[Asked]
    loss: Literal["completion", "choice", "both"] = "completion"
    likelihood: Literal["mean", "sum"] = "mean"
    """Log-likelihood of an option: the mean over its tokens, or their sum."""

    def target(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """phi(theta) and its gradient (P,)."""
        phi, gradient = theta.new_zeros(()), torch.zeros_like(theta)
        for part in self.right if self.loss == "completion" else self.asked:
            with plain_rules():
                loss, g = target_at(self.layout, theta, partial(self._share, part))
            phi, gradient = phi + loss, gradient + g
        return phi, gradient

    @torch.no_grad()
    def score(self, theta: Tensor) -> AnswerScore:
        """Loss, accuracy, exact match."""
        with plain_rules():
            params = self.layout.unflatten(theta)
            losses, exact = _means([self._completion(params, rows) for rows in self.right])
            if not len(self.asked):
                return AnswerScore(losses, exact, exact)
            choices, accuracy = _means([self._choice(params, asked) for asked in self.asked])
        loss = {"completion": losses, "choice": choices, "both": losses + choices}[self.loss]
        return AnswerScore(loss, accuracy, exact)

    def metrics(self, theta: Tensor) -> dict[str, float]:
        """The score by the names of a table."""
        found = self.score(theta)
        return {"accuracy": found.accuracy, "exact_match": found.exact_match, "loss": found.loss}

    @torch.no_grad()
    def correct(self, theta: Tensor) -> Tensor:
        """Whether each question is answered rightly (size,), bool."""
        with plain_rules():
            params = self.layout.unflatten(theta)
            if len(self.asked):
                return torch.cat([self._choice(params, asked)[1] for asked in self.asked])
            return torch.cat([self._completion(params, rows)[1] for rows in self.right])

    def _share(self, part: Rows | Asked, params: Params) -> Tensor:
        """What a part of the questions adds to phi."""
        if not isinstance(part, Asked):
            losses = self._completion(params, part)[0]
        else:
            losses = self._choice(params, part)[0]
            if self.loss == "both":
                losses = losses + self._completion(params, tuple(x[part.right] for x in part.rows))[0]
        return losses.sum() / self.size

    def _completion(self, params: Params, rows: Rows) -> tuple[Tensor, Tensor]:
        """Loss of each right answer, mean over its tokens, and whether greedy decoding gives it, both (n,)."""
        logits, labels, wanted = self.objective.predictions(params, rows)
        losses = torch.logsumexp(logits, 2) - logits.gather(2, labels[:, :, None]).squeeze(2)
        exact = ((logits.argmax(2) == labels) | (wanted == 0)).all(1)
        return (losses * wanted).sum(1) / wanted.sum(1), exact

    def _choice(self, params: Params, asked: Asked) -> tuple[Tensor, Tensor]:
        """Cross-entropy of each question's right option, and whether it is the likeliest, both (questions,)."""
        losses, wanted = self.objective.token_losses(params, asked.rows)
        total = -(losses * wanted).sum(1)
        score = total if self.likelihood == "sum" else total / wanted.sum(1)
        best = score.new_full((len(asked.right),), float("-inf"))
        best = best.scatter_reduce(0, asked.owners, score.detach(), "amax")
        spread = torch.zeros_like(best).index_add(0, asked.owners, (score - best[asked.owners]).exp())
        own = score[asked.right]
        return spread.log() + best - own, own >= best


def _means(parts: list[tuple[Tensor, Tensor]]) -> tuple[float, float]:
    """Of both columns over all parts."""
    first, second = (torch.cat(column).double().mean().item() for column in zip(*parts, strict=True))
    return first, second
