"""Recipes that differ in smoothness: a classifier of the fashion pool's pictures, trained on its half-wrong captions.

The pool is the first 1,024 pictures, averaged to 14 x 14 pixels, with the class that the caption names (right for half
of them); the target is cross-entropy on 500 others, whose classes are right. The model is an MLP with GELU, float32,
512 steps, cosine schedule. The base recipe is a rough one: four hidden layers of 64 normalised after the activation,
Adam without eps_root or warm-up at a high learning rate, batches of 32, differentiated from its first step. Every other
recipe turns one knob of it (SGD comes with a learning rate of its own).

How they were chosen: of 64 settings of the knobs S was measured along one direction with one seed, and the accuracy of
the plain training on the target's pictures. These 15 all learn as much (0.62 to 0.70; chance is 0.1) and lie spread
over S from 0 to 1, with as many different knobs as that allows. No metagradient had been taken of any by then.
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

from mgd_core.autodiff.layout import ParameterLayout
from mgd_core.descent.steps import Counts
from mgd_core.models.clip import initial_parameters
from mgd_core.training.learner import Batch, Learner
from mgd_core.training.optimizers import Adam, Sgd, State
from mgd_core.training.order import DataOrder
from mgd_core.training.schedules import warmup_cosine
from tasks.files.package_data import CATALOGS
from tasks.pool.sheets import open_sheet
from testing.problems import Classifier

POOL, TARGET, SIDE, HIDDEN, BATCH = 1024, 500, 14, 64, 32
CENTRE, SPREAD = 0.29, 0.35  # of Fashion-MNIST's pixels

Target = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Recipe:
    """A training recipe: momentum SGD or Adam, batch in rows, warm-up and window start as shares of the training."""

    name: str
    sgd: bool = False
    learning_rate: float = 2e-2
    eps_root: float = 0.0
    warmup: float = 0.0
    window: float = 0.0
    layers: int = 4
    norm: bool = True
    logit_scale: float = 1.0


BASE = Recipe("base")
RECIPES = (
    BASE,
    replace(BASE, name="warm-up of 64 steps", warmup=0.125),
    replace(BASE, name="logit scale 0.1", logit_scale=0.1),
    replace(BASE, name="no normalisation", norm=False),
    replace(BASE, name="one hidden layer", layers=1),
    *(replace(BASE, name=f"eps_root {x:g}", eps_root=x) for x in (1e-4, 1e-3)),
    *(replace(BASE, name=f"learning rate {x:g}", learning_rate=x) for x in (2e-3, 1e-3, 5e-4)),
    *(replace(BASE, name=f"SGD, learning rate {x:g}", sgd=True, learning_rate=x) for x in (3e-2, 1e-2)),
    *(replace(BASE, name=f"window from {x:.1%}", window=x) for x in (0.25, 0.5, 0.625)),
)


@dataclass(frozen=True)
class Pictures:
    """Pixels (n, 196), the class (n,) that is trained on, and whether it is the right one (n,)."""

    pixels: Tensor
    labels: Tensor
    clean: npt.NDArray[np.bool_]


class Scaled(nn.Module):
    """Its input times a constant."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        return self.scale * x


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
    model = _model(recipe, seed)
    layout = ParameterLayout.of(model)
    optimizer = Sgd(momentum=0.9) if recipe.sgd else Adam(b1=0.9, b2=0.98, eps=1e-8, eps_root=recipe.eps_root)
    order, pool = DataOrder(counts, BATCH, steps, seed), pictures("pool", POOL)

    def batches(t: int) -> Batch:
        ids = torch.from_numpy(order[t])
        return Batch((pool.pixels[ids], pool.labels[ids]), ids, torch.ones(len(ids)))

    rates = warmup_cosine(steps, recipe.learning_rate, round(recipe.warmup * steps))
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


def _model(recipe: Recipe, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for width in (SIDE * SIDE, *(HIDDEN,) * (recipe.layers - 1)):
            layers += [nn.Linear(width, HIDDEN), nn.GELU(), *([nn.LayerNorm(HIDDEN)] if recipe.norm else [])]
        return nn.Sequential(*layers, nn.Linear(HIDDEN, 10), Scaled(recipe.logit_scale))
