"""What every catalog of a curation says, whatever is trained: pool, learner, descent, comparison, smoothness, runtime.

A kind of training data adds what is its own (`pair_catalog`, `text_catalog`): how its pool is read, its targets, its
model.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from tasks.catalog.learner_options import LearnerOptions
from tasks.catalog.recipe_options import DescentOptions, RuntimeOptions, SourceOptions, TrialOptions
from tasks.catalog.smoothness_options import SmoothnessOptions
from tasks.catalog.subset_names import check_blend
from tasks.catalog.target_sections import TargetsSection
from tasks.files.local_files import absolute
from tasks.files.option_types import Section
from tasks.subset.expressions import parse, rebased


class BaseCatalog(Section):
    """One curation, whatever is trained."""

    if TYPE_CHECKING:  # of each kind of data its own sections
        targets: TargetsSection
        model: Any
    model_places: ClassVar[tuple[str, ...]] = ()
    """Keys of `model` that name a file or a folder."""
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

    @model_validator(mode="after")
    def _ranks_have_rows(self) -> Self:
        if self.runtime.ranks > self.learner.batch:
            raise ValueError(
                f"runtime.ranks: {self.runtime.ranks} ranks share a batch of {self.learner.batch} rows (learner.batch)"
                ", so some would have none; take fewer ranks"
            )
        return self

    @model_validator(mode="after")
    def _blends_are_filters(self) -> Self:
        for name in self.descent.blends if self.comparison.built_in else ():
            check_blend(name, self.comparison.built_in)
        return self

    @property
    def kind(self) -> str:
        """What it trains on, as `model.kind` says: the key of its modality."""
        return str(self.model.kind)

    @property
    def tests(self) -> tuple[str, ...]:
        """Names of the test tasks."""
        return tuple(self.targets.roles.tests)

    def places(self) -> list[tuple[str, str]]:
        """(key, place) of everything that the catalog takes from elsewhere."""
        pool = [self.pool.source] if isinstance(self.pool.source, str) else self.pool.source
        model = [(f"model.{key}", getattr(self.model, key)) for key in self.model_places]
        return [*(("pool.source", s) for s in pool), *self.targets.places(), *model]

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
        model = {key: absolute(getattr(self.model, key), base) for key in self.model_places}
        update = {
            "pool": self.pool.resolved(base),
            "targets": self.targets.resolved(base),
            "model": self.model.model_copy(update=model),
            "descent": descent,
            "comparison": comparison,
        }
        return self.model_copy(update=update)
