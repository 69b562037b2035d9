"""Losses in the form the engine differentiates: encode rows one by one, couple them once.

A contrastive loss is not a sum over examples, so a micro-batched gradient that treats it as one is wrong. Here every
loss is two functions: ``encode`` maps rows to features, row by row, and may be run chunk by chunk; ``losses`` maps the
features of the *whole* batch to one loss per example, and is small. The batch loss is the weighted mean

    L(theta; w) = 1/n sum_i w_i l_i(theta),

with n the number of rows (not the sum of the weights), so that dL/dw_i = l_i / n and w = 1 is ordinary training. An
example's weight multiplies its own terms only; as a negative of others it is not weighted (Engstrom et al. 2025,
arXiv 2503.13751, section on data selection; for the two directions of InfoNCE, Radford et al. 2021).
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from mgd_core.autodiff.layout import Params

Rows = tuple[Tensor, ...]
"""Inputs of a batch: tensors that share their first dimension, the row."""
Features = tuple[Tensor, ...]
"""What ``encode`` returns: tensors that share their first dimension, the row."""


class Objective(ABC):
    """A training loss as ``encode`` (row by row) and ``losses`` (the whole batch at once)."""

    @abstractmethod
    def encode(self, params: Params, rows: Rows) -> Features:
        """Features of ``rows``; row i of the output depends on row i of the input only."""

    @abstractmethod
    def losses(self, params: Params, features: Features) -> Tensor:
        """One loss per example, shape (n,), in nats; may couple all rows of the batch."""

    @abstractmethod
    def candidate_losses(self, params: Params, candidates: Features, reference: Features, others: Tensor) -> Tensor:
        """Loss (n,) that each candidate would have if it alone joined the batch ``reference`` (b rows).

        ``others`` (n, b) bool: false where the reference row is the candidate itself, which is no negative of its own.
        """

    def couple(self, params: Params, features: Features, weights: Tensor) -> Tensor:
        """Scalar batch loss: the weighted mean of the example losses (``weights``: shape (n,))."""
        losses = self.losses(params, features)
        return (weights * losses).sum() / losses.shape[0]


class PerExample(Objective):
    """An objective of which no row's loss depends on another: ``encode`` gives the losses themselves, (n,)."""

    def losses(self, params: Params, features: Features) -> Tensor:
        """The features."""
        return features[0]

    def candidate_losses(self, params: Params, candidates: Features, reference: Features, others: Tensor) -> Tensor:
        """A loss of its own, whatever it joins."""
        return candidates[0]


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Per-example cross-entropy, shape (n,), in nats.

    ``logits``: (n, classes); ``labels``: (n,) int64.
    """
    picked = logits.gather(1, labels[:, None]).squeeze(1)
    return log_sum_exp(logits, 1) - picked


def log_sum_exp(x: Tensor, dim: int) -> Tensor:
    """log sum exp along ``dim``, stable. torch.logsumexp's forward-mode rule writes in place, which breaks the reverse
    pass over it."""
    top = x.detach().amax(dim, keepdim=True)
    return (x - top).exp().sum(dim).log() + top.squeeze(dim)


def info_nce(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """Symmetric InfoNCE loss of each pair, shape (n,): the mean of its image-to-text and text-to-image terms.

    ``image``, ``text``: (n, d), unit rows; ``scale``: scalar inverse temperature. Pair i's negatives are the other
    rows of this batch.
    """
    logits = scale * (image @ text.T)
    own = logits.diagonal()
    return 0.5 * (log_sum_exp(logits, 1) + log_sum_exp(logits, 0)) - own


def info_nce_joining(
    image: Tensor, text: Tensor, others: tuple[Tensor, Tensor], scale: Tensor, apart: Tensor
) -> Tensor:
    """InfoNCE (n,) of candidates (image, text), each (n, d), against the pairs ``others``, each (b, d), as negatives.

    Every candidate meets the same negatives, so its loss does not depend on which candidates are scored beside it.
    ``apart`` (n, b) bool: which negatives count.
    """
    own = scale * (image * text).sum(1, keepdim=True)
    terms = []
    for ours, theirs in ((image, others[1]), (text, others[0])):
        logits = (scale * (ours @ theirs.T)).masked_fill(~apart, float("-inf"))
        terms.append(log_sum_exp(torch.cat([own, logits], dim=1), 1))
    return 0.5 * (terms[0] + terms[1]) - own.squeeze(1)


def unit_rows(x: Tensor) -> Tensor:
    """Rows scaled to length one."""
    return F.normalize(x, dim=-1)
