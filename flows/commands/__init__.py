"""Commands of `mgd`: one module each, which adds its parser and runs it."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TextIO, cast

from tasks.files.local_files import URL, NotLocal, local_path
from tasks.files.package_data import CATALOGS
from tasks.files.plurals import harmless
from tasks.files.progress import begin, say
from tasks.homes.working_copies import NoHome, working_copy

Make = Callable[[str, Callable[[argparse.Namespace], int], str], argparse.ArgumentParser]
"""Adds a command: its name, what runs it, and what it says of itself."""


@contextmanager
def flow_session(home: Path) -> Iterator[str]:
    """Where flows may be imported and run: a Prefect server, whose API's address it gives, and progress shown."""
    from flows.console import shown_progress
    from flows.runtime.environment import external_api_url
    from flows.runtime.session import prefect_session

    hint = "" if external_api_url() else f"; its page asks once for the password that `mgd server --home {home}` tells"
    with shown_progress(), prefect_session(home) as url:
        say(f"Prefect: {url.removesuffix('/api')}{hint}")
        begin("load the flow")
        yield url


def plain_output() -> None:
    """Let no character end a command: what the terminal's encoding lacks is written as an escape; nor command the
    terminal: so is what it would obey, such as a caption may hold. Files and pipes get every text as it is."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if sys.stdout.isatty():
        sys.stdout = cast(TextIO, _Terminal(sys.stdout))


class _Terminal:
    """A stream to a terminal that writes nothing but harmless text."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text of anybody's."""
        return self._stream.write(harmless(text))


def shipped(folder: str = "") -> str:
    """Names of the catalogs that come with mgd, or of those in a folder of theirs."""
    return ", ".join(sorted(path.stem for path in (CATALOGS / folder).glob("*.toml")))


def add_catalog(made: argparse.ArgumentParser) -> None:
    """Add what names a catalog, and `--set`; `chosen_catalog` reads both."""
    made.add_argument("catalog", help=f"a TOML file, or the name of a catalog that comes with mgd: {shipped()}")
    text = "what the catalog's pool is made of instead: tars, or any source that mgd shard takes"
    made.add_argument("--pool", metavar="SOURCE", help=text)
    text = (
        "the evaluation set, or sheet, that target, held-out target and tests are parts of instead; of a catalog that "
    )
    text += "names a folder of sets (targets.evaluation_sets), that folder"
    made.add_argument("--targets", metavar="SET", help=text)
    text = "say a key of the catalog otherwise, for instance descent.rounds=5; may be given again"
    made.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help=text)


def chosen_catalog(options: argparse.Namespace) -> tuple[Path, dict[str, Any]]:
    """Path of the catalog, and what is laid over it; raises CatalogError."""
    from tasks.catalog.files import find_catalog

    path = find_catalog(options.catalog)  # a name that is none is told before anything is loaded that takes seconds
    from tasks.catalog.overrides import parsed_overrides, sources

    return path, sources(path, options.pool, options.targets) | parsed_overrides(options.overrides)


LARGEST = 2**31 - 1
"""Of whole numbers: what any machine, table and generator takes."""


def whole_from(first: int, why: str = "") -> Callable[[str], int]:
    """The type of an argument that is a whole number from ``first`` on; ``why`` follows when it is not."""

    def read(text: str) -> int:
        value = int(text) if text.isascii() and text.isdecimal() and len(text) <= 10 else -1
        if not first <= value <= LARGEST:
            told = f"{text!r} is not a whole number from {first} to {LARGEST}{f': {why}' if why else ''}"
            raise argparse.ArgumentTypeError(told)
        return value

    return read


whole, count = whole_from(1), whole_from(0)


def named(text: str) -> str:
    """An argument that is a name, of a run say: not empty."""
    if not text.strip():
        raise argparse.ArgumentTypeError("an empty name; leave the option out for the latest")
    return text


def local(text: str) -> Path:
    """An argument that is a path of this machine, of any command (`flows.cli` makes it that of every `type=Path`)."""
    try:
        return local_path(text)
    except NotLocal as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def home(text: str) -> Path:
    """An argument that is a home: a directory, or a place where one can be made; a URL's is its working copy."""
    try:
        path = working_copy(text).root if URL.match(text) else local(text)
        path.resolve()  # RuntimeError where links lead in a circle
        there = next(place for place in (path, *path.absolute().parents) if place.exists() or place.is_symlink())
    except NoHome as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    except (OSError, RuntimeError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no place for a home: {error}") from None
    if not there.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is no place for a home: {there} is not a directory")
    return path


def positive(text: str) -> float:
    """An argument that is a number above 0, and no more than a thousand."""
    value = _number(text)
    if not 0 < value <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0 and up to 1000, such as 0.1")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def budget(text: str) -> int | float:
    """An argument that is a number of samples (12), or a share of them (0.1)."""
    if text.isdecimal():
        return count(text)
    share = _number(text)
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a whole number nor a share from 0 to 1")
    return share
