"""A kind of training data, and all that a curation asks of it; none of it is asked anywhere else.

How its files are read is the form that the pool section of its catalog names (`tasks.pool.forms`); how it is trained,
the recipe that it opens. A further kind is one more of these, registered (`tasks.modality.registry.register`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from torch import Tensor

from mgd_core.errors import UserError
from tasks.files.artefacts import digest, file_digest
from tasks.files.option_types import Section
from tasks.files.remote_files import Reader
from tasks.files.remotes import is_local
from tasks.files.sources import fingerprint
from tasks.modality.prepared import Prepared
from tasks.modality.recipe import Ids, Recipe, Scores
from tasks.pool.record import PoolRecord

Vectors = npt.NDArray[np.float32]
States = Mapping[str, Tensor]
"""Parameters (P,) of models that one training went through, by what they are called; the first is its last."""


class Seen(NamedTuple):
    """What trained models see of m samples: unit ``vectors`` (m, d) by the first of them, where there are two those of
    a pair's sides, and ``numbers`` (m,) by each, such as losses."""

    vectors: tuple[Vectors, ...] = ()
    numbers: Mapping[str, Scores] = {}


class Sight(Protocol):
    """Models apart from the run that trained them, with all it takes to show them samples of any pool."""

    def prepared(self, pool: PoolRecord) -> list[Prepared]:
        """What is made of a pool before it is looked at."""

    def of(self, pool: PoolRecord, ids: Ids) -> Seen:
        """What they see of a pool's samples, by positions; each sample is seen as if alone."""

    def packed(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors, and what else it takes (JSON), of which `Modality.unpacked` makes the same again."""


class Unusable(UserError, ValueError):
    """Models that cannot be taken out of their run; says why, and what to do."""


@dataclass(frozen=True)
class Baseline:
    """A filter that anyone could have used: scores (n,) of a recipe's samples, of which those of the lowest are taken.

    ``by_model``: it is told the parameters of the model that judges, round 0's in the comparison; else None.
    """

    scores: Callable[[Any, Tensor | None], Scores]
    by_model: bool = False


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

    def seen(self, recipe: Any, states: States) -> Seen:
        """What models of a run see of its pool, kept in the run; nothing, where a kind does not say."""
        return Seen()

    def sight(self, recipe: Any, states: States) -> Sight:
        """The same models, to be shown other pools.

        Raises:
            Unusable: a kind does not say how.
        """
        raise Unusable(
            f"run {recipe.run.id}: its models cannot be taken to other pools, only those of image-text pairs can; "
            "distil a scorer of the pool's own columns (--features cheap)"
        )

    def forget(self, recipe: Any, theta: Tensor) -> None:
        """Remove what a run keeps of its pool as the model with parameters ``theta`` (P,) sees it, where that is much;
        it is computed again for who asks. Nothing, where a kind does not say."""
        del recipe, theta

    def unpacked(self, tensors: Mapping[str, Tensor], described: Mapping[str, Any]) -> Sight:
        """What `Sight.packed` gave, opened; for kinds that have a sight."""
        raise NotImplementedError

    def measured_by(self, targets: Any) -> dict[str, Any]:
        """What the catalog says of all tests, and their results depend on."""
        return {}


def _content(place: Path) -> str:
    """Digest of a file's bytes, or of the names and bytes of a folder's files."""
    if place.is_file():
        return file_digest(place)
    return digest({path.name: file_digest(path) for path in sorted(place.iterdir()) if path.is_file()})
