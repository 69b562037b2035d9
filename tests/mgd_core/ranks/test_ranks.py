"""A training over ranks is that of one process: to rounding in float64, and to the bit when it is run again."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mgd_core.engine.journal import Interval, durable
from mgd_core.ranks.ranks import ALONE, Ranks
from testing.rank_groups import on_ranks
from testing.ranked import CASES, Found, bits_apart, direct, found, twice, worst

EXACT = 1e-12
CLIP, SEGMENTS = "CLIP, clipped on the kink", "two towers, segments, SGD"


class CutOff(Exception):
    """Stands for the end of a process."""


def cut_off(ranks: Ranks, folder: Path) -> Found:
    """A traversal by three processes, of which two end in the middle of a sweep, the ranks at different steps."""
    for events in (5, 11):
        seen = [0]

        def on(what: str, t: int, seen: list[int] = seen, events: int = events) -> None:
            seen[0] += 1
            if seen[0] == events:
                raise CutOff

        with durable(folder, "key", Interval(steps=2), ranks) as (store, journal), pytest.raises(CutOff):
            found(ranks, SEGMENTS, on=on, store=store, journal=journal)
        if ranks.number:  # this rank's newest record never reached its disk
            newest = max(Path(folder).glob(f"rank-{ranks.number}*/*-[01].safetensors"), key=lambda p: p.stat().st_mtime)
            newest.unlink()
    with durable(folder, "key", Interval(steps=2), ranks) as (store, journal):
        return found(ranks, SEGMENTS, store=store, journal=journal)


def quick(ranks: Ranks, folder: Path) -> dict[str, Any]:
    return {
        "clip": found(ranks, CLIP),
        "segments": found_on_disk(ranks, folder / "whole"),
        "cut off": cut_off(ranks, folder / "parts"),
        "direct": direct(ranks),
    }


def found_on_disk(ranks: Ranks, folder: Path) -> Found:
    with durable(folder, "key", Interval(steps=3), ranks) as (store, journal):
        return found(ranks, SEGMENTS, store=store, journal=journal)


def test_two_ranks_are_one_process(tmp_path: Path):
    """Batches of 7 do not divide; some steps are clipped; a learnt scale; a weight of zero; cut off and resumed."""
    first, second = on_ranks(2, quick, tmp_path)
    clip = found(ALONE, CLIP)
    assert worst(first["clip"], clip) < EXACT
    assert first["clip"].state_bytes == pytest.approx(clip.state_bytes / 2, rel=0.02)
    assert worst(first["segments"], found_on_disk(ALONE, tmp_path / "alone")) < EXACT
    assert bits_apart(first["segments"], first["cut off"]) == 0
    for name in ("clip", "segments"):
        assert bits_apart(first[name], second[name]) == 0
    for there, here in zip(first["direct"], direct(ALONE), strict=True):
        torch.testing.assert_close(there, here, rtol=EXACT, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("name", CASES)
def test_every_case_on_any_number_of_ranks(name: str, count: int, tmp_path: Path):
    (first, again), *others = on_ranks(count, twice, name, tmp_path / "ranks")
    assert worst(first, twice(ALONE, name, tmp_path / "alone")[0]) < EXACT
    assert bits_apart(first, again) == 0
    assert all(bits_apart(first, other) == 0 for other, _ in others)
