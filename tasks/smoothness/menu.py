"""The recipes of an ablation: the catalog's own, and each with one knob at another value of the menu.

A variant is named by knob and value. Applied to a workbench it gives another workbench on the same pool and tasks,
whose learner is the changed recipe. Width, norm placement, pooling and QK-norm are keys of the model's JSON config, and
can be turned where open_clip reads them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import log
from typing import Any

from tasks.catalog.catalogs import CatalogError
from tasks.catalog.smoothness_options import MenuOptions
from tasks.modality.pairs.modality import PairWorkbench
from tasks.modality.pairs.model_configs import TOWERS, Config, known_keys
from tasks.modality.recipe import Workbench

LEARNER_KNOBS = ("eps_root", "batch", "learning_rate", "warmup")
FIXED = {"image_size": "pictures", "context_length": "captions", "vocab_size": "captions"}
"""Keys that say how the data are laid out, and which data."""
DEFAULT_HEAD_WIDTH = 64  # open_clip's, of a vision tower


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


def variants(bench: Workbench, menu: MenuOptions) -> list[Variant]:
    """The menu's recipes, knob by knob; values that the catalog has already are left out.

    Raises:
        CatalogError: a value cannot be had with this model or pool; says which and why.
    """
    named = [(knob, value) for knob in MenuOptions.model_fields if knob != "model" for value in getattr(menu, knob)]
    named += [(key, value) for key, values in menu.model.items() for value in values]
    found = [Variant(knob, value) for knob, value in named]
    return [one for i, one in enumerate(found) if one not in found[:i] and _differs(bench, one)]


def applied(bench: Workbench, variant: Variant) -> Workbench:
    """The workbench with the variant's recipe."""
    knob, value = variant.knob, variant.value
    if knob in LEARNER_KNOBS:
        return _with(bench, learner=bench.catalog.learner.model_copy(update={knob: value}))
    if knob == "window_start":
        return _with(bench, descent=bench.catalog.descent.model_copy(update={knob: value}))
    return _with_model(bench, knob, value) if isinstance(bench, PairWorkbench) and knob else bench


def _with_model(bench: PairWorkbench, knob: str, value: Any) -> PairWorkbench:
    """The workbench with another model."""
    if knob == "logit_scale":
        scaled: dict[str, Any] = {**bench.model_config, "init_logit_scale": log(value)}
        return replace(bench, model_config=scaled)
    if knob == "width":
        towers = {tower: _widened(bench.model_config[tower], tower, value) for tower in TOWERS}
        return replace(bench, model_config={**bench.model_config, **towers})
    tower, key = knob.split(".")
    changed = {**bench.model_config[tower], key: value}
    return replace(bench, model_config={**bench.model_config, tower: changed})


def _with(bench: Workbench, **sections: Any) -> Workbench:
    return replace(bench, catalog=bench.catalog.model_copy(update=sections))


def _differs(bench: Workbench, variant: Variant) -> bool:
    """Whether the variant is another recipe than the catalog's own."""
    _check(bench, variant)
    changed = applied(bench, variant)
    if not isinstance(bench, PairWorkbench) or not isinstance(changed, PairWorkbench):
        return changed.catalog != bench.catalog
    own = (bench.catalog, bench.model_config)
    if variant.knob == "width" and changed.model_config == bench.model_config:
        raise CatalogError(
            f"smoothness.menu.width = {variant.shown}: the model's config names no width that it would change "
            f"({bench.catalog.model.config}). Remove it, or use a tower with a 'width'."
        )
    return (changed.catalog, changed.model_config) != own


def _check(bench: Workbench, variant: Variant) -> None:
    if variant.knob == "batch" and variant.value > len(bench):
        raise CatalogError(f"smoothness.menu.batch = {variant.value}: the pool has {len(bench)} pairs only")
    if not isinstance(bench, PairWorkbench):
        if variant.knob not in (*LEARNER_KNOBS, "window_start"):
            told = f"smoothness.menu: '{variant.knob}' is a knob of CLIPs; a language model has the learner's only"
            raise CatalogError(told + ": " + ", ".join((*LEARNER_KNOBS, "window_start")))
    elif variant.knob not in MenuOptions.model_fields:
        _check_model_key(bench.model_config, variant.knob)


def _check_model_key(config: Config, path: str) -> None:
    """Refuse a key that open_clip would ignore, or that would need other data."""
    tower, _, key = path.partition(".")
    if tower not in TOWERS or not key:
        raise CatalogError(
            f"smoothness.menu.model: '{path}' is no key of a tower; write vision_cfg.KEY or text_cfg.KEY, in quotes"
        )
    known = known_keys(tower, config[tower])
    if key in FIXED:
        raise CatalogError(f"smoothness.menu.model: '{path}' would need other {FIXED[key]}; make it another catalog")
    if key not in known:
        raise CatalogError(
            f"smoothness.menu.model: open_clip reads no '{key}' for this tower, so it would change nothing; it reads "
            + ", ".join(sorted(known - set(FIXED)))
        )


def _widened(config: Config, tower: str, factor: float) -> Config:
    """A tower's config with its width, if it names one, times ``factor``, in whole heads of the same size."""
    if "width" not in config:
        return config
    if tower == "vision_cfg":
        size = int(config.get("head_width", DEFAULT_HEAD_WIDTH))
        return {**config, "width": size * max(1, round(config["width"] * factor / size))}
    heads = max(1, round(config["heads"] * factor))
    return {**config, "heads": heads, "width": config["width"] // config["heads"] * heads}
