"""A small training that takes its time, to be killed: two towers of one layer and InfoNCE, states on disk, a journal.

Imports no more than it must, since every kill starts processes anew.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from mgd_core.autodiff.derivatives import target_at
from mgd_core.autodiff.layout import ParameterLayout, Params
from mgd_core.autodiff.objective import Features, Objective, Rows, info_nce, info_nce_joining, unit_rows
from mgd_core.engine.journal import Interval, durable
from mgd_core.engine.replay import replay
from mgd_core.plans.segments import segments
from mgd_core.ranks.ranks import Ranks
from mgd_core.training.learner import Batch, Learner
from mgd_core.training.optimizers import Adam
from mgd_core.training.schedules import constant
from mgd_core.training.spread import spread

STEPS, START, POOL, BATCH = 14, 4, 40, 7


class Towers(Objective):
    """Rows (n, 12), of which each tower sees one half."""

    def __init__(self) -> None:
        draw = torch.Generator().manual_seed(0)
        sides = {side: nn.Parameter(torch.randn(6, 5, generator=draw)) for side in ("left", "right")}
        self.model = nn.ParameterDict({**sides, "scale": nn.Parameter(torch.tensor(1.0))})

    def encode(self, params: Params, rows: Rows) -> Features:
        """Unit features of both halves, each (n, 5)."""
        left, right = rows[0].split(6, 1)
        return unit_rows((left @ params["left"]).tanh()), unit_rows((right @ params["right"]).tanh())

    def losses(self, params: Params, features: Features) -> Tensor:
        """InfoNCE (n,)."""
        left, right = features
        return info_nce(left, right, params["scale"].exp())

    def candidate_losses(self, params: Params, candidates: Features, reference: Features, others: Tensor) -> Tensor:
        """InfoNCE (n,) beside the reference."""
        left, right = candidates
        return info_nce_joining(left, right, (reference[0], reference[1]), params["scale"].exp(), others)


def train(folder: Path, seconds: float, ranks: Ranks) -> None:
    """Sleep ``seconds`` at each step; say in ``folder`` how many are done, and leave a digest of the result there."""
    torch.set_num_threads(1)
    objective, draw = Towers(), torch.Generator().manual_seed(1)
    layout, pool = ParameterLayout.of(objective.model), torch.randn(POOL, 12, generator=draw)

    def batches(t: int) -> Batch:
        ids = torch.randperm(POOL, generator=torch.Generator().manual_seed(t))[:BATCH]
        return Batch((pool[ids],), ids, torch.ones(BATCH))

    def target(theta: Tensor) -> tuple[Tensor, Tensor]:
        return target_at(layout, theta, lambda p: objective.losses(p, objective.encode(p, (pool[:9],))).mean())

    steps = [0]

    def on(what: str, t: int) -> None:
        steps[0] += 1
        if ranks.first:
            (folder / "progress").write_text(str(steps[0]))
        time.sleep(seconds)

    optimizer, theta = Adam(eps_root=1e-6, clip_norm=0.3), layout.flatten(dict(objective.model.items())).detach()
    whole = Learner(objective, layout, optimizer, constant(STEPS, 0.02), batches)
    learner, state = spread(whole, optimizer.init(theta), ranks)
    plan = segments(START, STEPS, 2, disk_states=3)
    with durable(folder / "states", "key", Interval(steps=2), ranks) as (store, journal):
        result = replay(learner, state, target, plan, POOL, (START,), on=on, store=store, journal=journal)
    if ranks.first:
        found = [result.phi, *result.final.tensors, result.example, result.learning_rate, result.probes[0].gamma]
        digest = hashlib.sha256(b"".join(x.contiguous().numpy().tobytes() for x in found))
        (folder / "digest").write_text(digest.hexdigest())
