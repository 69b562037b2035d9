"""The SQL shell: questions about a run, typed one after another.

A statement may span lines and ends with ';'. Lines are edited and remembered by readline where Python has it.
Ctrl-C ends a query, or drops what was typed; Ctrl-D or .quit leaves. The tables are as they were published when the
shell opened, until .refresh. A script on stdin is answered to its end, and each of its errors counts.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TextIO

import duckdb

from mgd_core.errors import UserError
from tasks.files.plurals import harmless
from tasks.tables.queries import asking, connect, left_out
from tasks.tables.query_output import Format, answer
from tasks.tables.sql_names import literal

HELP = """\
Type SQL, over as many lines as you like, ended by ';'. For instance:
    SELECT outcome, count(*) FROM sample_outcomes GROUP BY outcome;
.views         what there is to ask
.schema NAME   the columns of a table or view, and what they mean
.mode FORM     answer as table, csv or json
.limit N       show so many rows (.limit: 50 of a table, all of csv and json)
.out FILE      write answers to a file (.out: show them again)
.refresh       see what was published since the shell opened
.help          this text
.quit          leave (or quit, exit, Ctrl-D)
"""
PROMPT, CONTINUED = "sql> ", "...> "
LONGEST_HISTORY = 1000


def sql_shell(
    home: str | Path,
    run: str | None = None,
    ask: Callable[[str], str] | None = None,
    out: TextIO | None = None,
    allow_files: bool = False,
) -> int:
    """Read and answer statements until .quit or the end of the input; returns how many could not be answered. Raises
    QueryError if there is no such run.

    `ask` takes a prompt and returns a line (default: the terminal, with history kept in
    `<home>/.sql_history`; or a script on stdin, whose errors go to stderr).
    """
    is_script = ask is None and not sys.stdin.isatty()
    shell = _Shell(Path(home), run, out or sys.stdout, sys.stderr if is_script else None, allow_files)
    if not is_script:
        shell.say("Questions in SQL, ended by ';'. .views lists what there is to ask, .help tells the rest.")
    keep = nullcontext() if ask or is_script else _history(Path(home) / ".sql_history")
    with shell, keep as typed:
        while not shell.done:
            try:
                line = (ask or input)("" if is_script else CONTINUED if shell.typed else PROMPT)
                if typed:
                    typed()
                shell.take(line)
            except KeyboardInterrupt:
                if is_script:
                    raise
                shell.typed = ""
                shell.say("")
            except EOFError:
                shell.take_rest()
                break
    return shell.failures


class _Shell:
    """What the shell remembers between lines: its connection, the statement typed so far, how and where it answers."""

    def __init__(self, home: Path, run: str | None, out: TextIO, errors: TextIO | None, allow_files: bool) -> None:
        self.home, self.run, self.allow_files = home, run, allow_files
        self.terminal, self.errors, self.out = out, errors or out, out
        self.typed, self.done, self.failures = "", False, 0
        self.format: Format = "table"
        self.limit: int | None = None
        self._connect()

    def __enter__(self) -> _Shell:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()
        self._write_to(self.terminal)

    def say(self, text: str) -> None:
        """Tell the person at the terminal something that is no answer."""
        self.terminal.write(f"{harmless(text)}\n")
        self.terminal.flush()

    def take(self, line: str) -> None:
        """Take one line: a command, or more of a statement, which is answered once it is complete."""
        words = line.split()
        if not self.typed and (line.strip().startswith(".") or line.strip(" ;").lower() in ("quit", "exit")):
            return self._command(words)
        self.typed = f"{self.typed}{line}\n" if self.typed or words else ""
        if self.typed.rstrip().endswith(";") and _is_complete(self.typed):
            self.take_rest()

    def take_rest(self) -> None:
        """Answer what is typed, complete or not."""
        statement, self.typed = self.typed, ""
        if statement.strip(" \n;"):
            self._answer(statement, self.limit)

    def _command(self, words: list[str]) -> None:
        match [words[0].strip(".;").lower(), *words[1:]]:
            case ["quit" | "exit", *_]:
                self.done = True
            case ["help"]:
                self.say(HELP.rstrip())
            case ["views"]:
                self._answer("SELECT name, kind, coalesce(missing, shows) AS shows FROM views", 1000)
            case ["schema", name]:
                self._schema(name)
            case ["refresh"]:
                self.connection.close()
                self._connect()
            case ["mode", "table" | "csv" | "json" as format]:
                self.format = format
            case ["limit", *number] if "".join(number).isdecimal() or not number:
                self.limit = int(number[0]) if number else None
            case ["out"]:
                self._write_to(self.terminal)
            case ["out", *parts]:
                self._open(" ".join(parts))
            case _:
                self._fail(f"no command {' '.join(words)!r}; .help lists them")

    def _connect(self) -> None:
        self.connection = connect(self.home, self.run, self.allow_files)
        for line in left_out(self.connection):
            self.errors.write(f"mgd: {harmless(line)}\n")

    def _open(self, path: str) -> None:
        try:
            self._write_to(open(Path(path).expanduser(), "w", encoding="utf-8", newline=""))  # noqa: SIM115  (closed by `_write_to`)
        except OSError as error:
            self._fail(f"{path}: {error.strerror}; answers go where they went")

    def _write_to(self, out: TextIO) -> None:
        if self.out is not self.terminal:
            self.out.close()
        self.out = out

    def _fail(self, told: str) -> None:
        self.failures += 1
        self.errors.write(f"{harmless(told)}\n")

    def _schema(self, name: str) -> None:
        query = f"SELECT column_name, type, doc FROM columns WHERE lower(table_name) = lower({literal(name)})"
        if self.connection.execute(query).fetchall():
            self._answer(query, 1000)
        else:
            self._fail(f"no table or view {name!r}; .views lists them")

    def _answer(self, text: str, limit: int | None) -> None:
        """Answer each statement of a text, up to the first that cannot be answered."""
        try:
            with asking():
                statements = [one.query for one in self.connection.extract_statements(text)]
            for statement in statements or [text]:
                answer(self.connection, statement, self.out, self.format, limit)
        except UserError as error:
            self._fail(str(error))
        finally:
            self.out.flush()


def _is_complete(text: str) -> bool:
    """False while a quote is open, so that a ';' inside a string does not end the statement."""
    try:
        return bool(duckdb.extract_statements(text))
    except duckdb.ParserException as error:
        return "unterminated" not in str(error)


@contextmanager
def _history(path: Path) -> Iterator[Callable[[], None] | None]:
    """Lines of earlier sessions at hand while the shell runs, where there is a readline; gives what keeps a line that
    was typed, at once, so that nothing that ends the shell takes it along."""
    try:
        import readline
    except ImportError:
        yield None
        return
    with suppress(OSError):
        readline.read_history_file(path)
    readline.set_history_length(LONGEST_HISTORY)
    with suppress(OSError):
        if readline.get_current_history_length() > LONGEST_HISTORY:
            readline.write_history_file(path)
    known = readline.get_current_history_length()

    def keep() -> None:
        nonlocal known
        new, known = readline.get_current_history_length() - known, readline.get_current_history_length()
        with suppress(OSError):
            path.touch(0o600)
            readline.append_history_file(new, path)

    yield keep
