"""A kind of training data, and all that a curation asks of it; none of it is asked anywhere else.

How its files are read is the form that the pool section of its catalog names (`tasks.pool.forms`); how it is trained,
the recipe that it opens. A further kind is one more of these, registered (`tasks.modality.registry.register`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

from torch import Tensor

from tasks.files.artefacts import digest, file_digest
from tasks.files.option_types import Section
from tasks.files.remote_files import Reader
from tasks.files.remotes import is_local
from tasks.files.sources import fingerprint
from tasks.modality.prepared import Prepared
from tasks.modality.recipe import Ids, Recipe, Scores


@dataclass(frozen=True)
class Baseline:
    """A filter that anyone could have used: scores (n,) of a recipe's samples, of which those of the lowest are taken.

    ``of_round_0``: it is told the parameters that round 0 ended with, else None.
    """

    scores: Callable[[Any, Tensor | None], Scores]
    of_round_0: bool = False


Grouping: TypeAlias = Callable[[Any, Tensor], Ids]
"""Numbers of groups (n,) of a recipe's samples, from 0, by the parameters that round 0 ended with."""


class Modality(ABC):
    """One kind of training data."""

    kinds: ClassVar[tuple[str, ...]]
    """Values of `model.kind` that mean it."""
    catalog: ClassVar[type[Section]]
    """What is said of it: a `BaseCatalog` where it can be curated."""
    packages: ClassVar[tuple[str, ...]] = ()
    """Packages that the bits of a run depend on, beside those of every run."""
    baselines: ClassVar[Mapping[str, Baseline]] = {}
    """By the names that they have in `comparison.subsets`."""
    groupings: ClassVar[Mapping[str, Grouping]] = {}
    """Groups of samples beside the pool's columns, by the names that they have in `descent.groups`."""

    @abstractmethod
    def open(self, run: Any) -> Recipe:
        """The recipe of a run directory."""

    def prepared(self, run: Any) -> list[Prepared]:
        """What is made of the run's pool, part by part, before its recipe is opened; opening makes what is not made."""
        return []

    def check(self, catalog: Any, home: Path) -> list[str]:
        """See that model and targets can be used, before there is a pool; returns what is to be told of them."""
        return []

    def model_identity(self, catalog: Any) -> dict[str, Any]:
        """What the model is a function of: what the catalog says, and what is in the files it names."""
        said: dict[str, Any] = catalog.model.model_dump(mode="json")
        return said | {key: _content(Path(said[key])) for key in catalog.model_places}

    def task_identity(self, catalog: Any, task: Any) -> str:
        """Digest of what is in a task's files: of local ones' bytes, of the stores' stamps of others."""
        reader = Reader(catalog.pool.remote)
        urls = catalog.pool.form.find(task.source, catalog.pool.remote).urls
        return digest([file_digest(Path(url)) if is_local(url) else fingerprint(url, reader) for url in urls])

    def measured_by(self, targets: Any) -> dict[str, Any]:
        """What the catalog says of all tests, and their results depend on."""
        return {}


def _content(place: Path) -> str:
    """Digest of a file's bytes, or of the names and bytes of a folder's files."""
    if place.is_file():
        return file_digest(place)
    return digest({path.name: file_digest(path) for path in sorted(place.iterdir()) if path.is_file()})
