"""The training that every peer differentiates: an MLP 64-640-640-10 on a synthetic pool, weighted cross-entropy, Adam.

A state is 5.2 MiB (float32: parameters and two moments) and a batch has 32 rows, so that states and elementwise work
weigh more here than in a model whose batch is large. The pool's labels are wrong in one of ten cases. GELU, a warm-up
and eps_root 1e-8 keep the training smooth: metagradients in float32 agree with float64 to 1e-6 after 200 steps, so a
difference between two methods is a difference of method.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from mgd_core.autodiff.layout import ParameterLayout, Params
from mgd_core.autodiff.objective import Rows
from mgd_core.training.learner import Batch, Learner
from mgd_core.training.optimizers import Adam
from mgd_core.training.schedules import constant
from testing.oracles import Problem
from testing.problems import Classifier

INPUTS, WIDTH, CLASSES = 64, 640, 10
POOL, TARGET, BATCH = 4096, 256, 32
RATE, WARM_UP = 1e-3, 10
WRONG = 0.1  # share of labels drawn at random
STATE_MIB = 3 * 4 * (INPUTS * WIDTH + WIDTH + WIDTH * WIDTH + WIDTH + WIDTH * CLASSES + CLASSES) / 2**20


def mlp(steps: int) -> Problem:
    """The training of ``steps`` steps in float32; each epoch is a new permutation of the pool."""
    model, layout = _model()
    draw = torch.Generator().manual_seed(1)
    rows, weights, order = _rows(draw), 0.5 + torch.rand(POOL, generator=draw), _order(draw, steps)
    pool, unseen = tuple(x[:POOL] for x in rows), tuple(x[POOL:] for x in rows)

    def batch(t: int) -> Batch:
        ids = order[t]
        return Batch(tuple(x[ids] for x in pool), ids, weights[ids])

    def losses(params: Params, rows: Rows) -> Tensor:
        return F.cross_entropy(functional_call(model, dict(params), (rows[0],)), rows[1], reduction="none")

    def joining(params: Params, pair: Rows, others: Rows) -> Tensor:
        return losses(params, pair)[-1]

    def target(params: Params) -> Tensor:
        return losses(params, unseen).mean()

    optimizer = Adam(eps_root=1e-8)
    learner = Learner(Classifier(model), layout, optimizer, constant(steps, RATE, min(WARM_UP, steps)), batch)
    initial = optimizer.init(layout.flatten(dict(model.named_parameters())).detach())
    return Problem("MLP 64-640-640-10", learner, initial, pool, losses, joining, target)


def _model() -> tuple[nn.Module, ParameterLayout]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Linear(INPUTS, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, CLASSES)]
    model = nn.Sequential(*layers).float()
    return model, ParameterLayout.of(model)


def _rows(draw: torch.Generator) -> Rows:
    """Pool and target rows: one Gaussian cloud a class; the target's labels are all right."""
    n = POOL + TARGET
    centres, classes = 0.5 * torch.randn(CLASSES, INPUTS, generator=draw), torch.randint(CLASSES, (n,), generator=draw)
    x = centres[classes] + torch.randn(n, INPUTS, generator=draw)
    wrong = torch.rand(n, generator=draw) < WRONG
    wrong[POOL:] = False
    return x, torch.where(wrong, torch.randint(CLASSES, (n,), generator=draw), classes)


def _order(draw: torch.Generator, steps: int) -> Tensor:
    """Pool positions of every batch, (steps, BATCH)."""
    epochs = -(-steps * BATCH // POOL)
    return torch.cat([torch.randperm(POOL, generator=draw) for _ in range(epochs)])[: steps * BATCH].view(steps, BATCH)
