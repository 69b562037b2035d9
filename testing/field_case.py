"""Cases from the field as data: an input, a command, and the right outcome; and how one is judged.

A case is a function that writes its input into a place and returns the arguments of `mgd`. Its right outcome is that
the command works and says (or makes) something, or that it stops and names what is wrong. Judged are three faults:
*silent* (it ended well, and wrongly), a *traceback*, and *wrong* (it stopped, but for another reason, or where it
should have worked).
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from testing.field_pool import FieldPool, write_field_pool

RIGHT, SILENT, TRACEBACK, WRONG = "right", "silent", "traceback", "wrong"


@dataclass
class Place:
    """A directory of a case's own, and a home in which a run of the field pool is finished (only to be read)."""

    directory: Path
    finished: Path

    @property
    def home(self) -> Path:
        """A home of the case's own."""
        return self.directory / "home"

    @property
    def out(self) -> Path:
        """Where a command may write."""
        return self.directory / "out"

    @cached_property
    def field(self) -> FieldPool:
        """A field pool of the case's own."""
        return write_field_pool(self.directory / "field")

    @property
    def tar(self) -> Path:
        """A good tar of it, 24 samples."""
        return self.field.directory / "crawl" / "part-a" / "00000.tar"

    @property
    def clothes(self) -> Path:
        """Its evaluation set."""
        return self.field.directory / "sets" / "clothes"

    def catalog(self, *changes: tuple[str, str], more: str = "") -> str:
        """The field pool's catalog with text replaced and added."""
        text = self.field.catalog.read_text()
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new, 1)
        self.field.catalog.write_text(text + more)
        return str(self.field.catalog)

    def file(self, name: str, data: bytes | str) -> Path:
        """A file with this content."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path


@dataclass(frozen=True)
class Ended:
    """How a command ended. ``crash``: the traceback, if there was one."""

    status: int
    out: str
    err: str
    crash: str = ""

    @property
    def said(self) -> str:
        """All that was printed."""
        return self.out + self.err


Judge = Callable[[Place, Ended], str]
"""What is wrong with an ending, or ""."""


@dataclass(frozen=True)
class Outcome:
    """Whether the command should work, what it must say (each a regular expression), and what else must hold."""

    works: bool
    says: tuple[str, ...] = ()
    also: Judge | None = None


def works(*says: str, also: Judge | None = None) -> Outcome:
    """The command ends well."""
    return Outcome(True, says, also)


def told(*says: str) -> Outcome:
    """The command stops, and its message has all of this."""
    return Outcome(False, says)


@dataclass(frozen=True)
class Case:
    """One case; ``row``: the kind that it is of."""

    name: str
    row: str
    make: Callable[[Place], list[str]]
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True)
class Judgement:
    """``verdict``: right, silent, traceback or wrong; ``why``: in a line."""

    case: Case
    verdict: str
    why: str = ""
    ended: Ended = field(default=Ended(0, "", ""), repr=False)


CASES: dict[str, Case] = {}


def case(row: str, *outcomes: Outcome) -> Callable[[Callable[[Place], list[str]]], Callable[[Place], list[str]]]:
    """Enter a case; any one of the outcomes is right."""

    def enter(make: Callable[[Place], list[str]]) -> Callable[[Place], list[str]]:
        assert make.__name__ not in CASES, f"two cases {make.__name__}"
        CASES[make.__name__] = Case(make.__name__, row, make, outcomes)
        return make

    return enter


def judged(one: Case, place: Place) -> Judgement:
    """Run a case in its place and judge it."""
    place.directory.mkdir(parents=True)
    with _inside(place.directory):
        arguments = one.make(place)
        if "--home" not in arguments:
            arguments = [*arguments, "--home", str(place.home)]
        ended = run(arguments)
    if ended.crash:
        return Judgement(one, TRACEBACK, ended.crash.strip().splitlines()[-1][:200], ended)
    problems = [_problem(outcome, place, ended) for outcome in one.outcomes]
    if "" in problems:
        return Judgement(one, RIGHT, "", ended)
    return Judgement(one, SILENT if ended.status == 0 else WRONG, problems[0], ended)


def run(arguments: list[str]) -> Ended:
    """`mgd` with these arguments, in this process."""
    from flows.cli import main

    out, err = io.StringIO(), io.StringIO()
    crash = ""
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(arguments)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        except BaseException:
            status, crash = 1, traceback.format_exc()
    if not crash and "Traceback (most recent call last)" in err.getvalue():
        crash = err.getvalue()
    return Ended(status, out.getvalue(), err.getvalue(), crash)


def _problem(outcome: Outcome, place: Place, ended: Ended) -> str:
    if outcome.works != (ended.status == 0):
        last = (ended.err.strip().splitlines() or ["nothing said"])[-1]
        return f"ended with {ended.status}: {last[:160]}"
    text = ended.said if outcome.works else ended.err
    for pattern in outcome.says:
        if not re.search(pattern, text, re.IGNORECASE):
            return f"did not say /{pattern}/; said: {(text.strip().splitlines() or ['nothing'])[-1][:160]}"
    return outcome.also(place, ended) if outcome.also else ""


@contextlib.contextmanager
def _inside(directory: Path) -> Iterator[None]:
    """Work in a directory, as users do."""
    before = Path.cwd()
    os.chdir(directory)
    try:
        yield
    finally:
        os.chdir(before)
