"""The SQL shell: questions about a run, typed one after another.

A statement may span lines and ends with ';'. Lines are edited and remembered by readline where Python has it.
Ctrl-C drops what was typed, Ctrl-D or .quit leaves. The tables are as they were published when the shell
opened, until .refresh.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TextIO

import duckdb

from tasks.tables.queries import QueryError, connect
from tasks.tables.query_output import answer
from tasks.tables.sql_names import literal

HELP = """\
Type SQL, over as many lines as you like, ended by ';'. For instance:
    SELECT outcome, count(*) FROM sample_outcomes GROUP BY outcome;
.views         what there is to ask
.schema NAME   the columns of a table or view, and what they mean
.refresh       see what was published since the shell opened
.help          this text
.quit          leave (or Ctrl-D)
"""
PROMPT, CONTINUED = "sql> ", "...> "


def sql_shell(
    home: str | Path,
    run: str | None = None,
    ask: Callable[[str], str] | None = None,
    out: TextIO | None = None,
) -> None:
    """Read and answer statements until .quit or the end of the input; raises QueryError if there is no such
    run.

    `ask` takes a prompt and returns a line (default: the terminal, with history kept in
    `<home>/.sql_history`).
    """
    out = out or sys.stdout
    shell = _Shell(Path(home), run, out)
    out.write("Questions in SQL, ended by ';'. .views lists what there is to ask, .help tells the rest.\n")
    with _history(Path(home) / ".sql_history") if ask is None else nullcontext():
        while not shell.done:
            try:
                shell.take((ask or _ask)(CONTINUED if shell.typed else PROMPT))
            except KeyboardInterrupt:
                shell.typed = ""
                out.write("\n")
            except EOFError:
                shell.take_rest()
                break


class _Shell:
    """What the shell remembers between lines: its connection and the statement typed so far."""

    def __init__(self, home: Path, run: str | None, out: TextIO) -> None:
        self.home, self.run, self.out = home, run, out
        self.typed, self.done = "", False
        self.connection = connect(home, run)

    def take(self, line: str) -> None:
        """Take one line: a command, or more of a statement, which is answered once it is complete."""
        if not self.typed and line.strip().startswith("."):
            return self._command(line.split())
        self.typed = f"{self.typed}{line}\n" if self.typed or line.strip() else ""
        if self.typed.rstrip().endswith(";") and _is_complete(self.typed):
            self.take_rest()

    def take_rest(self) -> None:
        """Answer what is typed, complete or not."""
        statement, self.typed = self.typed, ""
        if statement.strip(" \n;"):
            self._answer(statement)

    def _command(self, words: list[str]) -> None:
        match words:
            case [".quit"] | [".exit"]:
                self.done = True
            case [".help"]:
                self.out.write(HELP)
            case [".views"]:
                self._answer("SELECT name, kind, coalesce(missing, shows) AS shows FROM views", limit=1000)
            case [".schema", name]:
                self._schema(name)
            case [".refresh"]:
                self.connection.close()
                self.connection = connect(self.home, self.run)
            case _:
                self.out.write(f"no command {' '.join(words)!r}; .help lists them\n")

    def _schema(self, name: str) -> None:
        query = f"SELECT column_name, type, doc FROM columns WHERE lower(table_name) = lower({literal(name)})"
        if self.connection.execute(query).fetchall():
            self._answer(query, limit=1000)
        else:
            self.out.write(f"no table or view {name!r}; .views lists them\n")

    def _answer(self, statement: str, limit: int | None = None) -> None:
        try:
            answer(self.connection, statement, self.out, limit=limit)
        except QueryError as error:
            self.out.write(f"{error}\n")


def _is_complete(text: str) -> bool:
    """False while a quote is open, so that a ';' inside a string does not end the statement."""
    try:
        return bool(duckdb.extract_statements(text))
    except duckdb.ParserException as error:
        return "unterminated" not in str(error)


def _ask(prompt: str) -> str:
    # No prompts in the output when the questions come from a file or a pipe.
    return input(prompt if sys.stdin.isatty() else "")


@contextmanager
def _history(path: Path) -> Iterator[None]:
    """Lines of earlier sessions at hand while the shell runs, where there is a readline."""
    try:
        import readline
    except ImportError:
        yield
        return
    with suppress(OSError):
        readline.read_history_file(path)
    yield
    readline.set_history_length(1000)
    with suppress(OSError):
        readline.write_history_file(path)
