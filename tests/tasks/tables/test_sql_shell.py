"""The shell on a real terminal and with scripts: Ctrl-C, history, folding, where answers go, and what it ends with."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from tasks.tables.published import publish

ROOT = Path(__file__).parents[3]
ENDLESS = "SELECT count(*) FROM range(100000000000) AS a WHERE a.range % 7 = 3;"
COLUMNS = 40
COMMAND = [sys.executable, "-m", "flows.cli", "sql", "--home"]


class Terminal:
    """`mgd sql` on a terminal of its own, typed at."""

    def __init__(self, home: Path, *more: str) -> None:
        self.main, other = pty.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))

        def take() -> None:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        variables = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "dumb", "INPUTRC": "/dev/null"}
        for name in ("COLUMNS", "LINES"):
            variables.pop(name, None)
        self.process = subprocess.Popen(
            [*COMMAND, str(home), *more], cwd=ROOT, env=variables, stdin=other, stdout=other, stderr=other,
            start_new_session=True, preexec_fn=take,
        )  # fmt: skip
        os.close(other)
        self.said = ""

    def until(self, pattern: str, seconds: float = 60.0) -> str:
        """What it says, up to a pattern; that is then taken."""
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern, self.said)):
            ready, _, _ = select.select([self.main], [], [], max(0.0, deadline - time.monotonic()))
            try:
                more = os.read(self.main, 65536) if ready else b""
            except OSError:  # nobody holds the other end any more
                more = b""
            assert more, f"not said within {seconds} s: {pattern}; but: {self.said}"
            self.said += more.decode().replace("\r\n", "\n")
        told, self.said = self.said[: found.end()], self.said[found.end() :]
        return told

    def type(self, text: str) -> None:
        os.write(self.main, text.encode())

    def ask(self, line: str) -> str:
        """Type a line; what comes before the next prompt."""
        self.type(line + "\n")
        return self.until(r"sql> ")


@pytest.fixture
def terminal(small_run: Path) -> Iterator[Callable[..., Terminal]]:
    begun: list[Terminal] = []

    def begin(*more: str) -> Terminal:
        begun.append(Terminal(small_run, *more))
        return begun[-1]

    yield begin
    for one in begun:
        one.process.kill()
        one.process.wait()
        os.close(one.main)


def test_ctrl_c_ends_the_query_and_not_the_shell(terminal: Callable[..., Terminal]) -> None:
    shell = terminal()
    shell.until("sql> ")
    for _ in range(2):
        shell.type(ENDLESS + "\n")
        shell.until(r"% 7 = 3;")
        time.sleep(1)
        began = time.monotonic()
        shell.type("\x03")
        shell.until("sql> ")
        assert time.monotonic() - began < 2
        assert "42" in shell.ask("SELECT 6 * 7;")
    shell.type("SELECT 'half\n")
    shell.until(r"\.\.\.> ")
    time.sleep(0.5)  # a prompt is printed a moment before its line is read, and a signal in between waits for a key
    shell.type("\x03")
    shell.until("sql> ")
    assert "43" in shell.ask("SELECT 43;"), "what was half typed is dropped"
    shell.type("quit\n")
    assert shell.process.wait(20) == 0


def test_ctrl_c_ends_a_single_query_too(terminal: Callable[..., Terminal]) -> None:
    command = terminal(ENDLESS)
    time.sleep(4)
    command.type("\x03")
    began = time.monotonic()
    command.until("stopped")
    assert command.process.wait(20) == 130 and time.monotonic() - began < 4


@pytest.mark.parametrize("end", ["exit;", "QUIT", ".exit", "\x04"])
def test_it_is_left_by_whatever_word(end: str, terminal: Callable[..., Terminal]) -> None:
    shell = terminal()
    shell.until("sql> ")
    shell.type(end if end == "\x04" else f"{end}\n")
    assert shell.process.wait(20) == 0


def test_history_outlives_a_kill(terminal: Callable[..., Terminal], small_run: Path) -> None:
    shell = terminal()
    shell.until("sql> ")
    shell.ask("SELECT 'first line';")
    shell.type(ENDLESS + "\n")
    shell.until("= 3;")
    time.sleep(0.5)
    shell.process.send_signal(signal.SIGKILL)
    shell.process.wait()
    assert (small_run / ".sql_history").read_text().splitlines()[-2:] == ["SELECT 'first line';", ENDLESS]
    again = terminal()
    again.until("sql> ")
    again.type("\x1b[A\x1b[A\n")  # up, up
    assert "first line\n(1 row)" in again.until(r"1 row\)\n")


def test_a_wide_table_folds_and_a_long_one_is_cut_with_its_count(terminal: Callable[..., Terminal]) -> None:
    shell = terminal()
    shell.until("sql> ")
    told = shell.ask("SELECT range AS n, 'word' AS one, repeat('x', 31) AS two, 'end' AS three FROM range(1000);")
    table = told[told.index("1000);") :].splitlines()[1:]
    assert max(map(len, table)) <= COLUMNS and table[-2] == "(1,000 rows, first 50 shown)"
    heads = [line.split() for line in table if re.match(" *n ", line)]
    assert heads == [["n", "one"], ["n", "two"], ["n", "three"]], "each part begins with the first column"
    assert sum("x" * 31 in line for line in table) == 50


def test_several_statements_are_each_shown_in_the_form_and_place_that_are_set(
    terminal: Callable[..., Terminal], tmp_path: Path
) -> None:
    shell = terminal()
    shell.until("sql> ")
    told = shell.ask("SELECT 1 AS a; SELECT 2 AS b;")
    assert re.search(r"\na\n-\n1\n\(1 row\)\nb\n-\n2\n\(1 row\)\n", told)
    shell.ask(".mode json")
    assert '[\n{"a": 1}\n]\n[\n{"b": 2}\n]\n' in shell.ask("SELECT 1 AS a; SELECT 2 AS b;")
    shell.ask(".mode csv")
    shell.ask(f".out {tmp_path / 'answer.csv'}")
    assert "77" not in shell.ask("SELECT 70 + 7 AS c;").replace("70 + 7", "")
    assert (tmp_path / "answer.csv").read_text() == "c\n77\n"
    shell.ask(".out")
    assert "c\n78\n" in shell.ask("SELECT 78 AS c;")
    assert "No such file" in shell.ask(".out /nowhere/at/all") and "no command" in shell.ask(".mode xml")


def test_a_caption_cannot_command_the_terminal(terminal: Callable[..., Terminal], small_run: Path) -> None:
    hostile = "SELECT chr(27) || ']0;title' || chr(7) || chr(155) || '2J' || chr(8238) AS "
    shell = terminal()
    shell.until("sql> ")
    for form in ("table", "csv", "json"):
        shell.ask(f".mode {form}")
        told = shell.ask(hostile + '"a\x16\x1b[31m b";')
        answer = told[told.rindex('b";') :]
        assert "title" in answer and not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", answer), (form, answer)
    error = shell.ask("SELECT error(chr(27) || '[2J');")
    told = error[error.index("[2J');") + 6 :]
    assert "\\x1b[2J" in told and "\x1b" not in told


def script(home: Path, text: str) -> subprocess.CompletedProcess[str]:
    words = [*COMMAND, str(home)]
    return subprocess.run(words, input=text, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_a_script_gives_its_answers_only_and_a_status(small_run: Path) -> None:
    good = script(small_run, "SELECT 1 AS a;\n\n.mode csv\nSELECT 2 AS b;\nSELECT chr(27) AS c")
    assert (good.returncode, good.stderr) == (0, "")
    assert good.stdout == "a\n-\n1\n(1 row)\nb\n2\nc\n\x1b\n", "a pipe gets each text as it is"
    bad = script(small_run, "SELECT nope;\nSELECT 2 AS b;\n")
    assert bad.returncode == 1 and "nope" in bad.stderr and bad.stdout == "b\n-\n2\n(1 row)\n"
    assert script(small_run, ".nonsense\n").returncode == 1 and script(small_run, "").returncode == 0
    assert not (small_run / ".sql_history").exists()


def test_a_home_that_cannot_be_written_is_asked_all_the_same(
    terminal: Callable[..., Terminal], small_run: Path, rows: Callable[..., pa.Table]
) -> None:
    (small_run / ".sql_history").mkdir()
    shell = terminal()
    shell.until("sql> ")
    assert "42" in shell.ask("SELECT 6 * 7;")
    publish(small_run, "small-1", "counts", 9, rows("counts"))
    shell.ask(".refresh")
    assert "\n  9\n" in shell.ask("SELECT max(round) AS max FROM counts;")
