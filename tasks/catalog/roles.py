"""The roles of tasks: what the descent lowers, what chooses the round, and the tests, each in a place of its own.

A test's name is the user's. It stands in a mapping of tests and nowhere else, so that no name, whatever it is, can take
the place of the target or of the held-out target.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Generic, TypeVar

from pydantic import AfterValidator

T = TypeVar("T")
U = TypeVar("U")

LONGEST = 100
"""Characters of a name at most: it stands in tables, pages and, beside other words, in names of files."""
OURS = {"target", "heldout"}


@dataclass(frozen=True)
class Roles(Generic[T]):
    """One thing for each task of a catalog."""

    target: T
    heldout: T
    tests: dict[str, T]

    def map(self, make: Callable[[str, T], U]) -> Roles[U]:
        """The same roles, each with what ``make`` gives for its name and thing."""
        target, heldout = make("target", self.target), make("heldout", self.heldout)
        return Roles(target, heldout, {name: make(name, one) for name, one in self.tests.items()})

    def __iter__(self) -> Iterator[tuple[str, str, T]]:
        """Role (target, heldout, tests), name and thing of each; a name alone does not tell which."""
        yield "target", "target", self.target
        yield "heldout", "heldout", self.heldout
        for name, one in self.tests.items():
            yield "tests", name, one


def fit_name(name: str) -> str:
    """A name that a user gives to something of a catalog; raises ValueError where it cannot be one."""
    if not name or len(name) > LONGEST:
        raise ValueError(f"a name has 1 to {LONGEST} characters, this one {len(name)}")
    if not name.isprintable() or name != name.strip() or name.startswith(".") or set(name) & set("/\\"):
        raise ValueError(
            "a name is of printable characters, without slashes, dots or blanks at its beginning, or blanks at its end"
        )
    return name


def _fit_test(name: str) -> str:
    if name.casefold().translate(str.maketrans("", "", " _-")) in OURS:
        raise ValueError("this is what the descent lowers or chooses by, not a test: call the test something else")
    return fit_name(name)


Name = Annotated[str, AfterValidator(fit_name)]
TestName = Annotated[str, AfterValidator(_fit_test)]
