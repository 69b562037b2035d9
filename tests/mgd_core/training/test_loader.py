"""Batches read ahead: the same ones in any order, no more reads than the fewest, and in the order of every plan."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mgd_core.engine.journal import Interval, durable
from mgd_core.engine.replay import replay
from mgd_core.plans.actions import Plan
from mgd_core.plans.kary import kary
from mgd_core.plans.plan import binomial, keep_all
from mgd_core.plans.segments import segments
from mgd_core.training.learner import Batch
from mgd_core.training.loader import AHEAD, Loader, batch_bytes
from mgd_core.training.optimizers import Adam
from testing import problems

ROWS = 4


def batch_of(t: int) -> Batch:
    return Batch((torch.full((ROWS,), t),), torch.arange(ROWS), torch.ones(ROWS))


SIZE = batch_bytes(batch_of(0))


def fewest_reads(order: tuple[int, ...], room: int) -> int:
    """By trying everything: a batch is read, and any `room` of those in hand may stay."""

    @lru_cache(None)
    def reads(at: int, kept: frozenset[int]) -> int:
        if at == len(order):
            return 0
        t = order[at]
        held = kept | {t}
        choices = [held] if len(held) <= room else [held - {x} for x in held]
        return (t not in kept) + min(reads(at + 1, choice) for choice in choices)

    return reads(0, frozenset())


@given(order=st.lists(st.integers(0, 5), max_size=12).map(tuple), room=st.integers(0, 4))
@settings(max_examples=60, deadline=None)
def test_reads_are_the_fewest_there_can_be_but_for_what_is_on_its_way(order: tuple[int, ...], room: int) -> None:
    loader = Loader(batch_of, readers=1, cache_bytes=room * SIZE)
    loader.expect(order)
    for t in order:
        assert torch.equal(loader(t).rows[0], torch.full((ROWS,), t))
    # Batches read ahead are in memory beside the cache, so a few reads are saved that the cache alone would need.
    assert fewest_reads(order, room + AHEAD) <= loader.reads <= fewest_reads(order, room)


def test_out_of_turn_and_without_an_order_the_batch_is_the_same() -> None:
    loader = Loader(batch_of, readers=2, cache_bytes=2 * SIZE)
    assert loader(3).rows[0][0] == 3
    loader.expect([0, 1, 2, 1, 0])
    assert [int(loader(t).rows[0][0]) for t in (2, 2, 0, 7, 1, 2, 1, 0, 9)] == [2, 2, 0, 7, 1, 2, 1, 0, 9]


def test_a_reading_error_reaches_who_asks() -> None:
    def broken(t: int) -> Batch:
        raise OSError(f"batch {t} is gone")

    loader = Loader(broken)
    loader.expect([5])
    with pytest.raises(OSError, match="batch 5 is gone"):
        loader(5)


class Recorder:
    """Batches that note what they were told and what was asked for."""

    def __init__(self, loader: Loader) -> None:
        self.loader, self.told, self.asked = loader, list[int](), list[int]()

    def expect(self, steps: Iterable[int]) -> None:
        steps = list(steps)
        self.told += steps
        self.loader.expect(steps)

    def __call__(self, t: int) -> Batch:
        self.asked.append(t)
        return self.loader(t)


@pytest.mark.parametrize(
    "plan",
    [keep_all(3, 12), binomial(0, 12, 3), binomial(2, 12, 1), kary(0, 12, 3), segments(1, 12, 2, period=4)],
    ids=lambda plan: f"{plan.name}-{plan.start}",
)
def test_a_traversal_asks_for_what_it_announced_and_gives_the_same_bits(plan: Plan, tmp_path: Path) -> None:
    problem = problems.classifier(Adam(), 12)
    own = problem.learner.batches
    batches = Recorder(Loader(own, readers=2, cache_bytes=1 << 20))
    learner = replace(problem.learner, batches=batches)
    with durable(tmp_path, "key", Interval(steps=100)) as (store, _):
        found = replay(learner, problem.initial, problem.phi_and_gradient, plan, problem.pool_size, store=store)
    assert batches.asked == [0, 0, *batches.told], "before it, whether the first step repeats"
    assert batches.loader.reads == 2 + 12, "what fits in the cache is read once, however often it is replayed"
    window = keep_all(plan.start, 12)
    plain = replay(problem.learner, problem.initial, problem.phi_and_gradient, window, problem.pool_size)
    assert torch.equal(found.example, plain.example)
