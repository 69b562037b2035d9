"""A short run of the fuzzer: no exception that is not ours, nothing lost in silence."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from testing.fuzzing import INTACT, REFUSED, TARGETS, fuzz

CASES = {
    "tar": 150,
    "metadata": 60,
    "table": 150,
    "json": 300,
    "sample_json": 60,
    "npy": 150,
    "npz": 100,
    "eval_set": 150,
    "pool_files": 6,
}


@pytest.mark.parametrize("target", TARGETS)
def test_damage_is_told_or_does_no_harm(target: str, tmp_path: Path) -> None:
    ends = Counter(fuzz(target, seed, tmp_path) for seed in range(CASES[target]))
    assert set(ends) <= {INTACT, REFUSED} and ends[REFUSED] > CASES[target] / 4


def test_a_case_is_a_function_of_its_seed(tmp_path: Path) -> None:
    runs = [[fuzz("tar", seed, tmp_path) for seed in range(12)] for _ in range(2)]
    assert runs[0] == runs[1] and set(runs[0]) == {INTACT, REFUSED}
