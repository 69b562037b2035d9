"""The recipes of an ablation: the catalog's own, and each with one knob at another value of the menu.

A variant is named by knob and value; which knobs there are, the recipe knows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tasks.catalog.files import CatalogError
from tasks.catalog.smoothness_options import MenuOptions
from tasks.modality.recipe import PoolRecipe


@dataclass(frozen=True)
class Variant:
    """A recipe with ``knob`` at ``value``; without a knob: the catalog's own."""

    knob: str = ""
    value: Any = None

    @property
    def name(self) -> str:
        """As a table shows it."""
        return f"{self.knob} = {self.shown}" if self.knob else "as it is"

    @property
    def shown(self) -> str:
        """The value as a catalog would have it."""
        if isinstance(self.value, bool):
            return str(self.value).lower()
        return f"{self.value:g}" if isinstance(self.value, float) else str(self.value)

    @property
    def folder(self) -> str:
        """A file name for it."""
        return f"{self.knob}={self.shown}".replace("/", "-") if self.knob else "own"


OWN = Variant()


def variants(recipe: PoolRecipe, menu: MenuOptions) -> list[Variant]:
    """The menu's recipes, knob by knob; values that the catalog has already are left out.

    Raises:
        CatalogError: a value cannot be had with this model or pool; says which and why.
    """
    named = [(knob, value) for knob in MenuOptions.model_fields if knob != "model" for value in getattr(menu, knob)]
    named += [(key, value) for key, values in menu.model.items() for value in values]
    found = [Variant(knob, value) for knob, value in named]
    return [one for i, one in enumerate(found) if one not in found[:i] and _differs(recipe, one)]


def applied(recipe: PoolRecipe, variant: Variant) -> PoolRecipe:
    """The variant's recipe, on the same pool and tasks."""
    return recipe.turned(variant.knob, variant.value) if variant.knob else recipe


def _differs(recipe: PoolRecipe, variant: Variant) -> bool:
    """Whether the variant is another recipe than the catalog's own."""
    if variant.knob == "batch" and variant.value > len(recipe):
        raise CatalogError(f"smoothness.menu.batch = {variant.value}: the pool has {len(recipe)} pairs only")
    return applied(recipe, variant).said != recipe.said
