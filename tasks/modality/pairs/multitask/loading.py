"""Targets read: one task in each role, or many together; no sample in two of target, held-out target and tests."""

from __future__ import annotations

import torch

from tasks.catalog.files import CatalogError
from tasks.catalog.pair_targets import TargetOptions, TaskSum, WeightedTaskOptions, metric_of
from tasks.catalog.roles import Roles
from tasks.catalog.target_options import Part, PartsOptions
from tasks.catalog.task_kinds import check_keys
from tasks.evaluation.eval_samples import Kind
from tasks.evaluation.eval_sets import is_eval_set, open_eval_set
from tasks.files.progress import say
from tasks.files.remote_files import Reader
from tasks.modality.pairs.leaks import apart
from tasks.modality.pairs.multitask.asked import Asked, AskedCaptions, AskedClasses, AskedLabels, ManyAsked
from tasks.modality.pairs.set_targets import class_sentences, part_samples, pictures_of
from tasks.modality.pairs.zero_shot import TaskData, load_task

Loaded = TaskData | ManyAsked
KINDS: tuple[Kind, ...] = ("classification", "retrieval", "multilabel")
"""Kinds of evaluation sets that may be one of many tasks."""


def load_targets(targets: TargetOptions, size: int, reader: Reader | None = None) -> Roles[Loaded]:
    """The target, the held-out target and the tests; whoever watches is told what was left out of them.

    Raises:
        CatalogError: a picture stands in two of target, held-out target and tests, and `on_leak` does not leave it out;
            or a task has nothing to ask.
    """
    loaded, told = load_told(targets, size, reader)
    for sentence in told:
        say(sentence)
    return loaded


def load_told(targets: TargetOptions, size: int, reader: Reader | None = None) -> tuple[Roles[Loaded], list[str]]:
    """The same, and a sentence on each task that lost some pictures."""
    check_keys(targets)

    def load(_: str, one: object) -> Loaded:
        if not isinstance(one, TaskSum):
            return load_task(one, size, targets.parts, reader)  # type: ignore[arg-type]
        tasks = {name: load_asked(task, one.part, size, targets.parts, reader) for name, task in one.tasks.items()}
        weights = {name: task.weight for name, task in one.tasks.items()}
        return ManyAsked(tasks, weights, targets.normalise == "start").checked()

    return apart(targets.roles.map(load), targets.on_leak)


def load_asked(
    options: WeightedTaskOptions, part: Part, size: int, parts: PartsOptions, reader: Reader | None = None
) -> Asked:
    """A task's part at ``size`` pixels.

    Raises:
        CatalogError: a split or column is not in the sheet, or a key is of no use to this kind of task.
        EvalSetError: the evaluation set cannot be used as it is.
    """
    at = options.at(part)
    kind = "classification"
    if is_eval_set(options.source):
        kind = open_eval_set(at.source, at.folder, reader, own_sentences=at.templates is not None).kind
    if kind == "classification":
        return AskedClasses.of(load_task(at, size, parts, reader), metric_of(at, options.metric))
    found, samples, told = part_samples(at, parts, KINDS, reader)
    if options.metric is not None:
        raise CatalogError(f"task on {options.source}: `metric` is of no use to a {kind} set; remove it")
    images, digests = pictures_of(samples, size)
    known = torch.from_numpy(images), digests, [sample.place for sample in samples], told
    if kind == "retrieval":
        captions = [list(sample.captions)[: options.max_texts] for sample in samples]
        return AskedCaptions(*known, captions)
    truth = torch.stack([torch.from_numpy(sample.vector).bool() for sample in samples if sample.vector is not None])
    return AskedLabels(*known, truth, class_sentences(found, at))
