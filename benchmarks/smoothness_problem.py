"""Recipes that differ in smoothness: a classifier of the fashion pool's pictures, trained on its half-wrong captions.

The pool is the first 1,024 pictures, averaged to 14 x 14 pixels, with the class that the caption names (right for half
of them); the target is cross-entropy on 500 others, whose classes are right. The model is an MLP of two hidden layers
of 64 with layer norm and GELU, float32, cosine schedule. The base recipe is a rough one: Adam without eps_root or
warm-up at a high learning rate, differentiated from its first step. Every other recipe turns one knob of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.problems import Classifier
from mgd_core.clip import initial_parameters
from mgd_core.descent import Counts
from mgd_core.layout import ParameterLayout
from mgd_core.learner import Batch, Learner
from mgd_core.optimizers import Adam, State
from mgd_core.order import DataOrder
from mgd_core.schedules import warmup_cosine
from tasks.catalog import CATALOGS
from tasks.sheets import open_sheet

POOL, TARGET, SIDE, HIDDEN = 1024, 500, 14, 64
CENTRE, SPREAD = 0.29, 0.35  # of Fashion-MNIST's pixels

Target = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Recipe:
    """A training recipe: batch in rows, warm-up in steps, window start as a share of the training."""

    name: str
    eps_root: float = 0.0
    learning_rate: float = 2e-2
    batch: int = 64
    warmup: int = 0
    window: float = 0.0


BASE = Recipe("base")
RECIPES = (
    BASE,
    *(replace(BASE, name=f"eps_root {x:g}", eps_root=x) for x in (1e-8, 1e-6)),
    *(replace(BASE, name=f"learning_rate {x:g}", learning_rate=x) for x in (4e-2, 6e-3, 2e-3, 5e-4)),
    *(replace(BASE, name=f"batch {x}", batch=x) for x in (16, 256)),
    *(replace(BASE, name=f"warmup {x}", warmup=x) for x in (16, 48)),
    *(replace(BASE, name=f"window from {x:.0%}", window=x) for x in (0.25, 0.75)),
)


@dataclass(frozen=True)
class Pictures:
    """Pixels (n, 196), the class (n,) that is trained on, and whether it is the right one (n,)."""

    pixels: Tensor
    labels: Tensor
    clean: npt.NDArray[np.bool_]


@cache
def pictures(split: str, n: int) -> Pictures:
    """The first ``n`` of a split of the embedded fashion sheet."""
    sheet = open_sheet(CATALOGS / "pools" / "fashion")
    rows = sheet.rows(split).slice(0, n)
    classes = sorted(set(sheet.rows("target")["label"].to_pylist()))
    labels = torch.tensor([classes.index(name) for name in rows["label"].to_pylist()])
    images = torch.from_numpy(sheet.images(split)[:n].astype(np.float32)).permute(0, 3, 1, 2)
    pixels = F.adaptive_avg_pool2d(images / 255, SIDE).flatten(1).sub(CENTRE).div(SPREAD)
    return Pictures(pixels, labels, np.array([x is not False for x in rows["truth_clean"].to_pylist()]))


def learner_of(recipe: Recipe, counts: Counts, steps: int, seed: int) -> tuple[Learner, State]:
    """The recipe on a training multiset, and its first state: a function of its arguments."""
    model = _model(seed)
    layout = ParameterLayout.of(model)
    optimizer = Adam(b1=0.9, b2=0.98, eps=1e-8, eps_root=recipe.eps_root)
    order, pool = DataOrder(counts, recipe.batch, steps, seed), pictures("pool", POOL)

    def batches(t: int) -> Batch:
        ids = torch.from_numpy(order[t])
        return Batch((pool.pixels[ids], pool.labels[ids]), ids, torch.ones(len(ids)))

    rates = warmup_cosine(steps, recipe.learning_rate, recipe.warmup)
    learner = Learner(Classifier(model), layout, optimizer, rates, batches)
    return learner, optimizer.init(initial_parameters(model, layout))


def target_of(learner: Learner) -> Target:
    """Mean cross-entropy of the target pictures, nats, and its gradient."""
    shown = pictures("target", TARGET)

    def target(theta: Tensor) -> tuple[Tensor, Tensor]:
        theta = theta.detach().requires_grad_(True)
        with torch.enable_grad():
            params = learner.layout.unflatten(theta)
            phi = learner.objective.encode(params, (shown.pixels, shown.labels))[0].mean()
            (gradient,) = torch.autograd.grad(phi, theta)
        return phi.detach(), gradient

    return target


def _model(seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for width in (SIDE * SIDE, HIDDEN):
            layers += [nn.Linear(width, HIDDEN), nn.LayerNorm(HIDDEN), nn.GELU()]
        return nn.Sequential(*layers, nn.Linear(HIDDEN, 10))
