"""Names that come from outside, as SQL takes them.

A pool's columns, and the directories that homes lie in, may be called anything; SQL does not tell Text from text and
has no identifier without a letter. `distinct_names` gives each foreign name one of its own beside ours: the name itself
where it is free, else `upstream_` and the name. Nothing is lost: every name gets one, and which it got depends on the
set of names only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from os.path import abspath
from typing import Any

SETTINGS: dict[str, Any] = {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
"""Of every DuckDB connection: nothing is fetched."""
PREFIX = "upstream_"
"""What stands before a foreign name that is taken."""
LONGEST = 60
"""Characters of a foreign name that a view is called after."""
# What Parquet, Arrow or a parser of SQL cannot hold: halves of surrogate pairs, and NUL.
IMPOSSIBLE = re.compile("[\0\ud800-\udfff]")


def quoted(name: str) -> str:
    """A name as SQL takes it whatever letters it has."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: object) -> str:
    """A text, or a path, as SQL's string."""
    return "'" + str(text).replace("'", "''") + "'"


def parquet(paths: Iterable[object], more: str = "") -> str:
    """Parquet files as SQL's table: the columns that are in them, and nothing that is read off their paths."""
    listed = ", ".join(literal(abspath(str(path))) for path in paths)
    return f"read_parquet([{listed}], hive_partitioning = false{more})"


def distinct_names(names: Iterable[str], reserved: Iterable[str], first: Iterable[str] = ()) -> dict[str, str]:
    """What each of `names` is called: no two alike in any case, none like a `reserved` one.

    Who can keep its name keeps it, those in `first` before others and then by name; only then the others get theirs:
    what they are called, or `upstream_` and that, or that with a number.
    """
    before = {name: place for place, name in enumerate(first)}
    ordered = sorted(set(names), key=lambda name: (before.get(name, len(before)), name))
    return _given({name: IMPOSSIBLE.sub("\ufffd", name) for name in ordered}, reserved)


def word_names(names: Iterable[str], taken: Iterable[str]) -> dict[str, str]:
    """A word of letters, digits and _ for each of `names`, none alike, given out in the order of the names."""
    return _given({name: re.sub(r"\W", "_", name)[:LONGEST] for name in names}, taken)


def shown(name: str) -> str:
    """A foreign name inside a sentence."""
    cut = name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in cut) or "''"


def _given(wished: Mapping[str, str], reserved: Iterable[str]) -> dict[str, str]:
    """What each name gets: what is wished for it where that is free, those first that are called so already."""
    taken = {name.casefold() for name in reserved}
    found: dict[str, str] = {}
    for own in (True, False):
        for name, wish in wished.items():
            if name in found or (own and (wish != name or not wish or wish.casefold() in taken)):
                continue
            found[name] = next(one for one in _tried(wish) if one and one.casefold() not in taken)
            taken.add(found[name].casefold())
    return found


def _tried(wish: str) -> Iterator[str]:
    """The wish, then `upstream_` and the wish, then that with a number behind it."""
    yield from (wish, f"{PREFIX}{wish}")
    yield from (f"{PREFIX}{wish}_{number}" for number in count(2))
