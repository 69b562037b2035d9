"""Words for people: numbers with what they count (1 round, 2 rounds, 1,000 rounds), strangers' texts without harm."""

from __future__ import annotations

import re

COMMANDS = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""What a terminal obeys instead of showing it, and what turns the reading direction around; not tab and line feed."""


def counted(n: int, one: str, many: str | None = None) -> str:
    """``n`` and its noun, in the singular or the plural (``many``: where that is not ``one`` with an s)."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def sized(size: float) -> str:
    """Bytes in the largest unit of which there is one."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= factor:
            return f"{size / factor:,.1f} {unit}"
    return f"{size} bytes"


def harmless(text: str) -> str:
    """A text that may hold a stranger's words, for a terminal: what would command it is written as an escape."""
    return COMMANDS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
