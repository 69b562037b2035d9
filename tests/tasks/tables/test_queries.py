"""Queries: every shipped view against values worked out by hand, the shell, and what a person is told when a
question fails."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tasks.tables.published import publish
from tasks.tables.queries import QueryError, connect
from tasks.tables.query_output import run_sql
from tasks.tables.sql_shell import sql_shell
from tasks.tables.views import ViewError, load_views

Rows = Callable[..., pa.Table]


def ask(home: Path, query: str, run: str | None = None) -> list[dict]:
    with connect(home, run) as connection:
        cursor = connection.execute(query)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def test_outcomes_follow_the_chosen_round(small_run: Path) -> None:
    found = ask(small_run, "SELECT * FROM sample_outcomes ORDER BY uid")
    assert [row["outcome"] for row in found] == ["repeated", "dropped", "kept", "dropped"]
    assert [(row["count"], row["last_count"], row["chosen_round"]) for row in found] == [
        (2, 3, 1),
        (0, 1, 1),
        (1, 0, 1),
        (0, 0, 1),
    ]
    assert [(row["g_sum"], row["g_last"], row["probes"]) for row in found] == [
        (-2, -2, 1),
        (1, 1, 1),
        (0.5, 0.5, 1),
        (3, 3, 1),
    ], "what decided the counts of round 1"
    assert [row["g_sum_later"] for row in found] == [-1, -2, 2, 0] and found[0]["g_by_round_later"] == [-1]
    assert found[0]["g_by_round"] == [-2] and found[2]["style"] == "b" and "round" not in found[0]


def test_before_a_choice_the_last_round_stands_in(small_run: Path, rows: Rows) -> None:
    publish(small_run, "later-1", "samples", 0, rows("samples"))
    publish(small_run, "later-1", "counts", 0, rows("counts", count=[1, 1, 1, 1]))
    publish(small_run, "later-1", "counts", 1, rows("counts", count=[0, 1, 1, 2]))
    found = ask(small_run, "SELECT chosen_round, outcome, g_sum, probes FROM sample_outcomes ORDER BY uid")
    assert [tuple(row.values()) for row in found][::3] == [(1, "dropped", None, 0), (1, "repeated", None, 0)]


def test_movers(small_run: Path) -> None:
    found = ask(small_run, "SELECT round, before, after, change, g, text FROM movers ORDER BY round, uid")
    assert [tuple(row.values()) for row in found] == [
        (1, 1, 2, 1, -2.0, "caption 0"),
        (1, 1, 0, -1, 1.0, "caption 1"),
        (1, 1, 0, -1, 3.0, "caption 3"),
        (2, 2, 3, 1, -1.0, "caption 0"),
        (2, 0, 1, 1, -2.0, "caption 1"),
        (2, 1, 0, -1, 2.0, "caption 2"),
    ]


def test_g_by_whatever_columns_the_pool_has(small_run: Path) -> None:
    found = ask(small_run, "SELECT * FROM g_by_style ORDER BY round, style")
    assert [(row["round"], row["style"], row["samples"], row["mean_g"]) for row in found] == [
        (0, "a", 2, -0.5), (0, "b", 2, 1.75), (1, "a", 2, -1.5), (1, "b", 2, 1.0)
    ]  # fmt: skip
    assert (found[0]["share_wanted"], found[0]["standard_error"], found[2]["mean_count"]) == (
        0.5,
        pytest.approx(1.5),
        1.0,
    )
    assert len(ask(small_run, "SELECT * FROM g_by_caption")) == 8
    names = {row["name"] for row in ask(small_run, 'SELECT "name" FROM views WHERE missing IS NULL')}
    assert {"g_by_style", "g_by_truth_clean", "g_by_caption"} <= names and "g_by_label" not in names


def test_agreement_with_the_truth(small_run: Path) -> None:
    first, second, last = ask(small_run, "SELECT * FROM truth_agreement")
    assert (first["kept"], first["clean"], first["precision"], first["recall"]) == (4, 2, 0.5, 1.0)
    # Clean g -2, 1 against swapped 0.5, 3: lower in 3 of 4 pairs.
    assert first["auc"] == first["auc_sum"] == 0.75
    # Clean -1, -2 against 2, 0; sums -3, -1 against 2.5, 3.
    assert second["auc"] == second["auc_sum"] == 1.0
    assert (second["precision"], second["weighted_precision"], second["recall"]) == (0.5, 2 / 3, 0.5)
    assert (last["precision"], last["weighted_precision"], last["recall"], last["swapped_dropped"]) == (
        1,
        1,
        1,
        1,
    )
    assert last["auc"] is None


def test_auc_counts_ties_half(small_run: Path, rows: Rows) -> None:
    """Against the definition, on many draws with ties."""
    rng = np.random.default_rng(0)
    n = 60
    g, clean, probed = rng.integers(-3, 4, n) * 1.0, rng.random(n) < 0.4, rng.random(n) < 0.8
    publish(small_run, "ties-1", "samples", 0, rows("samples", n, truth_clean=clean))
    publish(small_run, "ties-1", "counts", 0, rows("counts", n))
    publish(small_run, "ties-1", "metagradients", 0, rows("metagradients", n, g=g, probed=probed))
    a, b = g[clean & probed][:, None], g[~clean & probed][None]
    (row,) = ask(small_run, "SELECT auc FROM truth_agreement", "ties-1")
    assert row["auc"] == pytest.approx(((a < b) + 0.5 * (a == b)).mean(), abs=1e-12)


def test_mistakes(small_run: Path) -> None:
    found = ask(small_run, "SELECT text, outcome FROM mistakes ORDER BY uid")
    assert [tuple(row.values()) for row in found] == [("caption 1", "dropped"), ("caption 2", "kept")]


def test_without_a_truth_its_views_are_left_out_and_said_so(small_run: Path, rows: Rows) -> None:
    publish(small_run, "plain-1", "samples", 0, rows("samples"))
    missing = ask(small_run, 'SELECT "name", missing FROM views WHERE missing IS NOT NULL', "plain-1")
    assert {row["name"] for row in missing} == {"truth_agreement", "mistakes"}
    assert missing[0]["missing"] == "left out: the run has no samples.truth_clean (boolean)"


def test_rounds_and_comparison(small_run: Path) -> None:
    from tasks.tables.schemas import ROUNDS

    whole = {f.name: [None if f.nullable else 1] for f in ROUNDS}
    for number in (0, 1):
        publish(
            small_run,
            "small-1",
            "rounds",
            number,
            pa.table(whole),
        )
    seconds = ask(small_run, "SELECT round, chosen, seconds, seconds_by_phase FROM rounds_summary")
    assert [(row["round"], row["chosen"], row["seconds"]) for row in seconds] == [
        (0, False, 8.0),
        (1, True, 8.0),
    ]
    assert seconds[0]["seconds_by_phase"] == {f"phase {i}": i + 0.5 for i in range(4)}
    results = {
        "subset": ["mgd"] * 3 + ["random"],
        "seed": [0, 1, 2, 0],
        "task": ["t"] * 4,
        "metric": ["acc1"] * 4,
    }
    publish(
        small_run,
        "small-1",
        "evaluations",
        1,
        pa.table({**results, "value": [0.5, 0.6, 0.7, 0.4], "samples_seen": [9] * 4}),
    )
    best, worst = ask(small_run, "SELECT subset, mean, std, seeds FROM comparison")
    assert (best["subset"], best["seeds"], worst["std"]) == ("mgd", 3, None)
    assert best["mean"] == pytest.approx(0.6) and best["std"] == pytest.approx(0.1)


def test_every_view_answers_on_a_run_that_has_published_next_to_nothing(tmp_path: Path, rows: Rows) -> None:
    publish(tmp_path, "new-1", "timings", 0, rows("timings"))
    for row in ask(tmp_path, 'SELECT "name" FROM views WHERE missing IS NULL'):
        assert isinstance(ask(tmp_path, f'SELECT * FROM "{row["name"]}"'), list)


def test_columns_are_typed_and_explained(small_run: Path) -> None:
    found = ask(small_run, "SELECT * FROM columns")
    assert all(row["doc"] for row in found), [row for row in found if not row["doc"]]
    types = {(row["table_name"], row["column_name"]): row["type"] for row in found}
    assert (
        types["samples", "uid"] == "UUID"
        and types["counts", "round"] == "INTEGER"
        and types["counts", "run"] == "VARCHAR"
    )
    assert types["samples", "truth_clean"] == "BOOLEAN" and types["rounds_summary", "smoothness"] == "DOUBLE"


def test_runs_are_chosen_by_name_all_or_latest(small_run: Path, rows: Rows) -> None:
    publish(small_run, "other-1", "samples", 0, rows("samples", 1, style=[7]))
    count = "SELECT count(*) AS n, count(DISTINCT run) AS runs FROM samples"
    assert [ask(small_run, count, run)[0] for run in (None, "small-1", "all")] == [
        {"n": 1, "runs": 1}, {"n": 4, "runs": 1}, {"n": 5, "runs": 2}
    ]  # fmt: skip
    with pytest.raises(QueryError, match="no run 'smal-1'; did you mean small-1"):
        connect(small_run, "smal-1")
    with pytest.raises(QueryError, match="no run has published"):
        connect(small_run / "elsewhere")


def test_columns_with_strange_names_do_no_harm(tmp_path: Path, rows: Rows) -> None:
    strange = {'say "hi"': ["a"] * 4, "select": [1] * 4, "count": [2] * 4, "a b": [True] * 4}
    publish(tmp_path, "x-1", "samples", 0, rows("samples", **strange))
    publish(tmp_path, "x-1", "counts", 0, rows("counts"))
    publish(tmp_path, "x-1", "metagradients", 0, rows("metagradients"))
    assert ask(tmp_path, "SELECT samples FROM g_by_select") == [{"samples": 4}]
    assert ask(tmp_path, "SELECT outcome FROM sample_outcomes LIMIT 1") == [{"outcome": "kept"}]
    assert ask(tmp_path, "SELECT samples FROM g_by_say__hi_") == [{"samples": 4}]


@pytest.mark.parametrize("form", ["table", "csv", "json"])
def test_answers_in_every_format(form: str, small_run: Path, uid: Callable[[int], str]) -> None:
    out = io.StringIO()
    query = "SELECT uid, g_by_round AS gs, NULL AS nothing, 1/0.0 AS inf, text FROM sample_outcomes ORDER BY uid"
    assert run_sql(small_run, query, None, out, form, limit=2) in (2, 4)  # type: ignore[arg-type]
    if form == "json":
        first, second = json.loads(out.getvalue())
        assert second["uid"] == uid(1) and first["gs"] == [-2] and first["nothing"] is None and first["inf"] is None
    elif form == "csv":
        first, second = csv.DictReader(io.StringIO(out.getvalue()))
        assert second["uid"] == uid(1) and json.loads(first["gs"]) == [-2] and first["nothing"] == ""
        assert first["inf"] == "inf"
    else:
        lines = out.getvalue().splitlines()
        assert lines[0].split() == ["uid", "gs", "nothing", "inf", "text"] and uid(1) in lines[3]
        assert lines[-1] == "(4 rows, first 2 shown)"


def told(home: Path, query: str, form: str = "json") -> str:
    out = io.StringIO()
    run_sql(home, query, None, out, form)  # type: ignore[arg-type]
    return out.getvalue()


def test_columns_of_one_name_all_come_out(small_run: Path) -> None:
    assert json.loads(told(small_run, "SELECT 1 a, 2 a, 3 a_2, 4 A")) == [{"a": 1, "a_3": 2, "a_2": 3, "A": 4}]
    assert told(small_run, "SELECT 1 a, 2 a", "csv") == "a,a_2\n1,2\n"
    assert told(small_run, "SELECT 1 a, 2 a", "table").splitlines()[0] == "a  a"


@pytest.mark.parametrize(
    ("value", "expected", "cell"),
    [
        ("INTERVAL '2000000000 days'", "2000000000 days", "2000000000 days"),
        ("'nan'::DOUBLE", None, "nan"),
        ("'-inf'::FLOAT", None, "-inf"),
        ("'\\x00\\xff'::BLOB", "00ff", "00ff"),
        ("[DATE 'infinity', NULL]", ["infinity", None], '"[""infinity"", null]"'),
        ("TIMESTAMPTZ '0044-01-01 (BC) 00:00:00+00'", "0044-01-01 (BC) 00:00:00+00", "0044-01-01 (BC) 00:00:00+00"),
        ("{'at': TIME '10:00', 'é': MAP {DATE '2020-01-01': 1.5}}", {"at": "10:00:00", "é": {"2020-01-01": 1.5}}, None),
        ("1.5", 1.5, "1.5"),
        ("12345678901234567890.125::DECIMAL(38, 3)", "12345678901234567890.125", "12345678901234567890.125"),
        ("170141183460469231731687303715884105727::HUGEINT", 2**127 - 1, str(2**127 - 1)),
        ("'101'::BIT", "101", "101"),
    ],
)
def test_values_of_every_type_come_out(value: str, expected: object, cell: str | None, small_run: Path) -> None:
    assert json.loads(told(small_run, f"SELECT {value} AS v, 1 AS one -- said")) == [{"v": expected, "one": 1}]
    lines = told(small_run, f"SELECT {value} AS v, 1 AS one; -- é;", "csv").splitlines()
    assert lines[0] == "v,one" and (cell is None or lines[1] == f"{cell},1")
    assert told(small_run, f"SELECT {value} AS v", "table").endswith("(1 row)\n")


def test_several_statements_are_answered_in_turn_and_one_only_where_one_fits(small_run: Path) -> None:
    assert (
        told(small_run, "SELECT 1 a; SET VARIABLE x = 1; SELECT 2 b", "table") == "a\n-\n1\n(1 row)\nb\n-\n2\n(1 row)\n"
    )
    assert json.loads(told(small_run, "SET VARIABLE x = 1; SELECT 2 b; -- done")) == [{"b": 2}]
    with pytest.raises(QueryError, match="2 questions in one query: json takes one"):
        told(small_run, "SELECT 1; SELECT 2")


@pytest.mark.parametrize("query", ["", " ;; ", "-- only a comment", "/* nothing */;"])
def test_no_question_is_said_to_be_none(query: str, small_run: Path) -> None:
    with pytest.raises(QueryError, match="there is no question"):
        told(small_run, query)
    with pytest.raises(QueryError, match="0 or more"):
        run_sql(small_run, "SELECT 1", None, io.StringIO(), limit=-1)


def test_no_rows_are_still_an_answer(small_run: Path) -> None:
    for form, expected in (("table", "(0 rows)\n"), ("csv", "uid\n"), ("json", "[]\n")):
        out = io.StringIO()
        assert run_sql(small_run, "SELECT uid FROM counts WHERE false", None, out, form) == 0  # type: ignore[arg-type]
        assert out.getvalue().endswith(expected)


@pytest.mark.parametrize(
    "query",
    ["SELEC 1", "SELECT nope FROM counts", "SELECT * FROM nowhere", "SELECT 'a'::INT", "SELECT $1", "SELECT '"],
)
def test_a_bad_question_gets_one_clear_message(query: str, small_run: Path) -> None:
    with pytest.raises(QueryError, match="Error"):
        run_sql(small_run, query, None, io.StringIO())


def shell(home: Path, lines: list[str]) -> str:
    out, left = io.StringIO(), iter(lines)

    def line(prompt: str) -> str:
        typed = next(left, None)
        if typed is None:
            raise EOFError
        if typed == "^C":
            raise KeyboardInterrupt
        return typed

    sql_shell(home, None, line, out)
    return out.getvalue()


def test_the_shell_answers_statements_over_lines_and_goes_on_after_errors(small_run: Path) -> None:
    out = shell(
        small_run,
        [
            "SELECT ';' AS a,",
            " count(*) AS n",
            "FROM counts;",
            "SELECT nope;",
            "SELECT 41 + 1 AS x;",
            ".quit",
            "no",
        ],
    )
    assert ";  12" in out and "nope" in out and out.rstrip().endswith("42\n(1 row)")


def test_the_shells_commands(small_run: Path) -> None:
    out = shell(small_run, [".help", ".views", ".schema counts", ".schema nowhere", ".nonsense", "", ";", "SELECT 7"])
    assert "movers" in out and "Times the sample stands" in out and "no table or view 'nowhere'" in out
    assert "no command '.nonsense'" in out and out.endswith("7\n(1 row)\n")


def test_ctrl_c_drops_what_was_typed_and_refresh_sees_new_rounds(small_run: Path, rows: Rows) -> None:
    asked = iter(
        [
            "SELECT 'dropped'",
            "^C",
            "SELECT max(round) AS r FROM counts;",
            "publish",
            ".refresh",
            "SELECT max(round) AS r FROM counts;",
        ]
    )
    out = io.StringIO()

    def line(prompt: str) -> str:
        typed = next(asked, ".quit")
        if typed == "^C":
            raise KeyboardInterrupt
        if typed == "publish":
            publish(small_run, "small-1", "counts", 3, rows("counts"))
            typed = "SELECT max(round) AS r FROM counts;"
        return typed

    sql_shell(small_run, None, line, out)
    assert [text for text in out.getvalue().split() if text.isdigit()] == [
        "2",
        "2",
        "3",
    ] and "dropped" not in out.getvalue()


def test_a_views_file_must_be_one_commented_create_view(tmp_path: Path) -> None:
    for text in ("CREATE VIEW x AS SELECT 1", "-- doc\nCREATE VIEW y AS SELECT 1", "-- doc\nSELECT 1"):
        (tmp_path / "x.sql").write_text(text)
        with pytest.raises(ViewError, match=r"x\.sql"):
            load_views(tmp_path)
    assert all(view.doc.endswith(".") and len(view.doc) > 30 for view in load_views())
