"""Names that come from outside, as SQL takes them.

A pool's columns, and the directories that homes lie in, may be called anything; SQL does not tell Text from text and
has no identifier without a letter. `distinct_names` gives each foreign name one of its own beside ours: the name itself
where it is free, else `upstream_` and the name. Nothing is lost: every name gets one, and which it got depends on the
set of names only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import count

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


def distinct_names(names: Iterable[str], reserved: Iterable[str], first: Iterable[str] = ()) -> dict[str, str]:
    """What each of `names` is called: no two alike in any case, none like a `reserved` one.

    Who can keep its name keeps it, those in `first` before others and then by name; only then the others get theirs.
    """
    before = {name: place for place, name in enumerate(first)}
    ordered = sorted(set(names), key=lambda name: (before.get(name, len(before)), name))
    taken = {name.casefold() for name in reserved}
    found: dict[str, str] = {}
    for name in ordered:
        if name and not IMPOSSIBLE.search(name) and name.casefold() not in taken:
            found[name] = name
            taken.add(name.casefold())
    for name in ordered:
        if name not in found:
            found[name] = _free(IMPOSSIBLE.sub("\ufffd", name), taken)
    return found


def word_names(names: Iterable[str], taken: Iterable[str]) -> dict[str, str]:
    """A word of letters, digits and _ for each of `names`, in their order: none alike in any case, none like a `taken`
    one; names that are such words already come first."""
    listed, used = list(dict.fromkeys(names)), {name.casefold() for name in taken}
    words = {name: re.sub(r"\W", "_", name)[:LONGEST] for name in listed}
    found = {}
    for name in sorted(listed, key=lambda name: words[name] != name):
        word = words[name]
        found[name] = _free(word, used) if word.casefold() in used else _take(word, used)
    return found


def shown(name: str) -> str:
    """A foreign name inside a sentence."""
    cut = name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in cut) or "''"


def _free(name: str, taken: set[str]) -> str:
    """`upstream_` and the name, with a number behind it where that is taken too."""
    plain = f"{PREFIX}{name}"
    tried = (plain if number == 1 else f"{plain}_{number}" for number in count(1))
    return _take(next(one for one in tried if one.casefold() not in taken), taken)


def _take(name: str, taken: set[str]) -> str:
    taken.add(name.casefold())
    return name
