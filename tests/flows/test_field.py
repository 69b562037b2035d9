"""The whole way on a pool as strangers have it: census, plan, curation, SQL, report, subset, export, evaluation."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from flows.runtime import ensure_server
from testing.field_case import Ended, run
from testing.field_pool import FieldPool, write_field_pool


@pytest.fixture(scope="module")
def server(server_home: Path) -> Iterator[None]:
    """The session's Prefect server, for commands in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_API_URL", ensure_server(server_home))
        yield


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> FieldPool:
    return write_field_pool(tmp_path_factory.mktemp("field"))


@pytest.fixture(scope="module")
def curated(pool: FieldPool, server: None) -> tuple[Path, Ended]:
    """A home in which the field pool is curated, and what was said."""
    home = pool.directory / "home"
    return home, worked("curate", pool.catalog, "--home", home)


def worked(*arguments: object) -> Ended:
    ended = run([str(argument) for argument in arguments])
    assert ended.status == 0, ended.said + ended.crash
    return ended


def rows(home: Path, query: str) -> list[dict[str, object]]:
    out = worked("sql", query, "--format", "json", "--home", home).out.strip()
    return json.loads(out) if out.startswith("[") else [json.loads(line) for line in out.splitlines()]


def test_the_census_counts_what_is_wrong_and_what_is_passed_over(pool: FieldPool, server: None, tmp_path: Path) -> None:
    ended = run(["census", str(pool.catalog), "--home", str(tmp_path)])
    assert ended.status in (0, 3) and not ended.crash, ended.said
    assert "00002.tar.gz" in ended.said
    for reason in ("undecodable image", "empty text", "missing text", "dotted key"):
        assert reason in ended.out


def test_the_curation_uses_every_good_sample_of_every_folder(curated: tuple[Path, Ended], pool: FieldPool) -> None:
    home, said = curated
    assert rows(home, "select count(*) n, count(distinct shard) shards from samples") == [{"n": pool.good, "shards": 4}]
    assert rows(home, "select count(*) n from rejects") == [{"n": pool.bad}]
    probed = "select count(*) n from metagradients join samples using (uid) where probed and shard like '%part-b%'"
    assert rows(home, probed)[0]["n"], "the second folder of equal names is probed"
    assert "metagradient descent" in said.out


def test_columns_of_the_pool_stand_beside_ours(curated: tuple[Path, Ended]) -> None:
    home, _ = curated
    found = rows(home, "select min(upstream_count) low, max(upstream_count) high, max(count) ours from sample_outcomes")
    assert (found[0]["low"], found[0]["high"]) == (0, 2) and found[0]["ours"] in (1, 2)
    assert rows(home, 'select "aspect-ratio" a, aspect_ratio b from samples limit 1') == [{"a": 1.5, "b": 1.25}]


def test_the_report_is_written_again(curated: tuple[Path, Ended]) -> None:
    home, _ = curated
    page = Path(worked("report", "--home", home).out.strip().splitlines()[-1])
    assert "<html" in page.read_text()


def test_a_subset_of_the_run_by_its_tables(curated: tuple[Path, Ended], tmp_path: Path) -> None:
    home, _ = curated
    (run_directory,) = (home / "runs").iterdir()
    out = tmp_path / "a.npy"
    worked("subset", "no_filter & subset.npy".replace("subset.npy", f"'{run_directory}/subset.npy'"), "--run",
           run_directory.name, "--out", out, "--home", home)  # fmt: skip
    assert len(np.load(out)) > 0


@pytest.mark.parametrize("form", ["datacomp", "parquet", "webdataset"])
def test_exports(curated: tuple[Path, Ended], tmp_path: Path, form: str) -> None:
    home, _ = curated
    worked("export", "--format", form, "--out", tmp_path / "out", "--home", home)
    assert (tmp_path / "out").exists()


def test_the_chosen_subset_is_evaluated_on_a_set(curated: tuple[Path, Ended], pool: FieldPool, tmp_path: Path) -> None:
    home, _ = curated
    shutil.copytree(pool.directory / "sets" / "clothes", tmp_path / "wds_clothes_test")
    ended = worked("evaluate", tmp_path / "wds_clothes_test", "--out", tmp_path / "out", "--home", home)
    assert "clothes" in ended.out
    found = rows(home, "select n, standard_error from evaluations where metric = 'acc1' and n = 120")
    assert found and all(row["standard_error"] is not None for row in found)


def test_the_plan_says_what_a_round_costs(pool: FieldPool, server: None, curated: tuple[Path, Ended]) -> None:
    home, _ = curated
    assert "steps" in worked("plan", pool.catalog, "--home", home).out


def test_the_same_command_again_finds_everything_done(curated: tuple[Path, Ended], pool: FieldPool) -> None:
    home, said = curated
    again = worked("curate", pool.catalog, "--home", home)
    assert again.out == said.out and "train" not in again.err
