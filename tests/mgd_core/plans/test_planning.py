"""The cheapest plan: against a trial of every plan there is, its budgets, and its forecast counted by a simulation."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mgd_core.plans.actions import Plan, Tier
from mgd_core.plans.kary import kary
from mgd_core.plans.plan import binomial, keep_all
from mgd_core.plans.planning import Rates, auto, forecast
from mgd_core.plans.segments import segments
from testing.simulator import simulate

BYTES = 10
BOTH = {Tier.HOST: 0.5, Tier.DISK: 4.0}
RATES = Rates(1.0, 2.5, save=BOTH, load=BOTH)


def every_plan(start: int, stop: int, states: dict[Tier, int]) -> list[Plan]:
    """All plans of the module's kinds that fit, with every number of slots, period and tier."""
    steps = stop - start
    slots = range(1, min(states[Tier.DEVICE], steps) + 1)
    plans = [binomial(start, stop, s) for s in slots]
    for tier in (Tier.HOST, Tier.DISK):
        for period in range(1, steps + 1):
            if -(-steps // period) <= states.get(tier, 0):
                plans += [segments(start, stop, s, period=period, tier=tier) for s in slots]
    return plans


seconds = st.sampled_from([0.0, 0.1, 1.0, 3.0, 50.0])


@given(
    window=st.tuples(st.integers(0, 5), st.integers(1, 30)),
    states=st.tuples(st.integers(1, 12), st.integers(0, 40), st.integers(0, 40)),
    rates=st.builds(
        Rates,
        step=seconds,
        reverse=seconds,
        save=st.fixed_dictionaries({Tier.HOST: seconds, Tier.DISK: seconds}),
        load=st.fixed_dictionaries({Tier.HOST: seconds, Tier.DISK: seconds}),
        overlap=st.booleans(),
    ),
)
@settings(max_examples=100, deadline=None)
def test_no_plan_that_fits_is_cheaper(window: tuple[int, int], states: tuple[int, int, int], rates: Rates):
    start, stop = window[0], window[0] + window[1]
    room = dict(zip(Tier, states, strict=True))
    found = auto(start, stop, BYTES, {tier: count * BYTES + 3 for tier, count in room.items()}, rates)
    others = [forecast(plan, BYTES, rates).seconds for plan in every_plan(start, stop, room)]
    assert found.seconds <= min(others) + 1e-9
    assert all(held <= room[tier] * BYTES for tier, held in found.bytes.items())
    assert found == forecast(found.plan, BYTES, rates)


@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize(
    "plan", [keep_all(3, 50), binomial(3, 50, 4), kary(3, 50, 3), segments(3, 50, 4, period=5, tier=Tier.HOST)]
)
def test_forecast_is_what_a_simulation_counts(plan: Plan, overlap: bool):
    found = forecast(plan, BYTES, Rates(1.0, 2.5, BOTH, BOTH, overlap))
    done = simulate(plan)
    saves, loads = done.transfers.get(Tier.HOST, (0, 0))
    forward, back = plan.steps, done.advances + 1 - plan.steps + 2.5 * done.reversals
    moved = (max(forward, 0.5 * saves) + max(back, 0.5 * loads)) if overlap else forward + back + 0.5 * (saves + loads)
    assert found.seconds == pytest.approx(plan.start + moved)
    assert found.bytes == {tier: BYTES * count for tier, count in done.peak.items()}


def test_what_it_takes():
    def kind(device: int, host: int = 0, disk: int = 0, rates: Rates = RATES) -> tuple[str, Tier]:
        budgets = {Tier.DEVICE: device * BYTES, Tier.HOST: host * BYTES, Tier.DISK: disk * BYTES}
        plan = auto(0, 1000, BYTES, budgets, rates).plan
        return plan.name, plan.outer

    assert kind(1000, 1000, 1000) == ("keep_all", Tier.DEVICE)
    assert kind(100) == ("binomial", Tier.DEVICE)
    assert kind(8, host=60) == ("segments", Tier.HOST)
    assert kind(8, disk=60) == ("segments", Tier.DISK)
    assert kind(8, host=60, disk=60) == ("segments", Tier.HOST), "as cheap, and the faster tier"
    slow = Rates(1.0, 2.5, {Tier.DISK: 1e4}, {Tier.DISK: 1e4})
    assert kind(8, disk=60, rates=slow) == ("binomial", Tier.DEVICE), "transfers dearer than what they save"


def test_transfers_that_do_not_overlap_are_made_less_often():
    budgets = {Tier.DEVICE: 8 * BYTES, Tier.DISK: 1000 * BYTES}
    beside = auto(0, 1000, BYTES, budgets, RATES)
    between = auto(0, 1000, BYTES, budgets, Rates(1.0, 2.5, BOTH, BOTH, overlap=False))
    assert between.plan.peak_states[Tier.DISK] < beside.plan.peak_states[Tier.DISK]
    assert between.seconds > beside.seconds


def test_forecast_in_words():
    found = auto(5, 105, 2**20, {Tier.DEVICE: 4 * 2**20, Tier.DISK: 20 * 2**20}, RATES)
    words = str(found)
    again = found.plan.advances - 99
    assert words.startswith(f"segments plan over steps 5 to 104: {again} steps recomputed ({again / 100:.2f} of the")
    assert "4 states (4.0 MiB) on device, 20 states (20.0 MiB) on disk" in words
    assert f"about {found.seconds:,.1f} s" in words


@pytest.mark.parametrize(
    ("size", "budgets", "words"),
    [
        (0, {Tier.DEVICE: 10}, "state_bytes=0"),
        (8, {Tier.DEVICE: 7}, "7 bytes holds no state of 8 bytes"),
        (8, {Tier.DISK: 70}, "device budget of 0 bytes"),
        (8, {Tier.DEVICE: 8, Tier.DISK: -1}, "disk is negative: -1"),
        (8, {Tier.DEVICE: 8, Tier.DISK: 80}, "disk has a budget of 10 states but no measured"),
    ],
)
def test_impossible_budgets_are_refused(size: int, budgets: dict[Tier, int], words: str):
    with pytest.raises(ValueError, match=words):
        auto(0, 9, size, budgets, Rates(1.0, 2.0))


def test_a_tier_without_room_needs_no_rates():
    assert auto(0, 9, 8, {Tier.DEVICE: 8, Tier.DISK: 7}, Rates(1.0, 2.0)).plan == binomial(0, 9, 1)


@pytest.mark.parametrize(
    ("rates", "words"),
    [
        ({"step": -1.0}, "step must be finite and not negative; got -1"),
        ({"reverse": float("nan")}, "reverse must be finite"),
        ({"save": {Tier.DISK: float("inf")}}, "save to disk must be finite"),
        ({"load": {Tier.HOST: -2.0}}, "load from host must be finite and not negative; got -2"),
    ],
)
def test_impossible_rates_are_refused(rates, words: str):
    with pytest.raises(ValueError, match=words):
        Rates(**{"step": 1.0, "reverse": 2.0} | rates)


@pytest.mark.parametrize(("start", "stop"), [(4, 4), (-1, 3)])
def test_impossible_windows_are_refused(start: int, stop: int):
    with pytest.raises(ValueError, match="0 <= start < stop"):
        auto(start, stop, 8, {Tier.DEVICE: 80}, RATES)
