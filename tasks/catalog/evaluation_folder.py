"""DataComp's tasks as targets: those of its list whose evaluation sets lie below one folder.

A set with a folder `train` is lowered and chosen by there, and tested on its `test`; of one without, which is what
DataComp's downloader leaves, `test` is parted by the hash, and what is lowered is no more to be tested on. Sets that no
descent can lower (WinoGAViL's associations), tasks that have no set there, and sets that are parted so, are told.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from tasks.catalog.target_options import ALL
from tasks.evaluation.datacomp import tasks
from tasks.evaluation.eval_sets import find_eval_sets, folder_names, name_of, open_eval_set, resolved

Said = dict[str, object]
"""Keys of a section, and what they say."""
LOWERED = ("classification", "retrieval", "multilabel")
"""Kinds of sets that can be targets."""
TRAIN = "train"


@dataclass(frozen=True)
class EvaluationFolder:
    """DataComp's tasks below a folder, by the names under which it lists them: addresses of their sets, those with a
    training part first; ``told``: sentences on what is there and what is not."""

    trained: dict[str, str]
    parted: dict[str, str]
    told: tuple[str, ...]

    def sections(self, most: int | None) -> tuple[dict[str, Said], dict[str, Said]]:
        """What a catalog would say of them, in `targets.tasks` and `targets.tests`, with ``most`` pictures a part."""
        shared: Said = {} if most is None else {"max_images": most}
        own: dict[str, Said] = {}
        for name, url in self.trained.items():
            own[name] = {"source": url, "folder": TRAIN, "test": "", **shared}
        for name, url in self.parted.items():
            own[name] = {"source": url, **shared}
        tests: dict[str, Said] = {name: {"source": url, "split": ALL, **shared} for name, url in self.trained.items()}
        return own, tests


@lru_cache(maxsize=8)
def tasks_below(url: str) -> EvaluationFolder:
    """The tasks of DataComp that have a set in a folder.

    Raises:
        EvalSetError: there is no set at all, or one of them cannot be used as it is.
    """
    counted = {key: task.name for key, task in tasks().items() if task.metric}
    trained, parted, others = dict[str, str](), dict[str, str](), list[str]()
    for one in find_eval_sets(url):
        name = counted.get(folder_names().get(name_of(resolved(one)), ""))
        if name is None:
            continue
        found = open_eval_set(one)
        if found.kind not in LOWERED:
            others.append(f"{name} ({found.kind})")
        else:
            (trained if TRAIN in found.unread else parted)[name] = one
    there = {*trained, *parted}
    missing = [name for name in counted.values() if name not in there and not any(o.startswith(name) for o in others)]
    told = [f"{len(there)} of DataComp's {len(counted)} tasks are targets, from {url}: {', '.join(sorted(there))}"]
    told += [f"without a set there, and so no target: {', '.join(missing)}"] if missing else []
    told += [f"evaluated, but no target of a descent: {', '.join(others)}"] if others else []
    if parted:
        told.append(
            f"without a folder `{TRAIN}`, so that a part of the test pictures is lowered and their official scores are "
            f"no longer of unseen pictures: {', '.join(parted)}"
        )
    return EvaluationFolder(trained, parted, tuple(told))
