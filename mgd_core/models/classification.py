"""Classifiers as an objective of the engine: weighted cross-entropy with labels or with probabilities of classes.

Features are the losses themselves, since losses of different rows do not couple. Labels are class numbers (n,), or soft
labels (n, classes), which may be a metaparameter (mgd_core.engine.metaparameters.Inputs).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mgd_core.autodiff.derivatives import target_at
from mgd_core.autodiff.layout import ParameterLayout, Params
from mgd_core.autodiff.objective import Features, PerExample, Rows, cross_entropy, log_sum_exp

Measure = Callable[[Tensor, Tensor], Tensor]
"""Of logits (n, classes) and labels, one number for each row (n,)."""


class ClassificationObjective(PerExample):
    """Cross-entropy of a model's logits. Rows: inputs (n, ...) and labels (n,) or probabilities (n, classes)."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def logits(self, params: Params, inputs: Tensor) -> Tensor:
        """(n, classes)."""
        found: Tensor = functional_call(self.model, dict(params), (inputs,))
        return found

    def encode(self, params: Params, rows: Rows) -> Features:
        """Losses (n,), nats."""
        inputs, labels = rows
        return (any_cross_entropy(self.logits(params, inputs), labels),)


def any_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy (n,), nats, of labels (n,) int64 or of probabilities (n, classes)."""
    if labels.is_floating_point():
        return log_sum_exp(logits, 1) * labels.sum(1) - (labels * logits).sum(1)
    return cross_entropy(logits, labels)


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Log odds of the right class (n,): log p / (1 - p), which Park et al. 2023 (TRAK, equation 9) attribute.

    ``labels``: (n,) int64. Higher is better, and unlike a loss it is not flat where the model is sure.
    """
    own = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, labels[:, None], True)
    return logits[own] - log_sum_exp(logits.masked_fill(own, float("-inf")), 1)


MEASURES: dict[str, Measure] = {"loss": any_cross_entropy, "margin": margin}


@dataclass(frozen=True)
class Outputs:
    """Q outputs of a trained classifier: means of a measure over groups of test rows, as targets of one sweep.

    ``groups`` (Q, n): row q holds the share of each test row in output q, and sums to 1 (one row: a single example).
    """

    objective: ClassificationObjective
    layout: ParameterLayout
    rows: Rows
    groups: Tensor
    measure: Measure

    def __call__(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """phi (Q,) and its gradient (Q, P): Q backward passes over one graph."""
        return target_at(self.layout, theta, self._phi)

    def values(self, theta: Tensor) -> Tensor:
        """phi (Q,)."""
        return self._phi(self.layout.unflatten(theta))

    def _phi(self, params: Params) -> Tensor:
        inputs, labels = self.rows
        logits = self.objective.logits(params, inputs)
        return self.groups.to(logits) @ self.measure(logits, labels)


def each_example(n: int) -> Tensor:
    """Groups of one test row each (n, n)."""
    return torch.eye(n)


def each_class(labels: Tensor, classes: int) -> Tensor:
    """One group a class (classes, n).

    Raises:
        ValueError: a class has no test row.
    """
    members = (labels == torch.arange(classes, device=labels.device)[:, None]).float()
    empty = (members.sum(1) == 0).nonzero().squeeze(1).tolist()
    if empty or not len(labels):
        raise ValueError(f"classes {empty} have no test sample among {len(labels)}: an output of nothing has no value")
    return members / members.sum(1, keepdim=True)
