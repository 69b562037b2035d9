"""The header of a file of SQL: comment lines that say what its statement is, before the statement.

-- What it is, in plain words, over as many lines as it takes.
-- needs: a line that begins with one of the words that such files have
--   name: an indented note.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

LINE = re.compile(r"--(?P<indent> *)(?P<text>.*)")


@dataclass(frozen=True)
class Header:
    """What it is (`doc`), the indented notes, what follows each `word:`, a line each, and the statement itself."""

    doc: str
    notes: list[str]
    said: dict[str, list[str]]
    statement: str


def parse_header(text: str, words: Sequence[str]) -> Header:
    """The header of a file's text, whose lines may begin with one of `words` and a colon."""
    lines = text.splitlines()
    count = next((i for i, line in enumerate(lines) if line.strip() and not line.startswith("--")), len(lines))
    told, notes, said = [], [], dict[str, list[str]]({word: [] for word in words})
    for match in filter(None, (LINE.fullmatch(line.rstrip()) for line in lines[:count])):
        word, colon, rest = match["text"].partition(":")
        if len(match["indent"]) == 3:
            notes.append(match["text"])
        elif colon and word in said:
            said[word].append(rest.strip())
        else:
            told.append(match["text"])
    return Header(" ".join(told), notes, said, "\n".join(lines[count:]).strip())
