"""Influence functions (Koh & Liang 2017) with a damped Gauss-Newton matrix, at the end of round 0's training.

Score of a pair: -<(G + lambda)^-1 grad phi, grad l_i>, what the target's loss would do if the pair weighed more in the
optimum. This is the formula that EK-FAC (Grosse et al. 2023, arXiv 2308.03296) approximates layer by layer and TRAK
(Park et al. 2023, arXiv 2303.14186) in a random projection. Both need a loss or an output of each sample alone, which
a contrastive batch has not: kronfluence and dattri, whose hooks ask for these, cannot carry it. Here the system is
solved by conjugate gradients on products G v = J' H J v (J of the similarities of a batch by the parameters, H of the
convex loss by the similarities), so nothing is factorised or projected; and one probe scores the pool.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from mgd_core.autodiff.derivatives import encode_dual, value_and_gradient
from mgd_core.autodiff.directions import encode_along
from mgd_core.autodiff.layout import Params
from mgd_core.autodiff.objective import Features
from mgd_core.engine.examination import probe_way_of
from mgd_core.engine.probe import Probe
from mgd_core.engine.replay import ProbePoint
from mgd_core.models.clip import ClipObjective
from mgd_core.training.learner import Batch, Learner
from mgd_core.training.order import generator
from mgd_core.training.streams import CURVATURE
from tasks.files.progress import announce
from tasks.modality.recipe import PROBE_BATCH, PoolRecipe, Scores, objective_of

BATCHES = 2
"""Batches, the last ones of a training on the whole pool, that G is the mean over."""
DAMPING = 0.1  # times the mean eigenvalue: Grosse et al. 2023, appendix
DIRECTIONS = 4
"""Random directions that the mean eigenvalue is estimated along."""
ITERATIONS, TOLERANCE = 24, 1e-3
"""Of conjugate gradients, which end at a residual so small beside the right side."""

Product = Callable[[Tensor], Tensor]


def influences(recipe: PoolRecipe, theta: Tensor | None) -> Scores:
    """Influence of every pair on the target's loss, nats: the lowest help most. Costs about 3 training steps for each
    of 56 products (2 batches, 28 directions), and a pass over the pool in forward mode."""
    assert theta is not None
    learner, _ = recipe.learner(seed=recipe.catalog.descent.seed)
    last, n = learner.steps - 1, len(recipe)
    _, wanted = recipe.targets(learner).target.target(theta)
    batches = [learner.batches(t) for t in range(max(0, last + 1 - BATCHES), last + 1)]
    move = -solved(lambda v: gauss_newton(learner, theta, batches, v), wanted)
    probe = Probe(learner, ProbePoint(last, theta, move), batches[-1])
    found, parts = np.zeros(n), [np.arange(at, min(at + PROBE_BATCH, n)) for at in range(0, n, PROBE_BATCH)]
    for i, (ids, batch) in enumerate(zip(parts, recipe.batches(parts), strict=True), start=1):
        found[ids] = probe.scores(batch.rows, batch.ids)[1].double().cpu().numpy()
        announce("influences", i, len(parts))
    return found


def solved(product: Product, wanted: Tensor, damping: float = DAMPING) -> Tensor:
    """(G + lambda)^-1 ``wanted`` (P,) by conjugate gradients, where ``product`` is v -> G v and lambda is ``damping``
    times G's mean eigenvalue, estimated (Hutchinson) along random signs."""
    signs = generator(0, CURVATURE).integers(0, 2, (DIRECTIONS, len(wanted)), np.int8)
    probes = [torch.from_numpy(2.0 * one - 1.0).to(wanted) for one in signs]
    shift = damping * sum(float(v @ product(v)) for v in probes) / (len(probes) * len(wanted))
    x, rest = torch.zeros_like(wanted), wanted.clone()
    along, size = rest.clone(), float(rest @ rest)
    enough = size * TOLERANCE**2
    for done in range(ITERATIONS):
        if size <= enough:
            break
        moved = product(along) + shift * along
        step = size / float(along @ moved)
        x, rest = x + step * along, rest - step * moved
        size, before = float(rest @ rest), size
        along = rest + (size / before) * along
        announce("solve for influences", done + 1, ITERATIONS)
    return x


def gauss_newton(learner: Learner, theta: Tensor, batches: Sequence[Batch], v: Tensor) -> Tensor:
    """G v (P,), the mean over batches of J' H J v, at parameters ``theta`` (P,)."""
    return sum((_of_batch(learner, theta, batch, v) for batch in batches), torch.zeros_like(v)) / len(batches)


def _of_batch(learner: Learner, theta: Tensor, batch: Batch, v: Tensor) -> Tensor:
    objective, layout = objective_of(learner, ClipObjective), learner.layout
    encode = encode_dual if probe_way_of(learner, theta, batch) == "forward" else encode_along
    (image, text), (image_moved, text_moved) = encode(objective, layout, theta, v, batch.rows, learner.chunk)
    params, moved = layout.unflatten(theta), layout.unflatten(v)
    scale = objective.scale(params)
    scale_moved = scale * moved["logit_scale"] * (params["logit_scale"].exp() < objective.max_scale)
    logits = image @ text.T
    along = scale_moved * logits + scale * (image_moved @ text.T + image @ text_moved.T)
    pulled = _Pulled(objective, curved(scale * logits, along))
    return value_and_gradient(pulled, layout, theta, batch.rows, batch.weights, learner.chunk)[1]


def curved(logits: Tensor, along: Tensor) -> Tensor:
    """H ``along`` (b, b): second derivative of the mean symmetric InfoNCE by its ``logits`` (b, b). What is subtracted
    for the pairs themselves is linear in them."""
    total = torch.zeros_like(logits)
    for dim in (0, 1):
        share = torch.softmax(logits, dim)
        weighed = share * along
        total += weighed - share * weighed.sum(dim, keepdim=True)
    return total / (2 * len(logits))


class _Pulled(ClipObjective):
    """Of which the gradient is J' ``cotangent``: the similarities of a batch, weighed by it (b, b)."""

    def __init__(self, of: ClipObjective, cotangent: Tensor) -> None:
        super().__init__(of.model, of.max_scale)
        self.cotangent = cotangent

    def couple(self, params: Params, features: Features, weights: Tensor) -> Tensor:
        image, text = features
        return (self.cotangent * (self.scale(params) * (image @ text.T))).sum()
