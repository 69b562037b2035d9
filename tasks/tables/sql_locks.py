"""Locks: what SQL that people and files bring may do, which is to ask a home's Parquet and to make tables in memory.

DuckDB itself refuses every other file, the network, extensions and changes of its settings. What it allows to be read
it would let be written too, so statements that write files are refused before they are run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise
from os.path import abspath

import duckdb
from duckdb import StatementType

from mgd_core.errors import UserError
from tasks.tables.sql_names import literal

ALLOWED = {
    StatementType.SELECT, StatementType.EXPLAIN, StatementType.CREATE, StatementType.DROP, StatementType.INSERT,
    StatementType.UPDATE, StatementType.DELETE, StatementType.ALTER, StatementType.SET, StatementType.VARIABLE_SET,
    StatementType.TRANSACTION, StatementType.MULTI,
}  # fmt: skip
"""Kinds of statements that reach no file but those that are read; MULTI is what PIVOT is made of."""
RUN_TEXTS = {"query", "json_execute_serialized_sql"}
"""Functions that run the SQL that stands in a text."""


class Forbidden(UserError, ValueError):
    """A statement that would do more than ask."""


def lock(connection: duckdb.DuckDBPyConnection, files: Iterable[object]) -> None:
    """Let a connection read `files`, and nothing else from now on."""
    paths = ", ".join(literal(abspath(str(path))) for path in files)
    connection.execute(f"SET allowed_paths = [{paths}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def check_statement(connection: duckdb.DuckDBPyConnection, statement: duckdb.Statement) -> None:
    """Raise Forbidden for what a locked connection must not be asked."""
    if not connection.execute("SELECT current_setting('lock_configuration')").fetchall()[0][0]:
        return
    reaching = [] if statement.type in ALLOWED else [str(statement.type).rpartition(".")[2]]
    reaching += _reaching(statement.query)
    if reaching:
        raise Forbidden(
            f"{reaching[0]} is not for SQL here, which asks the tables of the home, may make tables in memory, and "
            'reaches no other file (a column of that name stands in quotes: "copy"). --allow-files lets it reach any'
        )


def check_one_question(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    """Raise Forbidden unless `query` is one SELECT, and one that may be asked."""
    statements = connection.extract_statements(query)
    if len(statements) != 1 or statements[0].type not in (StatementType.SELECT, StatementType.MULTI):
        raise Forbidden(f"{len(statements)} statements, where one SELECT is taken")
    check_statement(connection, statements[0])


def _reaching(query: str) -> list[str]:
    """What of a statement could hold a COPY: the word itself, and functions that run a text."""
    text, tokens = query.encode(), [one for one in duckdb.tokenize(query) if one[1] != duckdb.token_type.comment]
    words = [re.match(rb'"(?:[^"]|"")*"|\w+|.', text[start:], re.DOTALL) for start, _ in tokens]
    names = [word[0].decode(errors="replace").lower() if word else "" for word in words]
    calls = [name for name, then in pairwise(names) if then == "(" and name.strip('"') in RUN_TEXTS]
    kept = [kind != duckdb.token_type.string_const for _, kind in tokens]
    return calls + [name for name, is_code in zip(names, kept, strict=True) if is_code and name == "copy"]
