"""The census: what it counts, that it takes only what is not taken yet, and what it says."""

from __future__ import annotations

import os
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tasks.census import shards as census_shards
from tasks.census.page import format_census
from tasks.census.taking import plan_census
from tasks.census.verdict import CensusRecord
from tasks.html.histograms import bin_values
from tasks.pool.census_kinds import KINDS, CensusOptions
from tasks.pool.pools import build_pool, pending_units, plan_pool
from tasks.pool.record import BuildOptions
from testing.datacomp_pool import DatacompPool, kill, make_pool
from testing.field_case import run
from testing.small_catalog import small_catalog
from testing.whole_census import take_census

ANY = BuildOptions(max_rejects=1.0, max_damaged_shards=9)


@pytest.fixture
def pool(tmp_path: Path) -> DatacompPool:
    made = make_pool(tmp_path / "datacomp")
    made.shards[0][0].record["sha256"] = "ab" * 32  # drifted
    made.shards[2][1].image = made.shards[0][1].image  # a placeholder
    made.write()
    return made


def take(pool: DatacompPool, home: Path, **limits: float) -> CensusRecord:
    return take_census(str(pool.directory), home, ANY, CensusOptions(limits=limits))


def rows(home: Path, table: str) -> list[dict]:
    (path,) = home.glob(f"census/*/{table}.parquet")
    return pq.read_table(path).to_pylist()


def test_counts_are_those_of_the_pools_model(pool: DatacompPool, tmp_path: Path) -> None:
    record = take(pool, tmp_path / "home")
    alive, tried = pool.alive(), pool.attempts
    assert record.findings == {"dead_link": 3, "sha256_drift": 1, "duplicate_image": 1}
    assert (record.totals["samples"], record.totals["attempts"], record.totals["metadata"]) == (11, 14, 14)
    assert (len(alive), len(tried)) == (11, 14) and record.within_budget
    samples = {row["uid"].hex: row for row in rows(tmp_path / "home", "samples")}
    assert {a.uid for a in alive} == set(samples)
    for one in alive:
        row = samples[one.uid]
        assert (row["caption_characters"], row["caption_words"]) == (len(one.caption), len(one.caption.split()))
        assert (row["width"], row["height"], row["image_bytes"]) == (6, 5, len(one.image or b""))
        assert row["sha256"].hex() == one.record["sha256"]
    assert Counter(row["status"] for row in rows(tmp_path / "home", "attempts")) == Counter(a.status for a in tried)
    assert [row["samples"] for row in rows(tmp_path / "home", "shards")] == [4, 4, 3]
    found = rows(tmp_path / "home", "findings")
    drift = next(row for row in found if row["kind"] == "sha256_drift")
    assert drift["uid"].hex == pool.shards[0][0].uid and "abababababab" in drift["detail"]
    assert all("timed out" in row["detail"] for row in found if row["kind"] == "dead_link")


def test_taken_twice_and_elsewhere_it_is_the_same_to_the_byte(pool: DatacompPool, tmp_path: Path) -> None:
    for home in ("a", "b", "a"):
        take(pool, tmp_path / home)
    files = [{p.name: p.read_bytes() for p in (tmp_path / h).glob("census/*/*.parquet")} for h in "ab"]
    assert files[0] == files[1] and len(files[0]) == 5


def test_only_what_changed_is_taken_again(pool: DatacompPool, tmp_path: Path) -> None:
    home = tmp_path / "home"
    first = take(pool, home)

    def spoil(number: int) -> None:
        """Damage that only who reads the shard again sees: size and times are as before."""
        path = pool.tar(number)
        stat = path.stat()
        path.write_bytes(bytes(stat.st_size))
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    pool.beside(2, "_stats.json").unlink()
    spoil(0), spoil(1)
    record = take(pool, home)
    assert record.findings == {**first.findings, "missing_stats": 1} and not record.within_budget
    spoil(2)
    assert take(pool, home, missing_stats=1).within_budget, "another budget: nothing is read"
    pool.beside(1, "_stats.json").unlink()
    assert take(pool, home).findings != record.findings, "what is read is seen to be damaged"


def test_a_pool_after_its_census_is_not_read_again(pool: DatacompPool, tmp_path: Path) -> None:
    home = tmp_path / "home"
    take(pool, home)
    source = str(pool.directory / "shards")
    plan = plan_pool(source, home, ANY)
    assert not pending_units(plan) and build_pool(source, home, ANY).samples == 11
    assert build_pool(source, tmp_path / "other", ANY).samples_digest == build_pool(source, home, ANY).samples_digest
    take(pool, home)  # and the other way round


def test_a_census_that_was_cut_off_goes_on(pool: DatacompPool, tmp_path: Path) -> None:
    plan = plan_census(str(pool.directory), tmp_path / "b", ANY)
    marker = census_shards.census_shard(plan.shards[1])
    census_shards.census_shard(plan.shards[2])
    marker.unlink()  # what a kill before the last rename leaves
    assert take(pool, tmp_path / "b") == take(pool, tmp_path / "a")


def test_a_sheet_has_a_census_too(tmp_path: Path) -> None:
    small_catalog(tmp_path)
    record = take_census(str(tmp_path / "sheet"), tmp_path / "home")
    assert record.totals["samples"] == 240 and record.findings == {} and record.within_budget


def test_limits_are_numbers_or_shares_of_known_kinds() -> None:
    options = CensusOptions(limits={"dead_link": 0.2, "sha256_drift": 3, "gap": 1.0})
    assert [options.allowed(kind, 50) for kind in ("dead_link", "sha256_drift", "gap")] == [10, 3, 50]
    assert options.allowed("duplicate_image", 50) is None and options.allowed("missing_stats", 50) == 0
    with pytest.raises(ValueError, match="did you mean 'dead_link'"):
        CensusOptions(limits={"dead_links": 1})


def test_shares_of_dead_links_are_judged(pool: DatacompPool, tmp_path: Path) -> None:
    for one in pool.shards[1]:
        kill(one)
    pool.write()
    allowed = {"dead_link": 0.5, "empty_tar": 1}
    record = take(pool, tmp_path / "home", **allowed)
    (line,) = [line for line in record.lines if line.kind == "dead_link"]
    assert (line.count, line.total, line.allowed, line.over) == (7, 14, 7, False)
    assert not take(pool, tmp_path / "home", dead_link=6).within_budget


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        assert not {"src", "href", "onload"} & {name for name, _ in attrs}
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_the_terminal_says_the_same(pool: DatacompPool, tmp_path: Path) -> None:
    pool.shards[1][1].caption = "<script>alert(1)</script>"
    pool.shards[1][1].members = [(".jpg", b"<b>"), *pool.shards[1][1].tar_members()[1:]]
    pool.write()
    record = take_census(str(pool.directory), tmp_path / "home")
    (path,) = (tmp_path / "home").glob("census/*/census.html")
    page = _Page()
    page.feed(path.read_text())
    assert not page.open and page.tags["svg"] >= 8 and page.tags["script"] == 0
    assert "The pool is over its budget" in path.read_text()
    told = format_census(record)
    assert told.startswith("10 samples in 3 shards can be used, of 14 that were tried")
    assert [line.split() for line in told.splitlines() if line.startswith("dead link ")] == [
        ["dead", "link", "3", "14", "attempts", "–"]
    ]
    assert "undecodable image" in told and "rejected samples 1 (0 allowed)" in told


def test_an_empty_pool_has_a_census(tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "datacomp")
    for one in pool.attempts:
        kill(one)
    pool.write()
    record = take(pool, tmp_path / "home")
    assert (record.totals["samples"], record.findings) == (0, {"dead_link": 14, "empty_tar": 3})


def test_every_kind_has_a_sentence() -> None:
    assert all(
        kind.doc and kind.of in {"attempts", "metadata", "samples", "shards", "files"} for kind in KINDS.values()
    )


def test_histograms_end_at_the_bulk_and_tell_the_rest() -> None:
    import duckdb

    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE t AS SELECT i::INTEGER AS v, 'nan'::DOUBLE AS bad FROM range(1000) AS r(i)")
        connection.execute("INSERT INTO t VALUES (1000000, 1)")
        bins = bin_values(lambda sql: connection.execute(sql).fetchall(), "t", {"v": "v", "none": "NULL::INTEGER"})
        assert bins.width == 50 and set(bins.counts) == {"v"} and bins.counts["v"][0] == 50
        assert sum(bins.counts["v"].values()) == 1000 and "the largest 1e+06" in bins.words
        assert bin_values(lambda sql: connection.execute(sql).fetchall(), "t", {"bad": "bad"}).counts == {"bad": {1: 1}}


def test_mgd_census_runs_the_flow_and_its_status_says_the_verdict(
    pool: DatacompPool, tmp_path: Path, prefect_api: str
) -> None:
    (pool.directory / "shards" / "00000001.tar").unlink()
    source = f'source = "{pool.directory}"'
    catalog = small_catalog(tmp_path, ('source = "sheet"', source))
    ended = run(["census", str(catalog), "--home", str(tmp_path / "home")])
    assert ended.status == 3, ended.said
    assert "missing tar" in ended.out and "over its budget" in ended.err and not ended.crash
    (page,) = (tmp_path / "home").glob("census/*/census.html")
    assert str(page) in ended.out
