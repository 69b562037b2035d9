"""A pool's columns, and the place of a home, may be called anything: nothing of ours is mistaken for them, nothing of
theirs is lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.files.artefacts import publish_json
from tasks.pool.json_columns import part_table, spread
from tasks.pool.pools import build_pool
from tasks.pool.record import BuildOptions
from tasks.report.reports import write_report
from tasks.subset.algebra import write_choice
from tasks.subset.candidates import pool_candidates
from tasks.tables import queries
from tasks.tables.published import files, publish, read_parquet
from tasks.tables.queries import connect
from tasks.tables.query_output import run_sql
from tasks.tables.schemas import COUNTS, METAGRADIENTS, SAMPLES
from tasks.tables.sql_names import IMPOSSIBLE, distinct_names, literal, quoted, word_names
from tasks.tables.views import load_views

Rows = Callable[..., pa.Table]
# What our own SQL is written in: aliases, columns, tables, functions.
OURS = sorted({"file_path", "c0", "c1", "part", "m0", "last", "chosen", "now", "was", "moved", "force", "s", "m"})
LIKE_OURS = ["g", "G", "count", "before", "outcome", "samples", "mean_g", "probed", "g_by_round", "g_sum_later"]
STRANGE = ["caption", "Caption", "aspect-ratio", "aspect_ratio", "aspect.ratio", 'say "hi"', "it's", "a b", "$x", "{y}"]
STRANGE += ["line\nend", "select", "Größe", "größe", "日本", "%s", "\\", "x" * 3000, "upstream_g", "filename"]
STRANGE += ["file_row_number", "text.en", "uid.x", "-", "--", ";", "columns", "views", "run_id", "nul\0"]
KEYS = [*OURS, *LIKE_OURS, *STRANGE]


def ask(home: Path, query: str, run: str | None = None) -> list[tuple]:
    with connect(home, run) as connection:
        return connection.execute(query).fetchall()


def pool_of(records: list[dict[str, Any]], **columns: list[Any]) -> pa.Table:
    """A samples table as a pool has it, of json objects."""
    n = len(records)
    own = {
        "shard": ["00000.tar"] * n, "key": [str(i) for i in range(n)], "text": [f"caption {i}" for i in range(n)],
        "width": [5] * n, "height": [4] * n, "image_format": ["png"] * n,
        **{f"{m}_{p}": [0] * n for m in ("image", "text", "json") for p in ("offset", "size")},
        "uid": [f"{i:02x}" * 16 for i in range(n)], **columns,
    }  # fmt: skip
    rows = [{name: own[name][i] for name in own} | {"upstream": records[i]} for i in range(n)]
    return spread(part_table(rows))


def home_of(home: Path, table: pa.Table, rows: Rows, run: str = "r-1") -> Path:
    publish(home, run, "samples", 0, table)
    for number in range(2):
        publish(home, run, "counts", number, rows("counts", count=[1, 0, 1, 2] if number else [1] * 4))
        publish(home, run, "metagradients", number, rows("metagradients"))
    publish(home, run, "choices", 1, rows("choices"))
    return home


def test_any_key_is_welcome_and_reachable_under_a_stated_name(
    tmp_path: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "MOST_COLUMNS", 1000)
    home = home_of(tmp_path, pool_of([{key: f"{at} {i % 2}" for at, key in enumerate(KEYS)} for i in range(4)]), rows)
    with connect(home) as connection:
        told = connection.execute(
            "SELECT column_name, doc FROM columns WHERE table_name = 'samples' AND doc LIKE 'Carried over%'"
        ).fetchall()
        assert len(told) == len(KEYS)
        names = ", ".join(quoted(name) for name, _ in told)
        for table in ("samples", "sample_outcomes", "sample_rounds WHERE round = 1"):
            values = connection.execute(f"SELECT {names} FROM {table} ORDER BY uid").fetchall()
            assert sorted(values[0]) == sorted(f"{at} 0" for at in range(len(KEYS))), table
        first = dict(zip((name for name, _ in told), values[0], strict=True))
        for at, key in enumerate(KEYS):
            mine = [name for name, doc in told if name == key or doc.endswith(f"the pool calls it {key}.")]
            assert not key.isalpha() or f"{at} 0" in [first[name] for name in mine], key
        assert connection.execute("SELECT count, g, g_sum FROM sample_outcomes JOIN metagradients USING (run, uid) "
                                  "WHERE round = 0 ORDER BY uid").fetchall()[1] == (0, -0.5, -0.5)  # fmt: skip
        views = connection.execute("SELECT name, missing FROM views WHERE starts_with(name, 'g_by_')").fetchall()
        assert len({name.lower() for name, _ in views}) == len(KEYS) + 1 and {missing for _, missing in views} == {None}
        for name, _ in views:
            assert name.replace("_", "").isalnum(), "needs no quotes"
            groups = connection.execute(f"SELECT samples FROM {name} WHERE round = 0").fetchall()
            assert groups == ([(1,)] * 4 if name == "g_by_caption" else [(2,), (2,)]), name
        assert {"g_by_upstream_caption", "g_by_aspect_ratio", "g_by_upstream_aspect_ratio"} <= {n for n, _ in views}
    assert ask(home_of(home, pool_of([{"G": 1}] * 4), rows, "r-2"), "SELECT count(*) FROM sample_rounds", "all") == [
        (16,)
    ]


def test_the_report_of_such_a_pool_is_written(tmp_path: Path, rows: Rows) -> None:
    keys = [*LIKE_OURS, *STRANGE[:12], "clean", "bin", "task", "kept", "truth_clean", "truth_text", "moved"]
    home = home_of(tmp_path, pool_of([{key: i for key in keys} for i in range(4)]), rows)
    page = write_report(home, "r-1").read_text()
    assert "does not tell which captions are right" in page, "a number is no truth"
    ((missing,),) = ask(home, "SELECT missing FROM views WHERE name = 'mistakes'")
    assert missing == "left out: the run has no samples.truth_clean (boolean)"


@given(st.lists(st.text(max_size=6) | st.sampled_from(KEYS), unique=True), st.lists(st.text(max_size=3)))
def test_names_are_distinct_in_any_case_and_keep_themselves_where_they_can(
    names: list[str], reserved: list[str]
) -> None:
    found = distinct_names(names, reserved)
    folded = [name.casefold() for name in found.values()]
    assert (
        found.keys() == set(names) and len({*folded}) == len(names) and not {*folded} & {r.casefold() for r in reserved}
    )
    assert found == distinct_names(reversed(names), reserved), "whatever order they come in"
    for name, called in found.items():
        called.encode()  # a text, which a half of a surrogate pair is not
        alike = {other.casefold() for other in (*names, *reserved) if other != name} | {r.casefold() for r in reserved}
        assert name == called or not name or IMPOSSIBLE.search(name) or name.casefold() in alike
    words = word_names(found.values(), reserved)
    assert len({word.casefold() for word in words.values()}) == len(names)
    assert all(word.replace("_", "").isalnum() or set(word) == {"_"} for word in words.values())


def test_columns_of_older_tables_and_of_runs_with_other_types(tmp_path: Path, rows: Rows) -> None:
    home = home_of(tmp_path, pool_of([{"g": 1, "l": "x", "n": 1}] * 4), rows)
    other = rows("samples").append_column("L", pa.array([[1], [2], [3], None])).append_column("n", pa.array([0.5] * 4))
    publish(home, "r-2", "samples", 0, other)
    found = ask(home, "SELECT upstream_g, l, n FROM samples ORDER BY run, uid", "all")
    assert found[0] == (1, "x", 1.0) and found[4] == (None, "[1]", 0.5)


def rewritten(home: Path, run: str, table: str, change: Callable[[pa.Table], pa.Table]) -> None:
    """A run's table as another version of the program would have left it."""
    for path in files(home, run, table).values():
        pq.write_table(change(read_parquet(path)), path)


def test_a_table_that_lacks_a_column_or_calls_it_otherwise_does_no_harm(tmp_path: Path, rows: Rows) -> None:
    from tests.tasks.report.test_reports import rounds_row

    home = home_of(tmp_path, pool_of([{}] * 4), rows)
    for number in range(2):
        publish(home, "r-1", "rounds", number, rounds_row(distinct_samples=7))

    def older(rows: pa.Table) -> pa.Table:
        former = ["distinct" if name == "distinct_samples" else name for name in rows.column_names]
        return rows.rename_columns(former).drop_columns(["heldout_loss"])

    rewritten(home, "r-1", "rounds", older)
    rewritten(home, "r-1", "metagradients", lambda rows: rows.drop_columns(["visits"]))
    found = ask(home, "SELECT distinct_samples, heldout_loss, chosen FROM rounds_summary ORDER BY round")
    assert found == [(7, None, False), (7, None, True)]
    assert ask(home, "SELECT DISTINCT visits, typeof(visits) FROM metagradients") == [(None, "INTEGER")]


@pytest.mark.parametrize("place", ["seed=9/run=x/round=5", "it's [v2] {a} 100% *?", 'ü "q" #1;/$HOME'])
def test_what_stands_above_a_home_changes_no_answer(
    place: str, tmp_path: Path, rows: Rows, shard: Callable[..., str], good: Callable[..., list]
) -> None:
    home = tmp_path / place / "runs"
    source = shard([member for i in range(4) for member in good(i, seed=i, round=7)])
    pool = build_pool(source, home)
    home_of(home, read_parquet(pool.samples_path), rows)
    found = ask(home, "SELECT run, round, seed, upstream_round FROM samples ORDER BY uid")
    assert found == [("r-1", 0, i, 7) for i in range(4)]
    assert ask(home, "SELECT DISTINCT round, seed FROM sample_rounds ORDER BY ALL") == [
        (r, s) for r in (0, 1) for s in range(4)
    ]
    with pool_candidates(home, pool) as candidates:
        assert list(candidates.columns)[-2:] == ["seed", "upstream_round"]
        assert write_choice(candidates, "random_size(size=3)", tmp_path / "s.npy").records == 3
    write_report(home, "r-1")


def test_columns_tell_the_sentence_of_their_own_table(small_run: Path) -> None:
    found = {(row[0], row[1]): row[2] for row in ask(small_run, "SELECT table_name, column_name, doc FROM columns")}
    samples = {field.name: field.metadata[b"doc"].decode() for field in SAMPLES}
    for table in ("samples", "sample_rounds", "sample_outcomes", "mistakes"):
        assert {name: found[table, name] for name in samples} == samples, table
    assert found["rounds_summary", "target_loss"].startswith("phi: loss on the target task")
    assert found["metagradients", "g"] == METAGRADIENTS.field("g").metadata[b"doc"].decode()
    assert found["truth_agreement", "kept"] == "Samples with count > 0."
    assert found["influence_extremes", "g"].startswith("d output") and found["comparison", "subset"].startswith("What")
    assert found["g_by_style", "style"] == "Carried over from the pool as it was." and all(found.values())
    assert found["counts", "count"] == COUNTS.field("count").metadata[b"doc"].decode()


def test_no_table_view_or_column_of_ours_needs_quotes(small_run: Path) -> None:
    reserved = "SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category <> 'unreserved'"
    with connect(small_run) as connection:
        words = {row[0] for row in connection.execute(reserved).fetchall()}
        described = connection.execute("SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal")
        names = {name for row in described.fetchall() for name in row} - {"columns", "precision"}
        assert not names & words and all(name.isidentifier() and name == name.lower() for name in names)
        for name in ("columns", "truth_agreement"):
            connection.execute(f"SELECT * FROM {name}")
        connection.execute("SELECT precision, truth_agreement.precision FROM truth_agreement ORDER BY precision")
    assert all(view.name.isidentifier() or view.per_column for view in load_views())


def test_a_filters_column_may_have_any_name(
    tmp_path: Path, shard: Callable[..., str], good: Callable[..., list]
) -> None:
    records = [{"count": i, "a, b": i, "$fraction {arch}": i, 'q"': i} for i in range(4)]
    pool = build_pool(shard([m for i, record in enumerate(records) for m in good(i, **record)]), tmp_path / "home")
    with pool_candidates(tmp_path / "home", pool) as candidates:
        for column in ("upstream_count", '"a, b"', '"$fraction {arch}"'):
            told = f"clip_score(score={column}, threshold=2)"
            assert write_choice(candidates, told, tmp_path / "s.npy").records == 2, column


def test_a_census_can_be_asked_with_and_without_a_run(
    tmp_path: Path, rows: Rows, shard: Callable[..., str], good: Callable[..., list]
) -> None:
    from testing.whole_census import take_census

    home = tmp_path / "seed=3"
    record = take_census(shard([member for i in range(3) for member in good(i)] + [("x.png", b"no")]), home)
    asked = "SELECT pool, samples, rejects FROM census_shards"
    assert ask(home, asked) == [(record.pool_id, 3, 1)]
    home_of(home, pool_of([{}] * 4), rows)
    assert ask(home, asked) == [(record.pool_id, 3, 1)]
    assert ask(home, "SELECT count(*) FROM census_samples JOIN samples USING (uid)") == [(3,)]
    assert ask(home, "SELECT DISTINCT kind FROM census_findings") and ask(home, "FROM census_metadata") == []
    with connect(home) as connection:
        for name, columns in connection.execute(
            "SELECT table_name, list(column_name) FROM columns WHERE starts_with(table_name, 'census_') GROUP BY ALL"
        ).fetchall():
            file = home / "census" / record.pool_id / f"{name.removeprefix('census_')}.parquet"
            assert ["pool", *pq.read_schema(file).names] == columns, "a sentence for every column that is written"


def test_metadata_whose_columns_are_alike_keeps_them_apart(
    tmp_path: Path, shard: Callable[..., str], good: Callable[..., list], uid: Callable[[int], str]
) -> None:
    names = ["uid", "score", "Score", "original-width", "original_width", "Run", "URL", "a.b"]
    table = pa.table([pa.array([uid(0)]), *(pa.array([number]) for number in range(1, len(names)))], names=names)
    pq.write_table(table, tmp_path / "metadata.parquet")
    options = BuildOptions(metadata=str(tmp_path / "metadata.parquet"))
    samples = read_parquet(build_pool(shard(good(0, run=7)), tmp_path / "home", options).samples_path)
    found = {name: samples[name][0].as_py() for name in samples.column_names[len(SAMPLES.names) :]}
    expected = {"Score": 2, "upstream_score": 1, "original_width": 4, "original-width": 3, "a.b": 7, "upstream_run": 7}
    assert found == expected


def test_record_names_are_told_in_json(tmp_path: Path, rows: Rows) -> None:
    import io

    home, out = home_of(tmp_path, pool_of([{"a b": 1, "A B": 2}] * 4), rows), io.StringIO()
    publish_json(home / "runs" / "r-1" / "run.json", {})
    run_sql(home, f"SELECT *, {literal('x')} AS uid FROM samples LIMIT 1", None, out, "json")
    (row,) = json.loads(out.getvalue())
    assert row["A B"] == 2 and row["upstream_a b"] == 1 and row["uid_2"] == "x"
