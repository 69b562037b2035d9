"""A small GPT on a real corpus that is everywhere: the Python language reference, as `pydoc` carries it.

Its topics (statements, expressions, the data model, ...) are cut into pieces of 33 characters, of which a piece is one
training example; other pieces, spread over all topics, are the test. Characters are the tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from pydoc_data.topics import topics

import numpy as np
import torch
from torch import Tensor

from mgd_core.autodiff.layout import ParameterLayout
from mgd_core.autodiff.objective import Rows
from mgd_core.models.clip import initial_parameters
from mgd_core.models.transformers import TransformerOptions
from mgd_core.training.learner import Batch, Learner, check_rowwise
from mgd_core.training.optimizers import Optimizer, State
from mgd_core.training.order import DataOrder, generator
from mgd_core.training.schedules import warmup_cosine
from testing.language_models import LanguageObjective, SmallGPT

LENGTH, SEED = 32, 0


@dataclass(frozen=True)
class Corpus:
    """Pieces (n, LENGTH + 1) of character numbers, for training and for the test, and the number of characters."""

    train: Tensor
    test: Tensor
    vocabulary: int


def corpus(train: int, test: int) -> Corpus:
    """So many pieces of each, drawn without overlap from all topics."""
    text = "\n".join(topics[name] for name in sorted(topics))
    characters = sorted(set(text))
    number = {c: i for i, c in enumerate(characters)}
    codes = torch.tensor([number[c] for c in text])
    pieces = codes[: len(codes) // (LENGTH + 1) * (LENGTH + 1)].view(-1, LENGTH + 1)
    order = torch.from_numpy(generator(SEED, 1, 0).permutation(len(pieces)))
    return Corpus(pieces[order[:train]], pieces[order[train : train + test]], len(characters))


def gpt(data: Corpus, optimizer: Optimizer, peak: float, steps: int, batch: int) -> tuple[Learner, State]:
    """A GPT of two blocks of width 48 with QK-norm and an output embedding of its own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = SmallGPT(TransformerOptions(width=48, heads=4, layers=2), data.vocabulary, LENGTH)
    check_rowwise(model)
    layout, order = ParameterLayout.of(model), DataOrder(np.ones(len(data.train), np.int64), batch, steps, SEED)

    def batches(t: int) -> Batch:
        ids = torch.from_numpy(order[t])
        return Batch(rows_of(data.train[ids]), ids, torch.ones(len(ids)))

    rates = warmup_cosine(steps, peak, warmup=steps // 4, floor=peak / 20)
    learner = Learner(LanguageObjective(model), layout, optimizer, rates, batches)
    return learner, optimizer.init(initial_parameters(model, layout))


def rows_of(pieces: Tensor) -> Rows:
    """Pieces with every token predicted."""
    return pieces, torch.ones(len(pieces), LENGTH)


@dataclass(frozen=True)
class PieceLosses:
    """Q outputs: the mean loss, nats a token, of as many groups of test pieces."""

    learner: Learner
    pieces: Tensor
    groups: int

    def values(self, theta: Tensor) -> Tensor:
        """phi (Q,)."""
        params = self.learner.layout.unflatten(theta)
        return self.learner.objective.encode(params, rows_of(self.pieces))[0].view(self.groups, -1).mean(1)

    def __call__(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """phi (Q,) and its gradient (Q, P)."""
        theta = theta.detach().requires_grad_(True)
        with torch.enable_grad():
            phi = self.values(theta)
            rows = [torch.autograd.grad(one, theta, retain_graph=True)[0] for one in phi]
        return phi.detach(), torch.stack(rows)
