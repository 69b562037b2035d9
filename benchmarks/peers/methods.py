"""Ways to the same metagradient, each as a function of a problem: ours, naive unrolling, TorchOpt.

bergson's is in benchmarks.peers.bergson. All return the gradient of phi by every example's weight, and what was spent.
A peer is imported when its function is called, so that one that is missing harms nobody else.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mgd_core.engine.background import Background
from mgd_core.engine.disk_store import DiskStore
from mgd_core.engine.replay import replay
from mgd_core.engine.state_files import StateFiles
from mgd_core.engine.store import Store
from mgd_core.plans.actions import Plan, Tier
from mgd_core.plans.plan import binomial, keep_all
from mgd_core.plans.segments import segments
from mgd_core.training.determinism import deterministic
from mgd_core.training.optimizers import Adam
from testing.oracles import NaiveRun, Problem


@dataclass(frozen=True)
class Outcome:
    """A metagradient and its cost.

    ``gradient``: (pool size,), d phi / d example weight. ``advances``: training steps without a graph, the last one of
    the first sweep included. ``states``: training states held at once beside the working one, and the most of them in
    memory and on disk; None where a graph of the whole run is held instead. ``disk_bytes``: after the first sweep.
    """

    gradient: Tensor
    phi: float
    advances: int
    states: int | None = None
    memory_states: int | None = None
    disk_states: int = 0
    disk_bytes: int = 0


def ours(
    problem: Problem, slots: int | None = None, disk_states: int | None = None, chunk: int | None = None
) -> Outcome:
    """mgd_core.engine.replay under the determinism of a real run.

    ``slots``: most states in memory (None: all). ``disk_states``: most states on disk besides (None: no disk).
    """
    learner = dataclasses.replace(problem.learner, chunk=chunk)
    with deterministic(torch.get_num_threads()), _scratch_store() as (store, files):
        taken = [0]

        def weigh(what: str, t: int) -> None:
            if (what, t) == ("reverse", learner.steps - 1):
                taken.append(files.bytes_present())

        found = replay(
            learner,
            problem.initial,
            problem.phi_and_gradient,
            _plan(learner.steps, slots, disk_states),
            problem.pool_size,
            on=weigh,
            store=store,
        )
    memory, disk = (found.peak_states.get(tier, 0) for tier in (Tier.DEVICE, Tier.DISK))
    return Outcome(found.example, float(found.phi), found.advances + 1, memory + disk, memory, disk, max(taken))


def _plan(steps: int, slots: int | None, disk_states: int | None) -> Plan:
    if slots is None:
        return keep_all(0, steps)
    return binomial(0, steps, slots) if disk_states is None else segments(0, steps, slots, disk_states=disk_states)


@contextmanager
def _scratch_store() -> Iterator[tuple[Store, StateFiles]]:
    with tempfile.TemporaryDirectory(prefix="mgd-peers-") as folder:
        files, writer = StateFiles(Path(folder), "side by side"), Background()
        disk = DiskStore(files, writer)
        try:
            yield Store(disk), files
        finally:
            writer.close()
            disk.close()


def naive(problem: Problem) -> Outcome:
    """One reverse pass through the graph of the whole training, in plain PyTorch."""
    found = NaiveRun(problem).gradient()
    return Outcome(found.example, found.phi, advances=0)


def torchopt(problem: Problem) -> Outcome:
    """TorchOpt's functional Adam, differentiably: the graph of the whole training again, through its optimizer."""
    import torchopt as library

    learner, optimizer = problem.learner, torchopt_adam(problem)
    params = {k: p.clone().requires_grad_(True) for k, p in learner.layout.unflatten(problem.initial.theta).items()}
    state = optimizer.init(params)
    change = problem.initial.theta.new_zeros(problem.pool_size, requires_grad=True)
    for t in range(learner.steps):
        batch = learner.batches(t)
        losses = problem.losses(params, batch.rows)
        loss = ((batch.weights + change[batch.ids]) * losses).sum() / len(losses)
        gradients = dict(zip(params, torch.autograd.grad(loss, tuple(params.values()), create_graph=True), strict=True))
        updates, state = optimizer.update(gradients, state, params=params, inplace=False)
        params = library.apply_updates(params, updates, inplace=False)
    phi = problem.target(params)
    return Outcome(torch.autograd.grad(phi, change)[0], phi.item(), advances=0)


def torchopt_adam(problem: Problem) -> Any:
    """The problem's Adam from TorchOpt. Its accelerated form is left out: it is wrong by 1e-5 in float64."""
    import torchopt as library

    own, rates = problem.learner.optimizer, problem.learner.learning_rates.tolist()
    assert isinstance(own, Adam) and own.weight_decay == 0 and own.clip_norm is None, f"not the same step: {own}"

    def rate(count: Tensor) -> Any:
        return rates[min(int(count), len(rates) - 1)]

    return library.adam(rate, betas=(own.b1, own.b2), eps=own.eps, eps_root=own.eps_root)
