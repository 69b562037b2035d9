"""What the parts of a run cost here: a training step, a reverse step, moving a state to another tier. Measured once.

Batches are read, decoded and cropped ahead of the steps by ``runtime.readers`` threads: a step takes the longest of its
own work, its reader's share of a batch, and what both ask of the cores.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from mgd_core.autodiff.derivatives import curvature_product
from mgd_core.engine.guard import check_step
from mgd_core.engine.state_files import StateFiles
from mgd_core.engine.store import named
from mgd_core.plans.actions import Tier
from mgd_core.plans.planning import Rates
from mgd_core.plans.traffic import Traffic
from mgd_core.training.learner import Batch, Learner
from mgd_core.training.optimizers import State
from tasks.catalog.recipe_options import RuntimeOptions
from tasks.files.plurals import counted
from tasks.files.processes import cores
from tasks.modality.recipe import PoolRecipe
from tasks.modality.registry import open_recipe

TRIAL = "transfer-trial"  # directory of the state that is written and read to see how long that takes


@dataclass(frozen=True)
class StepCosts:
    """Seconds of a training step and of a reverse step, each as its batch is read ahead, and bytes of a training state
    (of its slice, on several ranks). ``read``: seconds of one batch's reading by one thread."""

    step: float
    reverse: float
    state_bytes: int
    read: float = 0.0
    traffic: Traffic | None = None
    """What several ranks send; the seconds that this takes depend on what joins them, and come on top."""


def reading_note(recipe: PoolRecipe) -> list[str]:
    """A sentence where steps wait for their batches and more readers would help."""
    runtime, read = recipe.catalog.runtime, measure(recipe).read
    if read / runtime.ranks / runtime.readers < measure(recipe).step or runtime.readers >= cores():
        return []
    return [
        f"Reading a batch takes a thread {read:.2f} s, so steps wait for {counted(runtime.readers, 'reader')}: more of "
        f"them (runtime.readers; there are {cores()} cores) are faster and change no result."
    ]


def ranks_note(recipe: PoolRecipe) -> list[str]:
    """A sentence on what each of several ranks holds and sends."""
    costs, ranks = measure(recipe), recipe.catalog.runtime.ranks
    if costs.traffic is None:
        return []
    sent = [f"{bytes / 2**20:,.1f} MiB" for bytes in (costs.traffic.step, costs.traffic.reverse)]
    return [
        f"On {ranks} ranks: bytes of states are those of each rank ({costs.state_bytes / 2**20:,.1f} MiB a state), "
        f"and it sends {sent[0]} in a training step and {sent[1]} in a reverse step, whose seconds come on top."
    ]


def measure(recipe: PoolRecipe) -> StepCosts:
    """Costs of the catalog's recipe, measured once in a process; the step is run twice and compared bit for bit.

    Raises:
        NondeterminismError: the same step, run twice, gave different bits.
    """
    return _measured(recipe.run.directory)


def measure_transfers(recipe: PoolRecipe, costs: StepCosts, tiers: set[Tier]) -> Rates:
    """Rates of the recipe with the seconds of a save and a load of one state for each of ``tiers``."""
    device = torch.device(recipe.catalog.runtime.device)
    _, state = recipe.learner()
    found = {tier: (_to_host if tier is Tier.HOST else _to_disk)(recipe, state) for tier in sorted(tiers)}
    saves, loads = ({tier: pair[i] for tier, pair in found.items()} for i in (0, 1))
    # On a CPU, moving bytes takes the cores that train.
    return Rates(costs.step, costs.reverse, saves, loads, overlap=device.type == "cuda")


@cache
def _measured(directory: Path) -> StepCosts:
    with open_recipe(directory) as recipe:
        learner, state = recipe.learner()
        check_step(learner, state, 0)
        read = _seconds(lambda: learner.batches(0), state)
        batch = learner.batches(0)
        step = _seconds(lambda: learner.step(state, 0, batch), state)
        theta, v = state.theta, torch.ones_like(state.theta)
        arguments = (learner.objective, learner.layout, theta, v, batch.rows, batch.weights, learner.chunk)
        curvature_product(*arguments)
        reverse = _seconds(lambda: curvature_product(*arguments), state)
        runtime = recipe.catalog.runtime
        step, reverse = (_paced(work, read, runtime) for work in (step, reverse))
        if runtime.ranks == 1:
            return StepCosts(step, reverse, state.nbytes, read)
        return StepCosts(
            step, reverse, -(-state.nbytes // runtime.ranks), read, _traffic(recipe, learner, state, batch)
        )


def _traffic(recipe: PoolRecipe, learner: Learner, state: State, batch: Batch) -> Traffic:
    with torch.no_grad():
        row = tuple(x[:1] for x in batch.rows)
        features = learner.objective.encode(learner.layout.unflatten(state.theta), row)
    options, sent = recipe.catalog.learner, sum(x.nbytes for x in features)
    clipped = options.clip_norm is not None
    return Traffic(recipe.catalog.runtime.ranks, learner.layout.length, options.batch, sent, clipped=clipped)


def _paced(work: float, read: float, runtime: RuntimeOptions) -> float:
    """Seconds of a step of ``work`` seconds whose batch takes one thread ``read`` seconds. Ranks share the rows, and on
    CPUs the cores."""
    busy = runtime.threads if runtime.device == "cpu" else 1
    return max(work / runtime.ranks, read / runtime.ranks / runtime.readers, (busy * work + read) / cores())


def _to_host(_: PoolRecipe, state: State) -> tuple[float, float]:
    if not state.theta.is_cuda:
        return 0.0, 0.0  # the same memory
    pinned = [torch.empty(x.shape, dtype=x.dtype, pin_memory=True) for x in state.tensors]

    def save() -> None:
        for target, source in zip(pinned, state.tensors, strict=True):
            target.copy_(source, non_blocking=True)

    return _seconds(save, state), _seconds(lambda: [x.to(state.theta.device) for x in pinned], state)


def _to_disk(recipe: PoolRecipe, state: State) -> tuple[float, float]:
    files = StateFiles(recipe.run.work(TRIAL), "trial")
    try:
        on_host = {name: tensor.cpu() for name, tensor in named(state).items()}
        files.check_room(state.nbytes, "trial of a training state's writing")
        save = _seconds(lambda: files.write("state", on_host), state)
        return save, _seconds(lambda: files.read("state"), state)
    finally:
        shutil.rmtree(files.directory, ignore_errors=True)


def _seconds(work: Callable[[], object], like: State) -> float:
    """Of ``work``, with what it started on the device of ``like``."""
    _synchronise(like)
    began = time.perf_counter()
    work()
    _synchronise(like)
    return time.perf_counter() - began


def _synchronise(state: State) -> None:
    if state.theta.is_cuda:
        torch.cuda.synchronize(state.theta.device)
