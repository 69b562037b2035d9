"""Before the rounds: is a step deterministic here, and what will the run cost?"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

from mgd_core.derivatives import curvature_product
from mgd_core.guard import check_step
from tasks.progress import say
from tasks.rounds import first_counts, plan_of, probe_steps_of
from tasks.tables import files, publish
from tasks.workbench import Workbench, opened


def prepare(directory: Path) -> None:
    """Publish the pool's tables and round 0's counts, check determinism on one step, and say what the run will cost.

    Raises:
        NondeterminismError: the same step, run twice, gave different bits.
    """
    with opened(directory) as bench:
        publish_pool(bench)
        step, reverse = measure(bench)
        say(_forecast(bench, step, reverse))


def publish_pool(bench: Workbench) -> None:
    """Publish the pool's tables and round 0's counts, once."""
    run = bench.run
    if 0 not in files(run.home, run.id, "counts"):
        publish(run.home, run.id, "samples", 0, pq.read_table(bench.pool.samples_path))
        publish(run.home, run.id, "rejects", 0, pq.read_table(bench.pool.rejects_path))
        first_counts(bench)


def measure(bench: Workbench) -> tuple[float, float]:
    """Seconds of a training step and of a reverse step; the step is run twice and compared bit for bit."""
    learner, state = bench.learner(np.ones(len(bench.pairs), np.int64), bench.catalog.descent.seed)
    check_step(learner, state, 0)
    began = time.monotonic()
    learner.step(state, 0)
    step = time.monotonic() - began
    batch = learner.batches(0)
    theta, v = state.theta, torch.ones_like(state.theta)
    arguments = (learner.objective, learner.layout, theta, v, batch.rows, batch.weights, learner.chunk)
    curvature_product(*arguments)
    began = time.monotonic()
    curvature_product(*arguments)
    return step, time.monotonic() - began


def _forecast(bench: Workbench, step: float, reverse: float) -> str:
    """One sentence on what the run will cost, in steps and minutes."""
    catalog, plan = bench.catalog, plan_of(bench.catalog)
    descent, learner = catalog.descent, catalog.learner
    candidates = descent.p * len(bench.pairs) * len(probe_steps_of(descent)) * descent.rounds
    trainings = descent.rounds + 1 + len(catalog.comparison.subsets) * len(catalog.comparison.seeds)
    again = descent.rounds * (plan.advances - plan.steps + 1)
    reversed_steps = descent.rounds * plan.steps
    steps = trainings * learner.steps + again
    # A probe is a forward-mode pass: about the matrix products of a training step for the same rows.
    seconds = steps * step + reversed_steps * reverse + candidates / learner.batch * step
    return (
        f"{len(bench.pairs):,} pairs; {descent.rounds} rounds: {trainings} trainings of {learner.steps} steps "
        f"({step:.3f} s each), {again} replayed, {reversed_steps} reverse steps ({reverse:.3f} s each), "
        f"{candidates:,.0f} probes; at most {sum(plan.peak_states.values())} states held. About {seconds / 60:.1f} "
        "minutes from nothing; finished parts are not run again."
    )
