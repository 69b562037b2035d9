"""The targets of a catalog of pairs: what the descent lowers, what chooses the round, and what only the report sees.

One task in each role, or many (`[targets.tasks.NAME]`), of which each has a part in every role; phi is then the sum of
their losses, each times its weight and in units of what it was after round 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from tasks.catalog.evaluation_folder import tasks_below
from tasks.catalog.files import CatalogError
from tasks.catalog.roles import Name, Roles, TestName
from tasks.catalog.target_options import Part, PartsOptions, TaskOptions, ZeroShotSection
from tasks.catalog.target_sections import TargetsSection, TaskSection
from tasks.evaluation.datacomp import GROUPS, Task, name_of, resolved, task_key
from tasks.evaluation.datacomp import tasks as datacomp_tasks
from tasks.files.local_files import absolute
from tasks.files.option_types import Distinct, Filled, Place, Positive, Whole

TaskMetric = Literal["acc1", "mean_per_class_recall"]
MOST_ALONE = 8
"""Tasks of which each is swept by itself where the catalog names no groups; of more, DataComp's go by its groups."""
OTHERS = "other"
"""DataComp's tasks of no group."""
FOR_MANY = ("normalise", "per_task", "groups", "evaluation_images")
"""Keys that only many tasks have a use for."""


class WeightedTaskOptions(ZeroShotSection):
    """One of many tasks: a sheet, or an evaluation set in clip_benchmark's form, of which a part is lowered, a part
    chooses the round and a part is tested on. The loss is that of what is asked: cross-entropy of classes; of a
    retrieval set InfoNCE over its pictures and captions; of a multilabel set the mean of its classes' losses."""

    source: Place
    """Directory of a sheet; or path or URL of a set (`NAME/test/0.tar`, ...)."""
    weight: Positive = 1.0
    """What its loss counts for in the sum."""
    metric: TaskMetric | None = None
    """What a classification is measured by, and with it the loss: the mean over pictures, or over classes. None: what
    DataComp measures the set by; else `acc1`."""
    target: str = "target"
    """Split of a sheet, or part of a set, that the descent lowers. A set is parted by a keyed hash (`targets.parts`)
    into target, heldout and test."""
    heldout: str = "heldout"
    """The one that chooses the round."""
    test: str = "test"
    """The one that only the comparison sees; empty: none. A test of the task's name in `targets.tests` takes its
    place."""

    def at(self, part: Part) -> TaskOptions:
        """The task on its split for a part."""
        shared = {name: getattr(self, name) for name in ZeroShotSection.model_fields}
        return TaskOptions.model_construct(**shared, split=getattr(self, part))


@dataclass(frozen=True)
class TaskSum:
    """Tasks that are lowered, or chosen by, or tested on, together: their parts of one role."""

    part: Part
    tasks: dict[str, WeightedTaskOptions]

    def __iter__(self) -> Iterator[tuple[str, TaskOptions]]:
        """Name and part of each."""
        for name, task in self.tasks.items():
            yield name, task.at(self.part)


class TargetOptions(TargetsSection):
    """What the descent lowers, what chooses the round, and what only the report sees: one task each, `target`,
    `heldout` and `tests`; or `tasks`, each with a part of its own in every role."""

    target: TaskOptions | None = None
    heldout: TaskOptions | None = None
    tasks: dict[TestName, WeightedTaskOptions] = Field(default_factory=dict)
    """Many tasks, by name."""
    tests: dict[TestName, TaskOptions] = Field(default_factory=dict)
    evaluation_sets: Place | None = None
    """Folder, or URL of one, of sets called `wds_<task>_test`, as DataComp's download_evalsets.py leaves them: all of
    DataComp's tasks that lie there are tasks, beside those that are named. A set with a folder `train` is lowered and
    chosen by there and tested on its `test`; of the others `test` is parted. What is missing is told beforehand."""
    evaluation_images: Whole | None = None
    """Pictures taken of each part of such a set at most; None: all."""
    temperature: Literal["best", "model"] | Positive = "best"
    """Temperature of the target loss: the one that minimises it (of many tasks, of each its own), the model's own, or a
    number."""
    parts: PartsOptions = PartsOptions()
    """How evaluation sets are parted between target, held-out target and tests."""
    on_leak: Literal["refuse", "leave out"] = "refuse"
    """What happens to a picture of the held-out target or a test that is also in the target, or chooses the round: the
    catalog is refused, or the picture left out there."""
    normalise: Literal["start", "none"] = "start"
    """Of many tasks: `start`, each loss is divided by what it is after round 0 on the target's part, so that none rules
    by its scale; `none`, nats are added."""
    per_task: Literal["chosen", "every", "none"] = "chosen"
    """Rounds of which g is told task by task too, of many tasks: the chosen one, every one, none. It costs a training
    and a reverse sweep with a cotangent for each (`mgd plan` says how much), and changes no round."""
    groups: dict[Name, Annotated[tuple[str, ...], Filled, Distinct]] = Field(default_factory=dict)
    """Tasks whose g is told together, by a name for each group; the others stand alone. None named: each alone, but of
    more than 8 tasks DataComp's go by its groups."""

    @property
    def many(self) -> bool:
        """Whether there are tasks of which the target is a sum."""
        return bool(self.tasks) or self.evaluation_sets is not None

    @property
    def roles(self) -> Roles[Any]:
        """The tasks by their roles; many together in one."""
        if not self.many:
            return Roles(self.target, self.heldout, dict(self.tests))
        own = {name: TaskSum("test", {name: task}) for name, task in self.tasks.items() if task.test}
        tasks = dict(sorted(self.tasks.items()))  # sums are taken in an order that no edit of the catalog changes
        return Roles(TaskSum("target", tasks), TaskSum("heldout", tasks), {**own, **self.tests})

    @property
    def each(self) -> Iterator[tuple[str, str, TaskSection]]:
        """Role, name and options of every task by itself."""
        for role, name, one in self.roles:
            if isinstance(one, TaskSum):
                for task, options in one:
                    yield role, name if role == "tests" else f"{role} of {task}", options
            elif one is not None:
                yield role, name, one

    def tested(self, name: str) -> tuple[TaskSection, dict[str, Any]]:
        """A test's options, and what they say of it but for where it lies."""
        if name in self.tests:
            return super().tested(name)
        at, metric = self.tasks[name].at("test"), metric_of(self.tasks[name].at("test"), self.tasks[name].metric)
        return at, {**at.model_dump(mode="json", exclude={"source"}), "metric": metric}

    @property
    def told_by(self) -> dict[str, tuple[str, ...]]:
        """What g is told by, task by task or group by group: a name, and the tasks of it; in the order of the names."""
        groups = self.groups or (_groups_of_datacomp(self.tasks) if len(self.tasks) > MOST_ALONE else {})
        grouped = {task for tasks in groups.values() for task in tasks}
        alone = {name: (name,) for name in self.tasks if name not in grouped}
        return dict(sorted({**groups, **alone}.items()))

    def resolved(self, base: Path) -> Self:
        """The same with sources made absolute, relative ones being below ``base``."""
        if not self.many:
            return super().resolved(base)

        def moved(task: Any) -> Any:
            return task.model_copy(update={"source": absolute(task.source, base)})

        tasks, tests = ({name: moved(one) for name, one in given.items()} for given in (self.tasks, self.tests))
        made = self.model_copy(update={"tasks": tasks, "tests": tests})
        return made if self.evaluation_sets is None else made._with_sets(absolute(self.evaluation_sets, base))

    def _with_sets(self, folder: str) -> Self:
        """The same with the tasks below a folder; without any where it is not there, which `check_sources` tells."""
        made = self.model_copy(update={"evaluation_sets": folder})
        if "://" not in folder and not Path(folder).exists():
            return made
        tasks, tests = tasks_below(folder).sections(self.evaluation_images)
        own = {name: WeightedTaskOptions.model_validate(said) for name, said in tasks.items()}
        others = {name: TaskOptions.model_validate(said) for name, said in tests.items() if name not in self.tasks}
        made = made.model_copy(update={"tasks": {**own, **self.tasks}, "tests": {**others, **self.tests}})
        try:
            made._check_groups()
        except ValueError as error:
            raise CatalogError(f"targets.{error}") from None
        return made

    def places(self) -> list[tuple[str, str]]:
        """The folder of all sets first, if there is one."""
        folder = [] if self.evaluation_sets is None else [("targets.evaluation_sets", self.evaluation_sets)]
        return [*folder, *super().places()]

    @model_validator(mode="after")
    def _one_task_or_many(self) -> Self:
        if not self.many:
            missing = [role for role in ("target", "heldout", "tests") if not getattr(self, role)]
            if missing:
                raise ValueError(
                    f"{' and '.join(missing)} not named: one task in each role, [targets.target], [targets.heldout] "
                    "and [targets.tests.NAME]; or many, [targets.tasks.NAME]"
                )
            idle = [key for key in FOR_MANY if key in self.model_fields_set]
            if idle:
                raise ValueError(f"'{idle[0]}' is of use to many tasks only, [targets.tasks.NAME]; remove it")
            return self
        if self.evaluation_images is not None and self.evaluation_sets is None:
            raise ValueError("'evaluation_images' is of the sets below evaluation_sets; name that, or remove it")
        if self.target or self.heldout:
            raise ValueError(
                "a target or held-out target beside tasks: every task has a part in both. Name it as one more task"
            )
        if not self.roles.tests and self.evaluation_sets is None:
            raise ValueError("no task has a test (`test` is empty), and there is no other in targets.tests; name one")
        return self

    @model_validator(mode="after")
    def _groups_are_of_tasks(self) -> Self:
        if self.evaluation_sets is None:  # else not before its sets are known
            self._check_groups()
        return self

    def _check_groups(self) -> None:
        seen: dict[str, str] = {}
        for group, tasks in self.groups.items():
            for task in tasks:
                if task not in self.tasks:
                    raise ValueError(f"groups.{group}: no task '{task}'; there are {', '.join(self.tasks)}")
                if task in seen:
                    raise ValueError(f"groups.{group}: task '{task}' is in {seen[task]} already; it is in one at most")
                seen[task] = group
        alone = [name for name in self.groups if name in self.tasks and name not in self.groups[name]]
        if alone:
            raise ValueError(
                f"groups.{alone[0]}: a task that is not in it has this name; call the group something else"
            )

    @model_serializer(mode="wrap")
    def _as_before_there_were_many(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Runs are known by what their catalog says: one of a single task is known as it always was."""
        said: dict[str, Any] = dump(self)
        without = {"target", "heldout"} if self.many else {"tasks", *FOR_MANY}
        without |= {"evaluation_sets", "evaluation_images"} if self.tasks or not self.many else set()
        return {key: value for key, value in said.items() if key not in without}


def metric_of(options: TaskOptions, given: TaskMetric | None) -> TaskMetric:
    """What a classification is measured by: what the catalog says, or DataComp of the set; `acc1`."""
    known = _task_of_datacomp(options.source)
    by_class = known is not None and known.metric in ("mean_per_class_recall", "F1-macro_all")
    return given or ("mean_per_class_recall" if by_class else "acc1")


def _groups_of_datacomp(tasks: dict[str, WeightedTaskOptions]) -> dict[str, tuple[str, ...]]:
    """DataComp's tasks among ``tasks`` by its groups."""
    known = {name: _task_of_datacomp(one.source) for name, one in tasks.items()}
    titles = {name: GROUPS.get(one.group, OTHERS) for name, one in known.items() if one is not None}
    found = {title: tuple(name for name in titles if titles[name] == title) for title in dict.fromkeys(titles.values())}
    return {f"{title} (DataComp)" if title in tasks else title: own for title, own in found.items()}


def _task_of_datacomp(source: str) -> Task | None:
    """The task that a folder's name stands for, if it is one of DataComp's."""
    return datacomp_tasks().get(task_key(name_of(resolved(source))))
