"""The catalog: one TOML file that says everything about a curation.

Every option is a field with its unit and meaning; unknown keys are refused with the nearest valid one. A catalog is
read once, checked before any work, and copied into the run with its digest.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from tasks.catalog.files import CatalogError, find_file, read_file, read_toml
from tasks.catalog.recipe_options import (
    DescentOptions,
    LearnerOptions,
    RuntimeOptions,
    SourceOptions,
    TrialOptions,
    with_absolute_sources,
)
from tasks.catalog.smoothness_options import SmoothnessOptions
from tasks.catalog.target_options import TargetOptions
from tasks.files.local_files import MAGIC, absolute, literal_prefix
from tasks.files.option_types import Place, Section, Whole
from tasks.files.package_data import CATALOGS
from tasks.files.source_patterns import each_source
from tasks.pool.census_kinds import CensusOptions
from tasks.subset.expressions import parse, rebased

__all__ = ["BaseCatalog", "Catalog", "CatalogError", "check_sources", "find_catalog", "load_catalog"]


class PoolOptions(SourceOptions):
    """Where the candidate pairs come from: a sheet directory, or WebDataset tars."""

    shard_size: Whole = 1000
    """Pairs in each tar that is written (a pool that already is tars keeps its own)."""
    metadata: Place | tuple[Place, ...] | None = None
    """DataComp's metadata Parquet (directory, glob, URLs), joined by uid; not named: the folder `metadata` beside a
    folder `shards`, if there is one; an empty list: none."""

    def resolved(self, base: Path) -> Self:
        """The same with sources and metadata made absolute."""
        named, moved = self.metadata, super().resolved(base)
        if named is None:
            return moved
        metadata = absolute(named, base) if isinstance(named, str) else tuple(absolute(s, base) for s in named)
        return moved.model_copy(update={"metadata": metadata})


class ModelOptions(Section):
    """The CLIP that is trained."""

    kind: Literal["clip"] = "clip"
    """A CLIP of open_clip; `causal_lm` makes the catalog one of texts."""
    config: Place
    """open_clip model config (JSON); relative to the catalog file. Its vocabulary may be larger than `vocabulary`."""
    vocabulary: Literal["used", "full"] = "used"
    """`used`: only the tokens that occur in pool and tasks get an embedding; `full`: open_clip's 49,408."""


class ComparisonOptions(TrialOptions):
    """Rivals of a subset of pairs."""

    subsets: tuple[Literal["everything", "mgd", "random", "loss_filter", "own_clip_filter", "oracle"], ...] = (
        "everything",
        "random",
        "loss_filter",
        "own_clip_filter",
        "mgd",
    )
    """`loss_filter`: lowest loss, `own_clip_filter`: highest cosine of picture and caption, both by the model that
    round 0 trained, not by scores that the pool brought along (for these see `rivals`); `oracle`: what the truth calls
    right."""


class BaseCatalog(Section):
    """One curation, whatever is trained: what `Catalog` (pairs, a CLIP) and `TextCatalog` have in common."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=100)]
    """What runs are called: small letters, digits, - and _."""
    description: str = ""
    """A sentence for reports; changes nothing."""
    pool: SourceOptions
    learner: LearnerOptions
    descent: DescentOptions
    comparison: TrialOptions
    smoothness: SmoothnessOptions = SmoothnessOptions()
    """How smooth the recipe has to be: `bar`; how that is measured, and the `menu` of an ablation."""
    runtime: RuntimeOptions = RuntimeOptions()

    @model_validator(mode="after")
    def _window_lies_in_training(self) -> Self:
        steps, first = self.learner.steps, self.descent.window_start
        if first >= steps:
            raise ValueError(f"descent.window_start = {first} lies behind the training, whose last step is {steps - 1}")
        outside = [k for k in self.descent.probe_steps if not first <= k < steps]
        if outside:
            raise ValueError(
                f"descent.probe_steps {outside} lie outside the differentiated window, steps {first} to {steps - 1} "
                "(descent.window_start to learner.steps)"
            )
        if (self.descent.disk_states or 0) > steps - first:
            raise ValueError(f"disk_states = {self.descent.disk_states}: the window has {steps - first} states only")
        return self

    @model_validator(mode="after")
    def _menu_fits(self) -> Self:
        menu, steps = self.smoothness.menu, self.learner.steps
        late = [k for k in menu.window_start if k >= steps]
        if late or max(menu.warmup, default=0) > steps:
            raise ValueError(
                f"smoothness.menu: window_start {late or ''} or warmup {list(menu.warmup)} go beyond the training's "
                f"{steps} steps"
            )
        if menu.eps_root and self.learner.optimizer != "adam":
            raise ValueError(f"smoothness.menu.eps_root: '{self.learner.optimizer}' has none; remove it")
        largest, window = max(menu.batch, default=0), self.learner.window
        if window is not None and largest > window:
            raise ValueError(f"smoothness.menu.batch: {largest} is more than learner.window ({window}) holds")
        return self

    @property
    def tests(self) -> tuple[str, ...]:
        """Names of the test tasks."""
        raise NotImplementedError

    def places(self) -> list[tuple[str, str]]:
        """(key, place) of everything that the catalog takes from elsewhere."""
        return [
            ("pool.source", s) for s in ([self.pool.source] if isinstance(self.pool.source, str) else self.pool.source)
        ]

    def resolved(self, base: Path) -> Self:
        """The same catalog with paths made absolute, relative ones being below ``base``."""
        start = self.descent.start
        descent = self.descent.model_copy(update={"start": start and str(rebased(parse(start), base))})
        trials: dict[str, Any] = {
            "rivals": {name: str(rebased(parse(text), base)) for name, text in self.comparison.rivals.items()}
        }
        if not descent.rounds and "subsets" not in self.comparison.model_fields_set:
            # Nothing was chosen that others would have to be of the size of.
            trials["subsets"] = ("everything", "mgd") if start else ("everything",)
        comparison = self.comparison.model_copy(update=trials)
        return self.model_copy(update={"pool": self.pool.resolved(base), "descent": descent, "comparison": comparison})


class Catalog(BaseCatalog):
    """A curation of image-text pairs for a CLIP."""

    pool: PoolOptions
    targets: TargetOptions
    model: ModelOptions
    comparison: ComparisonOptions = ComparisonOptions()
    census: CensusOptions = CensusOptions()
    """What `mgd census` may find, kind by kind: `limits`."""

    @property
    def tests(self) -> tuple[str, ...]:
        """Names of the test tasks."""
        return tuple(self.targets.tests)

    def places(self) -> list[tuple[str, str]]:
        """Sources of the pool and the targets, and the model's config."""
        named = [(f"source of '{name}'", task.source) for _, name, task in self.targets.roles]
        return [*super().places(), *named, ("model.config", self.model.config)]

    def resolved(self, base: Path) -> Self:
        """The same catalog with paths made absolute."""
        model = self.model.model_copy(update={"config": absolute(self.model.config, base)})
        targets = with_absolute_sources(self.targets, base)
        return super().resolved(base).model_copy(update={"targets": targets, "model": model})


def find_catalog(name: str) -> Path:
    """Path of a catalog given as a file, or by the name of one that travels with the package.

    Raises:
        CatalogError: no such file or name; lists the names there are.
    """
    return find_file("catalog", name, CATALOGS)


def load_catalog(path: Path) -> BaseCatalog:
    """Read and check a catalog of either kind; source paths in it become absolute.

    Raises:
        CatalogError: with every problem found: file, key, value, and the nearest valid key for a typo.
    """
    return read_file(path, kind_of(read_toml(path).get("model"))).resolved(path.parent)


def load_pair_catalog(path: Path, command: str) -> Catalog:
    """Read and check a catalog of image-text pairs; ``command`` is what takes no other.

    Raises:
        CatalogError: as for ``load_catalog``, or it is one of texts.
    """
    catalog = load_catalog(path)
    if not isinstance(catalog, Catalog):
        raise CatalogError(f"{path}: {command} works on image-text pairs and CLIPs; this catalog trains on texts")
    return catalog


def kind_of(model: Any) -> type[BaseCatalog]:
    """The class of a catalog, by its section `model` as it was read: `kind` tells."""
    from tasks.catalog.text_catalog import TextCatalog  # which builds on this module

    return TextCatalog if isinstance(model, dict) and model.get("kind") == "causal_lm" else Catalog


def check_sources(catalog: BaseCatalog) -> None:
    """See that the local files a catalog names are there, before any work.

    Raises:
        CatalogError: naming the first that is missing, and how to get it if the catalog says so.
    """
    for key, place in catalog.places():
        for one in each_source(place):
            if "://" not in one and not MAGIC & set(literal_prefix(one)[1]) and not Path(one).exists():
                told = f"catalog '{catalog.name}': {key} {one} is not there. {catalog.pool.how_to_get}"
                raise CatalogError(told.rstrip())
