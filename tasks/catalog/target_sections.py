"""What the targets of every catalog have in common: tasks in their roles, none of which may be tested on itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import model_validator

from tasks.catalog.roles import Roles
from tasks.files.local_files import absolute
from tasks.files.option_types import Place, Section


class TaskSection(Section):
    """A task: what is asked lies in files."""

    source: Place
    """Where it lies; relative to the catalog file."""

    def clash(self, other: Self) -> str:
        """What both share, if one may not be lowered or chosen by and the other tested on; empty if nothing."""
        same = f"are both {self.source}: what the descent lowers or chooses by would be tested on itself. Name another"
        return f"{same} file" if self.source == other.source else ""


class TargetsSection(Section):
    """What the descent lowers, what chooses the round, and what only the report sees."""

    if TYPE_CHECKING:  # of each kind of data its own tasks
        target: Any
        heldout: Any
        tests: dict[str, Any]
        tasks: dict[str, Any]
        normalise: str
        per_task: str

    @property
    def roles(self) -> Roles[Any]:
        """The tasks by their roles."""
        return Roles(self.target, self.heldout, self.tests)

    @property
    def each(self) -> Iterator[tuple[str, str, TaskSection]]:
        """Role, name and options of every task by itself."""
        yield from self.roles

    def places(self) -> list[tuple[str, str]]:
        """(key, place) of everything that they are read from."""
        return [(f"source of '{name}'", task.source) for _, name, task in self.each]

    def tested(self, name: str) -> tuple[TaskSection, dict[str, Any]]:
        """A test's options, and what they say of it but for where it lies."""
        return self.tests[name], self.tests[name].model_dump(mode="json", exclude={"source"})

    @property
    def many(self) -> bool:
        """Whether there are tasks of which the target is a sum."""
        return False

    @property
    def told_by(self) -> dict[str, tuple[str, ...]]:
        """What g is told by: names of groups, and the tasks of each; none where there are not many."""
        return {}

    def resolved(self, base: Path) -> Self:
        """The same with sources made absolute, relative ones being below ``base``."""
        moved = self.roles.map(lambda _, task: task.model_copy(update={"source": absolute(task.source, base)}))
        return self.model_copy(update={"target": moved.target, "heldout": moved.heldout, "tests": moved.tests})

    @model_validator(mode="after")
    def _roles_are_apart(self) -> Self:
        seen: list[tuple[str, str, Any]] = []
        for role, name, task in self.each:
            called = f"tests.{name}" if role == "tests" else name
            for other, first, before in seen:
                shared = task.clash(before) if other != role else ""
                if shared:
                    raise ValueError(f"{first} and {called} {shared}")
            seen.append((role, called, task))
        return self
