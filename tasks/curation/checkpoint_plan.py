"""The plan of a run's reverse sweeps: the one that its catalog names, or the cheapest within the catalog's budgets.

`plan = "auto"` measures the recipe once and keeps the choice beside the run's records, so that a run which was cut off
goes on with the plan it had. Plans change no result; of the tables, `rounds` tells what the plan did (steps, states).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mgd_core.plans.actions import Plan, Tier
from mgd_core.plans.kary import kary
from mgd_core.plans.plan import Binomial, binomial, keep_all
from mgd_core.plans.planning import Forecast, Rates, auto, forecast
from mgd_core.plans.segments import Segments, segments
from tasks.catalog.catalogs import BaseCatalog, CatalogError
from tasks.curation.step_costs import measure, measure_transfers
from tasks.files.artefacts import is_done, publish_json, read_json
from tasks.modality.recipe import PoolRecipe

RECORD = "plan.json"
SLOTS = (4, 8, 16, 32, 64, 128, 256)  # of the binomial plans that are shown beside the run's own


def plan_of(recipe: PoolRecipe) -> Plan:
    """The traversal plan of the run's window.

    Raises:
        CatalogError: the budgets of `auto` hold no state.
    """
    if recipe.catalog.descent.plan != "auto":
        return _named(recipe.catalog, recipe.catalog.descent.model_dump())
    record, key = recipe.run.work(RECORD), recipe.run.key(RECORD)
    if not is_done(record, key):
        publish_json(record, {"key": key, "plan": _settings(_chosen(recipe))})
    return _named(recipe.catalog, read_json(record)["plan"])


def forecast_of(recipe: PoolRecipe, plan: Plan) -> Forecast:
    """What ``plan`` costs with this run's recipe on this machine: steps, bytes, seconds of one round's two sweeps."""
    costs = measure(recipe)
    slow = set(plan.peak_states) - {Tier.DEVICE}
    rates = measure_transfers(recipe, costs, slow) if slow else Rates(costs.step, costs.reverse)
    return forecast(plan, costs.state_bytes, rates)


def alternatives(recipe: PoolRecipe) -> Iterator[Forecast]:
    """Plans beside the run's own: every state kept, and fewer and fewer of them."""
    start, stop = recipe.catalog.descent.window_start, recipe.catalog.learner.steps
    yield forecast_of(recipe, keep_all(start, stop))
    for slots in reversed([s for s in SLOTS if s < stop - start]):
        yield forecast_of(recipe, binomial(start, stop, slots))


def _chosen(recipe: PoolRecipe) -> Plan:
    options, costs = recipe.catalog.descent, measure(recipe)
    budgets = budgets_of(recipe.catalog)
    rates = measure_transfers(recipe, costs, set(budgets) - {Tier.DEVICE})
    try:
        return auto(options.window_start, recipe.catalog.learner.steps, costs.state_bytes, budgets, rates).plan
    except ValueError as error:
        raise CatalogError(f"catalog '{recipe.catalog.name}', plan 'auto': {error}") from None


def budgets_of(catalog: BaseCatalog) -> dict[Tier, int]:
    """Bytes for a rank's kept states, for each tier that has a budget; of what ranks share each has its part."""
    options, ranks = catalog.descent, catalog.runtime.ranks
    given = {Tier.DEVICE: options.device_memory, Tier.HOST: options.host_memory, Tier.DISK: options.disk_space}
    alone = set() if catalog.runtime.device == "cpu" else {Tier.DEVICE}
    return {tier: int(size) // (1 if tier in alone else ranks) for tier, size in given.items() if size}


def _settings(plan: Plan) -> dict[str, Any]:
    """What makes the plan again, in the words of a catalog, and the tier of its cuts."""
    if isinstance(plan, Segments):
        return {"plan": "segments", "slots": plan.slots, "disk_states": plan.stretches, "tier": plan.outer}
    assert isinstance(plan, Binomial)
    return {"plan": plan.name, "slots": plan.slots}


def _named(catalog: BaseCatalog, settings: dict[str, Any]) -> Plan:
    start, stop = catalog.descent.window_start, catalog.learner.steps
    if settings["plan"] == "keep_all":
        return keep_all(start, stop)
    if settings["plan"] == "kary":
        return kary(start, stop, settings["arity"])
    if settings["plan"] == "binomial":
        return binomial(start, stop, settings["slots"])
    tier = Tier(settings.get("tier", Tier.DISK))
    return segments(start, stop, settings["slots"], disk_states=settings["disk_states"], tier=tier)
