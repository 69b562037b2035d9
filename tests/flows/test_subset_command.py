"""`mgd subset` as it is typed: listing, writing, saving, asking a run, and what it says when something is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from flows.cli import main
from tasks.catalog.catalogs import load_catalog
from tasks.curation import estimate
from tasks.curation.begin import begin_run
from tasks.modality.registry import open_recipe
from tasks.pool.pools import build_pool
from testing.datacomp_pool import make_pool
from testing.small_catalog import small_catalog


def test_filters_are_listed_with_their_parameters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["subset", "--list", "--home", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "clip_score" in told and "fraction (number 0..1, share) = none: Share of the scored pairs" in told
    assert "saved subsets: none yet" in told


def test_a_subset_of_tars_is_written_saved_and_used_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool, home = make_pool(tmp_path / "pool"), ["--home", str(tmp_path / "home")]
    pool.write()
    shards = ["--pool", str(pool.tar(0).parent), *home]
    assert main(["subset", "clip_score(fraction=0.5)", "--save", "best", *shards]) == 0
    assert main(["subset", "no_filter - best + best", "--out", str(tmp_path / "out.npy"), *shards]) == 0
    told = capsys.readouterr().out
    alive = len(pool.alive())
    assert f"{alive} of {alive} samples, 100.0%" in told and "best" in told
    assert len(np.load(tmp_path / "out.npy")) == alive
    record = json.loads((tmp_path / "out.npy.json").read_text())
    assert record["expression"] == "((no_filter - best) + best)" and record["of"] == alive
    assert main(["subset", "--list", *home]) == 0
    assert "best" in capsys.readouterr().out.split("saved subsets")[1]


def test_a_run_is_asked_for_its_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    catalog, home = small_catalog(tmp_path), tmp_path / "home"
    options = load_catalog(catalog)
    pool = build_pool(str(options.pool.source), home, options.pool.build_options())
    run = begin_run(home, catalog, pool)
    with open_recipe(run.directory) as bench:
        estimate.publish_pool(bench)
    (tmp_path / "own.sql").write_text(
        "-- What the last round has.\nSELECT uid FROM sample_outcomes WHERE last_count > 0"
    )
    arguments = ["--run", run.id, "--home", str(home), "--out", str(tmp_path / "a.npy")]
    assert main(["subset", f'"{tmp_path}/own.sql" & run(id="{run.id}", round=0)', *arguments]) == 0
    assert f"240 of {pool.samples} samples" in capsys.readouterr().out
    assert main(["subset", "no_filter", "--catalog", str(catalog), *arguments[2:]]) == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["a &"], "say where to write it"),
        ([], "say what to choose"),
        (["a & ", "--out", "x.npy", "--metadata", "{md}"], "a subset is missing here\n  a & \n      ^"),
        (["no_filter", "--out", "x.npy"], "say what to choose from"),
        (["no_filter", "--save", "basic", "--metadata", "{md}"], "that is the name of a filter"),
        (["no_filter", "--save", "a-b", "--metadata", "{md}"], "a name is letters, digits and _"),
    ],
)
def test_mistakes_end_as_one_message(
    arguments: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool = make_pool(tmp_path / "pool")
    pool.write_metadata()
    given = [word.format(md=pool.metadata()) for word in arguments]
    assert main(["subset", *given, "--home", str(tmp_path / "home")]) == 1
    assert told in capsys.readouterr().err and not (tmp_path / "x.npy").exists()
