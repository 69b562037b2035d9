"""The catalog of a curation of texts: instruction tuning of a causal language model."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from tasks.catalog.catalogs import BaseCatalog
from tasks.catalog.recipe_options import with_absolute_sources
from tasks.catalog.text_options import TextModelOptions, TextPoolOptions, TextTargetOptions, TextTrialOptions
from tasks.files.local_files import absolute


class TextCatalog(BaseCatalog):
    """A curation of prompts and completions for a causal language model."""

    pool: TextPoolOptions
    targets: TextTargetOptions
    model: TextModelOptions
    comparison: TextTrialOptions = TextTrialOptions()

    @property
    def tests(self) -> tuple[str, ...]:
        """Names of the test tasks."""
        return tuple(self.targets.tests)

    def places(self) -> list[tuple[str, str]]:
        """Sources of the pool and the targets, and the model's folder."""
        named = [(f"source of '{name}'", task.source) for _, name, task in self.targets.roles]
        return [*super().places(), *named, ("model.folder", self.model.folder)]

    def resolved(self, base: Path) -> Self:
        """The same catalog with paths made absolute."""
        model = self.model.model_copy(update={"folder": absolute(self.model.folder, base)})
        targets = with_absolute_sources(self.targets, base)
        return super().resolved(base).model_copy(update={"targets": targets, "model": model})
