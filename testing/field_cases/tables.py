"""Asking in SQL: names that meet, homes with a past, queries that are none."""

from __future__ import annotations

import csv
import io
import json
import shutil

from testing.field_case import Ended, Judge, Place, case, told, works


def sql(p: Place, query: str, *options: str) -> list[str]:
    """Ask the finished run."""
    return ["sql", query, *options, "--home", str(p.finished)]


def gives(*rows: dict[str, object]) -> Judge:
    """The JSON output has these rows."""

    def judge(place: Place, ended: Ended) -> str:
        text = ended.out.strip()
        found = json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines()]
        return "" if found == list(rows) else f"gave {text[:120]}"

    return judge


@case("A", works(r"caption"))
def every_column_of_the_samples(p: Place) -> list[str]:
    return sql(p, "select * from sample_outcomes limit 3", "--format", "json")


@case("A", works(also=gives({"n": 3})))
def a_key_of_the_pool_that_is_a_column_of_ours(p: Place) -> list[str]:
    """The pool's `count` is 0, 1 or 2; it is `upstream_count` beside ours."""
    return sql(p, "select count(distinct upstream_count) n from sample_outcomes", "--format", "json")


@case("A", works(also=gives({"whole": True})))
def our_count_stays_ours(p: Place) -> list[str]:
    return sql(p, "select bool_and(count in (0, 1, 2)) whole from sample_outcomes", "--format", "json")


@case("A", works(r"caption"))
def columns_say_where_the_pools_are(p: Place) -> list[str]:
    return sql(p, "select * from columns", "--format", "csv")


@case("E", works(also=gives({"seed": 1})))
def a_home_below_a_folder_that_looks_like_a_partition(p: Place) -> list[str]:
    home = p.directory / "seed=9" / "runs"
    shutil.copytree(p.finished, home, ignore=shutil.ignore_patterns(".prefect", ".locks"))
    query = "select distinct seed from evaluations where subset = 'mgd'"
    return ["sql", query, "--format", "json", "--home", str(home)]


def _two_columns(place: Place, ended: Ended) -> str:
    row = json.loads(ended.out)[0] if ended.out.strip().startswith("[") else json.loads(ended.out)
    return "" if sorted(row.values()) == [1, 2] else f"gave {ended.out.strip()[:120]}"


@case("T", works(also=_two_columns), told(r"a"))
def two_columns_of_one_name_as_json(p: Place) -> list[str]:
    return sql(p, "select 1 a, 2 a", "--format", "json")


def _two_cells(place: Place, ended: Ended) -> str:
    rows = list(csv.reader(io.StringIO(ended.out)))
    return "" if rows[-1] == ["1", "2"] else f"gave {rows}"


@case("T", works(also=_two_cells))
def two_columns_of_one_name_as_csv(p: Place) -> list[str]:
    return sql(p, "select 1 a, 2 a", "--format", "csv")


@case("T", told(r"empty|query|statement|nothing"))
def an_empty_query(p: Place) -> list[str]:
    return sql(p, "")


@case("T", told(r"comment|query|statement|nothing|empty"))
def nothing_but_a_comment(p: Place) -> list[str]:
    return sql(p, "-- nothing")


@case("T", told(r"limit|-1"))
def a_limit_below_zero(p: Place) -> list[str]:
    return sql(p, "select 1", "--limit", "-1")


@case("T", works(), told(r"interval|range"))
def a_huge_interval(p: Place) -> list[str]:
    return sql(p, "select interval '999999999 years' as i", "--format", "json")


@case("T", works())
def values_that_json_has_not(p: Place) -> list[str]:
    return sql(p, "select 'nan'::double n, 'x'::blob b, date '2026-01-01' d, [1, 2] l", "--format", "json")


@case("T", told(r"syntax|parser"))
def a_misspelt_query(p: Place) -> list[str]:
    return sql(p, "selekt 1")


def _of_samples(place: Place, ended: Ended) -> str:
    return f"gave {ended.out.strip()}" if "rejected" in ended.out or "tar" not in ended.out else ""


@case("3.4", works(also=_of_samples))
def sentences_are_of_their_own_columns(p: Place) -> list[str]:
    return sql(p, "select doc from columns where table_name = 'samples' and column_name = 'shard'", "--format", "csv")


@case("3.10", told(r"no run"))
def a_run_that_is_not_there(p: Place) -> list[str]:
    return ["report", "--run", "nope", "--home", str(p.finished)]


@case("3.10", works(r"field"))
def the_list_of_runs(p: Place) -> list[str]:
    return ["runs", "--home", str(p.finished)]


@case("3.10", told(r"no run|nothing"), works())
def a_home_that_is_empty(p: Place) -> list[str]:
    return ["sql", "select 1"]


def _copy(p: Place, name: str) -> str:
    """The finished home, copied to another name."""
    home = p.directory / name
    shutil.copytree(p.finished, home, ignore=shutil.ignore_patterns(".prefect", ".locks"))
    return str(home)


ROUNDS = "select distinct seed from evaluations where subset = 'mgd'"


@case("E", works(also=gives({"seed": 1})))
def a_home_with_letters_of_patterns(p: Place) -> list[str]:
    return ["sql", ROUNDS, "--format", "json", "--home", _copy(p, "a*[b]?{c} 'd'\n#%20;é")]


@case("E", works(r"x\.parquet"))
def an_export_from_a_home_with_letters_of_patterns(p: Place) -> list[str]:
    return ["export", "--format", "parquet", "--out", "x.parquet", "--home", _copy(p, 'a*[b]?{c} "d"$HOME')]


@case("AD", told(r"pool\.json", r"Remove .* to build it anew"))
def a_pools_record_of_another_hand(p: Place) -> list[str]:
    home = _copy(p, "copy")
    for record in (p.directory / "copy" / "pools").glob("*/pool.json"):
        record.write_text("{}")
    return ["report", "--home", home]


@case("R", works(r"report\.html"))
def a_report_of_a_run_whose_catalog_has_a_byte_order_mark(p: Place) -> list[str]:
    home = _copy(p, "copy")
    for catalog in (p.directory / "copy" / "runs").glob("*/catalog.toml"):
        catalog.write_bytes(b"\xef\xbb\xbf" + catalog.read_bytes())
    return ["report", "--home", home]


@case("AD", told(r"catalog\.toml: not valid TOML"))
def a_report_of_a_run_whose_catalog_is_cut(p: Place) -> list[str]:
    home = _copy(p, "copy")
    for catalog in (p.directory / "copy" / "runs").glob("*/catalog.toml"):
        catalog.write_bytes(catalog.read_bytes()[:-5])
    return ["report", "--home", home]
