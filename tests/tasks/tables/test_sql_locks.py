"""Locks: whatever a statement tries, no file comes to be, none is changed, and none but the tables is read."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from tasks.studies.prediction import selected
from tasks.subset.algebra import ask
from tasks.subset.candidates import Candidates, metadata_candidates
from tasks.subset.expressions import ExpressionError
from tasks.subset.filters import FilterError
from tasks.tables.published import files
from tasks.tables.queries import QueryError, connect
from tasks.tables.query_output import run_sql
from tasks.tables.sql_locks import Forbidden
from tasks.tables.views import View, ViewError
from tests.tasks.subset.test_filters import metadata

COPY = "COPY (SELECT 42 AS x) TO '{table}' (FORMAT parquet, USE_TMP_FILE false)"
SERIALIZED = f"SELECT json_serialize_sql('WITH x AS ({COPY.replace(chr(39), chr(39) * 2)}) FROM x')"
TRIES = {
    "write": "COPY (SELECT 1) TO '{place}/new.csv'",
    "write over a table": COPY,
    "write in a common table expression": f"WITH x AS ({COPY}) FROM x",
    "write while it is explained": f"EXPLAIN ANALYZE {COPY}",
    "write as a statement that is prepared": f"PREPARE p AS {COPY}; EXECUTE p",
    "write with words in between": COPY.replace("COPY", "/* a */ CoPy -- b\n"),
    "write from a serialized statement": f"FROM json_execute_serialized_sql(({SERIALIZED}))",
    "write from a quoted name": f'FROM "JSON_execute_serialized_sql" /* ( */ (({SERIALIZED}))',
    "write from a text within a text": "FROM query('FROM json_execute_serialized_sql(''{{}}'')')",
    "write by a pragma": "PRAGMA json_execute_serialized_sql('{{}}')",
    "write after a good question": f"SELECT 1; {COPY}",
    "write from a macro": f"CREATE MACRO m(t) AS TABLE FROM query(t); FROM m('{COPY.replace(chr(39), chr(39) * 2)}')",
    "export": "EXPORT DATABASE '{place}/export'",
    "attach": "ATTACH '{place}/new.duckdb' AS other",
    "attach a table": "ATTACH '{table}' AS other",
    "read a secret": "SELECT content FROM read_text('{secret}')",
    "read a secret by its name": "FROM '{secret}'",
    "read a secret as a table": "FROM read_csv('{secret}', header = false)",
    "read a secret by a detour": "FROM read_text('{table}/../../../../../../secret.txt')",
    "look around": "FROM glob('{place}/*')",
    "look around the temporary place": "SELECT file FROM glob((SELECT current_setting('temp_directory')) || '/../*')",
    "fetch": "FROM read_csv('http://127.0.0.1:9/x.csv')",
    "install": "INSTALL httpfs",
    "load": "LOAD httpfs",
    "unlock": "SET lock_configuration = false",
    "allow": "SET enable_external_access = true",
    "log": "CALL enable_logging(storage = 'file', storage_config = {{'path': '{place}/log'}})",
    "profile": "PRAGMA profiling_output = '{place}/profile.json'",
    "keep a secret": "CREATE PERSISTENT SECRET s (TYPE http, BEARER_TOKEN 'x')",
    "import": "IMPORT DATABASE '{place}'",
}


def content(place: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}


def in_the_words_of(trying: str, home: Path, place: Path) -> str:
    (table,) = {path for number, path in files(home, "small-1", "choices").items()}
    return TRIES[trying].format(table=table, place=place, secret=place / "secret.txt")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "secret.txt").write_text("the secret word\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("trying", TRIES)
def test_what_people_ask_reads_the_tables_and_nothing_else(trying: str, small_run: Path, place: Path) -> None:
    before, out = content(place), io.StringIO()
    with pytest.raises((QueryError, Forbidden)):
        run_sql(small_run, in_the_words_of(trying, small_run, place), None, out)
    assert content(place) == before and "the secret word" not in out.getvalue() and ".txt" not in out.getvalue()


@pytest.mark.parametrize("trying", TRIES)
def test_what_a_filter_says_reads_what_it_chooses_from_and_nothing_else(
    trying: str, small_run: Path, place: Path
) -> None:
    pool = metadata(place / "pool")
    query = in_the_words_of(trying, small_run, place).replace(str(small_run / "tables"), str(pool))
    for text in (query, f"SELECT uid FROM samples; {query}", f"SELECT uid FROM ({query.rstrip(';')})"):
        (place / "mine.sql").write_text(f"-- What it keeps.\n{text}\n")
        before = content(place)
        with pytest.raises((FilterError, ExpressionError)), metadata_candidates(place / "home", [pool]) as candidates:
            ask(candidates, "mine.sql", place)
        assert content(place) == before


def test_a_filter_may_read_a_file_where_that_is_allowed(place: Path) -> None:
    pool = metadata(place / "pool")
    (place / "mine.sql").write_text(
        f"-- What it keeps.\nSELECT uid FROM samples, read_text('{place / 'secret.txt'}') AS t WHERE t.size > 1 -- so\n"
    )

    def chosen(candidates: Candidates) -> int:
        return int(ask(candidates, "mine.sql", place).operands[0]["distinct"])

    with metadata_candidates(place / "home", [pool], allow_files=True) as candidates:
        assert chosen(candidates) == 150
    with pytest.raises(FilterError, match=r"mine\.sql"), metadata_candidates(place / "home", [pool]) as candidates:
        chosen(candidates)


def test_with_leave_sql_reads_and_writes_files(small_run: Path, place: Path) -> None:
    out = io.StringIO()
    run_sql(small_run, f"SELECT content FROM read_text('{place / 'secret.txt'}')", None, out, allow_files=True)
    run_sql(small_run, f"COPY (FROM counts) TO '{place / 'new.csv'}'", None, out, allow_files=True)
    assert "the secret word" in out.getvalue() and (place / "new.csv").read_text().count("\n") == 13


def test_what_harms_nobody_may_be_said(small_run: Path, rows: Callable[..., pa.Table]) -> None:
    query = (
        "CREATE TEMP TABLE mine AS SELECT uid, count AS \"copy\", 'copy (query(1))' AS query FROM counts; -- copy\n"
        "INSERT INTO mine SELECT uid, 7, '' FROM samples; CREATE MACRO twice(x) AS 2 * x; SET VARIABLE least = 3;"
        'SELECT twice(sum("copy")) AS s, count(query) AS n FROM mine WHERE "copy" >= getvariable(\'least\')'
    )
    out = io.StringIO()
    run_sql(small_run, query, None, out)
    assert out.getvalue().splitlines()[-2:] == ["62  5", "(1 row)"]  # one count of 3 and four sevens
    for one in ("DESCRIBE counts", "SUMMARIZE counts", "SHOW TABLES", "EXPLAIN FROM counts", "PIVOT counts ON round"):
        run_sql(small_run, one, None, io.StringIO())


def test_a_question_larger_than_memory_spills_and_leaves_nothing(
    small_run: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "spill").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place / "spill"))
    with connect(small_run, settings={"memory_limit": "60MB", "threads": 1}) as connection:
        large = "SELECT count(*) FROM (SELECT DISTINCT hash(range), hash(range + 1)::VARCHAR FROM range(3000000))"
        assert connection.execute(large).fetchall() == [(3_000_000,)]
    assert list((place / "spill").iterdir()) == [] and not (place / ".tmp").exists()


@pytest.mark.parametrize(
    "query", ["SELECT uid FROM samples; DROP VIEW counts", "DROP VIEW counts", "FROM query('FROM samples')", ""]
)
def test_where_one_question_is_promised_it_is_one(query: str, small_run: Path) -> None:
    with pytest.raises(Forbidden):
        selected(small_run, "small-1", query)
    assert len(selected(small_run, "small-1", "SELECT uid FROM samples")) == 4


def test_a_view_is_one_statement(small_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sly = View("sly", "CREATE VIEW sly AS SELECT 1; DROP VIEW counts", "What it shows.", (), {})
    monkeypatch.setattr("tasks.tables.queries.load_views", lambda: [sly])
    with pytest.raises(ViewError, match="view sly: more than one statement"):
        connect(small_run)
