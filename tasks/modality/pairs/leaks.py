"""Leaks: a picture that stands in two of target, held-out target and tests, however its files differ.

What is tested on must neither be lowered nor chosen by. Pictures are known by their decoded pixels (`decoding`), so the
same one is found in a sheet and in a set, as PNG and as lossless WebP; one that was scaled or compressed anew counts as
another. Tests may share pictures with each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, Self, TypeVar

from tasks.catalog.files import CatalogError
from tasks.catalog.roles import Roles

OnLeak = Literal["refuse", "leave out"]


class Pictured(Protocol):
    """The pictures of a task: what each is known by, and where it lies (file and member)."""

    @property
    def identities(self) -> list[str]: ...  # noqa: D102
    @property
    def places(self) -> list[str]: ...  # noqa: D102
    def only(self, kept: Sequence[int]) -> Self:
        """The same task with these of its pictures."""


T = TypeVar("T", bound=Pictured)


@dataclass(frozen=True)
class Leak:
    """Pictures of task ``name`` (positions among its own) that are ``others`` too, of those tasks, by place."""

    name: str
    pictures: tuple[int, ...]
    places: tuple[str, ...]
    others: tuple[tuple[str, str], ...]

    def told(self, total: int) -> str:
        """What leaked, with an example by both of its places."""
        owners = " and ".join(sorted({name for name, _ in self.others}))
        return (
            f"{len(self.pictures)} of the {total} samples of '{self.name}' are also in {owners}, for instance "
            f"{self.places[0]}, which is {self.others[0][1]}"
        )


def find_leaks(roles: Roles[T]) -> list[Leak]:
    """The leaks of held-out target and tests, at most one a task."""
    owner: dict[str, tuple[str, str, str]] = {}
    found = []
    for role, name, task in roles:
        seen = [
            owner.setdefault(one, (role, name, place)) for one, place in zip(task.identities, task.places, strict=True)
        ]
        at = tuple(i for i, (first, _, _) in enumerate(seen) if first != role)
        if at:
            others = tuple((seen[i][1], seen[i][2]) for i in at)
            found.append(Leak(name, at, tuple(task.places[i] for i in at), others))
    return found


def apart(roles: Roles[T], on_leak: OnLeak) -> tuple[Roles[T], list[str]]:
    """The roles without a picture in two of them, and a sentence on each task that lost some.

    Raises:
        CatalogError: there are such pictures and they may not be left out, or nothing would remain.
    """
    leaks = {leak.name: leak for leak in find_leaks(roles)}
    totals = {name: len(task.identities) for _, name, task in roles}
    for name, leak in leaks.items():
        if on_leak == "refuse":
            raise CatalogError(
                f"{leak.told(totals[name])}: what is tested on must be apart. Take parts of the same folders (equal "
                "pictures are in one part there), or other splits, or take them from "
                f"'{name}' by targets.on_leak = \"leave out\""
            )
        if len(leak.pictures) == totals[name]:
            raise CatalogError(f"{leak.told(totals[name])}: when they are left out nothing of '{name}' remains")

    def without(name: str, task: T) -> T:
        gone = set(leaks[name].pictures) if name in leaks else set()
        return task.only([i for i in range(len(task.identities)) if i not in gone]) if gone else task

    told = [f"{leak.told(totals[name])}; left out of '{name}'" for name, leak in leaks.items()]
    return roles.map(without), told
