"""Hostile pools: every known defect comes to the end written beside it, none is silent, no good sample is lost."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from testing.defects import SUBSETS, judge_subset
from testing.hostile_pool import DEFECTS, Judgement, judge, judge_together


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A directory in memory where there is one: these pools are thousands of tiny files, each flushed to the disk."""
    memory = Path("/dev/shm")
    path = Path(tempfile.mkdtemp(prefix="mgd-hostile-", dir=memory if os.access(memory, os.W_OK) else None))
    yield path
    shutil.rmtree(path)


def test_all_defects_that_keep_to_their_shards_in_one_pool(scratch: Path) -> None:
    judged = judge_together([one for one in DEFECTS.values() if not one.wide], scratch)
    assert len(judged) > 50 and {one.section for one in DEFECTS.values()} == {"1", "2", "6"}
    assert {name: one for name, one in judged.items() if one.silent or one.lost} == {}


@pytest.mark.parametrize("name", [one.name for one in DEFECTS.values() if one.wide])
def test_a_defect_of_the_whole_pool(name: str, scratch: Path) -> None:
    judged = judge(DEFECTS[name], scratch)
    assert (judged.silent, judged.lost) == ("", 0)


@pytest.mark.parametrize("name", ["tar_cut", "caption_blank", "content_drifted"])
def test_a_defect_alone_is_judged_as_among_others(name: str, scratch: Path) -> None:
    """The budget's stop too, which only a pool of its own shows."""
    assert judge(DEFECTS[name], scratch) == Judgement("", 0, judge(DEFECTS[name], scratch / "again").good)


@pytest.mark.parametrize("name", SUBSETS)
def test_a_wrong_subset_file_is_refused(name: str, tmp_path: Path) -> None:
    assert judge_subset(name, tmp_path) == ""
