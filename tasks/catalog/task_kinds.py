"""The two kinds of zero-shot tasks, splits of sheets and parts of evaluation sets, and the keys that each has use for.

A key that was given and does nothing is refused: whoever gave it expects something of it.
"""

from __future__ import annotations

from tasks.catalog.files import CatalogError
from tasks.catalog.pair_targets import TargetOptions
from tasks.catalog.target_options import ALL, PartsOptions, TaskOptions
from tasks.evaluation.eval_sets import is_eval_set

FOR_SHEETS = {
    "classes": "its classes are the lines of classnames.txt",
    "texts": "sentences around its class names are `templates`",
    "texts_splits": "what is read of it is `split`, in `folder`",
}
FOR_SETS = {"folder": "what is read of it is `split`", "max_images": "all images of `split` are taken"}
"""Keys that only one kind of task has a use for, and what the other has instead."""


def check_use(options: TaskOptions) -> None:
    """See that a task has no key that its kind of data has no use for.

    Raises:
        CatalogError: it has; names the keys that are of use.
    """
    kind, idle, others = "a sheet", FOR_SETS, FOR_SHEETS
    if is_eval_set(options.source):
        kind, idle, others = "an evaluation set", FOR_SHEETS, FOR_SETS
    found = options.idle(tuple(idle))
    if kind == "an evaluation set" and options.templates is not None and options.idle(("max_texts",)):
        raise CatalogError(
            f"task on split '{options.split}' of {options.source}: `max_texts` chooses among a set's own "
            "sentences; with `templates` all of those are taken, so remove one of the two"
        )
    if found:
        why = "; ".join(f"`{name}` is of no use to {kind}: {idle[name]}" for name in found)
        raise CatalogError(
            f"task on split '{options.split}' of {options.source}: {why}. Of use there: source, split, "
            f"{', '.join(others)}, templates, max_texts"
        )


def check_keys(targets: TargetOptions) -> None:
    """See that every key that was given has a use, before anything is read."""
    tasks = [task for _, _, task in targets.each if isinstance(task, TaskOptions)]
    for task in tasks:
        check_use(task)
    parted = any(is_eval_set(task.source) and task.split != ALL for task in tasks)
    if targets.parts != PartsOptions() and not parted:
        raise CatalogError("targets.parts is of no use: no task is a part of an evaluation set")
