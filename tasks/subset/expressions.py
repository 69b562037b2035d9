"""Set algebra between subsets as text: `clip_score(fraction=0.3) & basic - run(id="fashion-1a2b")`.

    a & b   the samples of both, as often as in a
    a - b   the samples of a that are not in b at all, as often as in a
    a | b   the samples of either, as often as in the one that has more
    a + b   the samples of either, counts added

`&` binds more tightly than the other three, which go from left to right alike; parentheses go first. An operand is a
name, which may have arguments (`random_fraction(fraction=0.1, seed=3)`), or a path. Bare words are made of letters,
digits and `_ . / ~`; anything else stands in quotes (`"my-subset.npy"`). What names mean is not known here.

An error is told with the expression and a caret below the place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, NoReturn

from mgd_core.errors import UserError
from tasks.files.local_files import absolute

TOKEN = re.compile(r"""\s*(?:(?P<quoted>"[^"]*"|'[^']*')|(?P<word>[\w./~]+)|(?P<sign>[-&|+()=,]))""")
NUMBER = re.compile(r"\s*(-?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?=\s*[,)])")
LOOSE = "|+-"
SHOWN = 60
"""Characters of an expression that an error shows on either side of a place."""
MOST_OPERANDS = 100
"""As many as DuckDB answers within each other."""
FILES = {".npy", ".parquet", ".sql"}


class ExpressionError(UserError, ValueError):
    """An expression that cannot be read or whose operand is not there; shows the place."""

    def __init__(self, text: str, at: int, problem: str) -> None:
        line_start = text.rfind("\n", 0, at) + 1
        line_start = max(line_start, at - SHOWN)
        line = text[line_start:].split("\n", 1)[0][: 2 * SHOWN]
        super().__init__(f"{problem}\n  {line}\n  {' ' * (at - line_start)}^")


@dataclass(frozen=True)
class Operand:
    """A subset by name or path, with its arguments as they were written; `at`: where it stands in the text."""

    name: str
    arguments: tuple[tuple[str, str], ...] = ()
    at: int = 0

    def __str__(self) -> str:
        told = ", ".join(f"{key}={_quoted(value)}" for key, value in self.arguments)
        return _quoted(self.name) + (f"({told})" if told else "")


@dataclass(frozen=True)
class Combination:
    """Two subsets joined by `&`, `|`, `-` or `+`."""

    sign: str
    left: Expression
    right: Expression

    def __str__(self) -> str:
        return f"({self.left} {self.sign} {self.right})"


Expression = Operand | Combination


def parse(text: str) -> Expression:
    """The tree of an expression; raises ExpressionError with a caret where it cannot be read."""
    if "\0" in text:
        raise ExpressionError(text.replace("\0", "?"), text.index("\0"), "a NUL has no place in an expression")
    try:
        return _Parser(text).whole()
    except RecursionError:
        raise ExpressionError(text, 0, "too many parentheses within each other") from None


def operands(tree: Expression) -> Iterator[Operand]:
    """The operands of a tree, from left to right."""
    if isinstance(tree, Operand):
        yield tree
    else:
        yield from operands(tree.left)
        yield from operands(tree.right)


def rebased(tree: Expression, base: Path) -> Expression:
    """The same tree with relative paths (what has a `/`, or ends like a subset's or filter's file) below `base`."""
    if isinstance(tree, Combination):
        return Combination(tree.sign, rebased(tree.left, base), rebased(tree.right, base))
    if tree.name == "score":  # its table is a path, too
        given = tuple((key, absolute(value, base) if key == "path" else value) for key, value in tree.arguments)
        return replace(tree, arguments=given)
    path = expanded(tree.name)
    is_path = "/" in tree.name or path.suffix in FILES
    # Not resolved: what a link points to may have another ending, and the ending tells a filter from a subset.
    return replace(tree, name=absolute(tree.name, base)) if is_path else tree


def expanded(name: str) -> Path:
    """A name as a path, with `~` for its home; as it stands where there is no such home."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        return Path(name)


class _Token(NamedTuple):
    text: str
    at: int
    is_sign: bool


class _Parser:
    """Recursive descent over the text; `at` is the position of what comes next."""

    def __init__(self, text: str) -> None:
        self.text, self.at, self.operands = text, 0, 0

    def whole(self) -> Expression:
        tree = self._sum()
        rest = self._peek()
        if rest:
            self._fail(
                rest.at, "expected &, |, - or + here, or the end" if rest.text != ")" else "no ( belongs to this )"
            )
        return tree

    def _sum(self) -> Expression:
        tree = self._product()
        while (sign := self._peek()) and sign.is_sign and sign.text in LOOSE:
            self._take()
            tree = Combination(sign.text, tree, self._product())
        return tree

    def _product(self) -> Expression:
        tree = self._atom()
        while (sign := self._peek()) and sign.is_sign and sign.text == "&":
            self._take()
            tree = Combination("&", tree, self._atom())
        return tree

    def _atom(self) -> Expression:
        token = self._take()
        if not token.is_sign:
            self.operands += 1
            if self.operands > MOST_OPERANDS:
                self._fail(token.at, f"{MOST_OPERANDS} subsets are the most in one expression; --save a part of it")
            return Operand(token.text, tuple(self._arguments()), token.at)
        if token.text != "(":
            self._fail(
                token.at, f"expected a subset before {token.text!r}" if token.text else "a subset is missing here"
            )
        tree = self._sum()
        close = self._take()
        if close.text != ")" or not close.is_sign:
            self._fail(token.at, "this ( is never closed" if not close.text else f"expected ) before {close.text!r}")
        return tree

    def _arguments(self) -> Iterator[tuple[str, str]]:
        opening = self._peek()
        if not (opening and opening.is_sign and opening.text == "("):
            return
        self._take()
        seen: set[str] = set()
        while (token := self._take()).text != ")" or not token.is_sign:
            if token.is_sign or self._take().text != "=":
                self._fail(token.at, "expected name=value" if token.text else "this list of arguments is never closed")
            if token.text in seen:
                self._fail(token.at, f"{token.text} is given twice")
            seen.add(token.text)
            yield token.text, self._value()
            after = self._peek()
            if after and after.text == ",":
                self._take()
            elif not after or after.text != ")":
                self._fail(self.at, "expected , or ) here")

    def _value(self) -> str:
        number = NUMBER.match(self.text, self.at)
        if number:
            self.at = number.end()
            return number[1]
        token = self._take()
        if token.is_sign:
            self._fail(token.at, "expected a value: a number, a word, or text in quotes")
        return token.text

    def _peek(self) -> _Token | None:
        start = self.at
        token = self._take()
        self.at = start
        return token if token.text or not token.is_sign else None

    def _take(self) -> _Token:
        """The next token; an empty sign at the end."""
        match = TOKEN.match(self.text, self.at)
        if not match:
            at = len(self.text) - len(self.text[self.at :].lstrip())
            if at < len(self.text):
                self._fail(at, f"{self.text[at]!r} means nothing here; a path with such letters stands in quotes")
            return _Token("", at, True)
        self.at = match.end()
        kind = str(match.lastgroup)
        word = match[kind][1:-1] if kind == "quoted" else match[kind]
        return _Token(word, match.start(kind), kind == "sign")

    def _fail(self, at: int, problem: str) -> NoReturn:
        raise ExpressionError(self.text, at, problem)


def _quoted(text: str) -> str:
    if re.fullmatch(r"[\w./~]+|-?[\d.]+(e-?\d+)?", text):
        return text
    return f'"{text}"' if '"' not in text else f"'{text}'"
