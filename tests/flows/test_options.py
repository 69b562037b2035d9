"""Numbers on the command line: what is none, negative or absurd is told with the option, before anything is done."""

from __future__ import annotations

import pytest

from flows.cli import main
from tasks.files.remotes import RemoteOptions
from tasks.pool.census_kinds import CensusOptions
from tasks.pool.record import BuildOptions

RESHARD = ["reshard", "pool", "--out", "out"]
SMOOTHNESS = ["smoothness", "fashion"]
OPTIONS = [
    (RESHARD, "--max-damaged-shards", True),
    (RESHARD, "--max-lost", True),
    (RESHARD, "--max-rejects", True),
    (RESHARD, "--seed", True),
    (RESHARD, "--shard-size", False),
    (RESHARD, "--workers", False),
    (["evaluate", "sets"], "--batch", False),
    (["evaluate", "sets"], "--seed", True),
    (["export", "--format", "datacomp"], "--round", True),
    (["export", "--format", "webdataset"], "--seed", True),
    (SMOOTHNESS, "--directions", False),
    (SMOOTHNESS, "--lds", False),
]


@pytest.mark.parametrize(("command", "option", "zero"), OPTIONS)
def test_numbers_that_are_none_are_refused_by_the_options_name(
    command: list[str], option: str, zero: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    for value in ("-1", "1.5", "many", "nan", "inf", "1e30", "9" * 30, "9" * 5000, "", *([] if zero else ["0"])):
        try:
            status = main([*command, f"{option}={value}"])
        except SystemExit as stopped:
            status = int(str(stopped.code))
        told = capsys.readouterr().err
        assert status in (1, 2) and option in told and "Traceback" not in told, (value, told)


@pytest.mark.parametrize("value", ["-0.1", "0", "nan", "inf", "-inf"])
def test_a_step_that_is_none_is_refused(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([*SMOOTHNESS, f"--h={value}"])
    assert "argument --h" in capsys.readouterr().err


@pytest.mark.parametrize("value", [-1, 1.5, float("nan"), float("inf"), -0.1, "many"])
def test_budgets_are_numbers_or_shares(value: object) -> None:
    with pytest.raises(ValueError, match="max_rejects"):
        BuildOptions(max_rejects=value)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="limits"):
        CensusOptions(limits={"gap": value})  # type: ignore[dict-item]
    if not isinstance(value, float) or value != 1.5:
        with pytest.raises(ValueError, match="cache_gib"):
            RemoteOptions(cache_gib=value)  # type: ignore[arg-type]
