"""Count updates: signs, totals, ceilings, and a mask that any machine can compute again."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mgd_core.descent import steps as descent
from mgd_core.descent.steps import OUTLIER, Counts, confident_step, exchange_step, mask, mean_in_blocks, sign_step
from testing.count_scales import scaled_by_count, summed


def counts(*values: int) -> Counts:
    return np.array(values, np.int64)


def uids(n: int) -> np.ndarray:
    return np.frombuffer(np.random.Generator(np.random.Philox(0)).bytes(16 * n), "S16")


ALL = np.ones(6, np.bool_)
G = np.array([-2.0, -1.0, 0.0, 1.0, 2.0, 3.0])


def test_sign_step_moves_against_the_gradient_and_not_below_zero():
    new = sign_step(counts(1, 0, 1, 1, 0, 2), G, ALL)
    assert new.counts.tolist() == [2, 1, 1, 0, 0, 1]
    assert (new.raised, new.lowered) == (2, 2)


def test_sign_step_spares_what_is_not_masked():
    masked = np.array([True, False, True, False, True, False])
    assert sign_step(counts(1, 1, 1, 1, 1, 1), G, masked).counts.tolist() == [2, 1, 1, 1, 0, 1]


def test_a_ceiling_stops_raises_and_lowers_nothing():
    g = np.array([-1.0, -1.0, -1.0, 1.0, 1.0, 0.0])
    assert sign_step(counts(2, 1, 5, 5, 1, 5), g, ALL, ceiling=2).counts.tolist() == [2, 2, 5, 4, 0, 5]
    swapped = exchange_step(counts(2, 1, 1, 1, 1, 1), G, ALL, share=0.34, ceiling=2)
    assert swapped.counts.tolist() == [2, 2, 2, 1, 0, 0], "the next lowest is raised in place of the full one"


@given(
    st.lists(st.tuples(st.integers(0, 3), st.floats(-1, 1), st.booleans()), min_size=1, max_size=60), st.floats(0, 1)
)
@settings(max_examples=150, deadline=None)
def test_exchange_keeps_the_total(rows: list[tuple[int, float, bool]], share: float):
    c, g, masked = (np.array(column) for column in zip(*rows, strict=True))
    new = exchange_step(c.astype(np.int64), g, masked, share, ceiling=3)
    assert new.counts.sum() == c.sum() and (new.counts >= 0).all() and (new.counts <= 3).all()
    assert new.raised == new.lowered <= int(share * masked.sum())
    assert (new.counts[~masked] == c[~masked]).all() and (np.abs(new.counts - c) <= 1).all()
    raised, lowered = g[new.counts > c], g[new.counts < c]
    assert len(raised) == 0 or raised.max() <= lowered.min() or (c == 0).any() or (c == 3).any()


def test_exchange_takes_the_extremes():
    new = exchange_step(counts(1, 1, 1, 1, 0, 1), G, ALL, share=0.34)
    assert new.counts.tolist() == [2, 2, 1, 0, 0, 0], "a sample that is out already cannot be lowered"
    assert (new.raised, new.lowered) == (2, 2)


def test_inputs_are_not_changed():
    c = counts(1, 1, 1, 1, 1, 1)
    sign_step(c, G, ALL)
    exchange_step(c, G, ALL, 0.5)
    assert c.tolist() == [1] * 6


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1.0])
def test_mask_has_frequency_p(p: float):
    n = 20_000
    spread = 4 * np.sqrt(p * (1 - p) / n)
    assert abs(mask(uids(n), seed=1, round=2, p=p).mean() - p) <= spread


def test_mask_is_a_function_of_seed_round_and_uid_alone():
    all_uids = uids(500)
    whole = mask(all_uids, seed=1, round=2, p=0.5)
    shuffled = np.random.Generator(np.random.Philox(1)).permutation(500)[:123]
    assert np.array_equal(mask(all_uids[shuffled], seed=1, round=2, p=0.5), whole[shuffled])
    for seed, round in ((2, 2), (1, 3), (12, 2)):
        assert 0.3 < (mask(all_uids, seed, round, 0.5) != whole).mean() < 0.7
    assert (mask(all_uids, 1, 2, 0.3) <= whole).all(), "a smaller p masks a part of the same samples"


def test_mask_tells_uids_apart_that_end_in_zero_bytes():
    pair = np.array([b"a" + bytes(15), b"a\x01" + bytes(14)], "S16")
    differ = [m[0] != m[1] for m in (mask(pair, 0, r, 0.5) for r in range(40))]
    assert any(differ) and not all(differ)


def test_a_sum_discounts_earlier_rounds():
    total = summed([np.array([1.0, -2.0]), np.array([3.0, 5.0])], [0.5, 1.0], per_sample=False)
    assert total.tolist() == [3.5, 4.0]


def test_scaled_by_sample_a_single_round_keeps_its_order():
    g = np.random.default_rng(0).normal(size=200)
    assert (np.argsort(summed([g], [1.0], per_sample=True)) == np.argsort(g)).all()


def test_scaled_by_sample_steady_ones_come_before_great_ones():
    steady, great = [-1.0, -1.0, -1.0, -1.0], [-9.0, 8.0, -9.0, 5.0]
    total = summed([np.array(pair) for pair in zip(steady, great, strict=True)], [1.0] * 4, per_sample=True)
    assert np.sum(great) < np.sum(steady) and total[0] < total[1]


def test_scaled_by_count_groups_of_any_size_come_out_alike():
    """Multiplying the g of one count by anything changes nothing; the median size of each group is 1."""
    draw = np.random.default_rng(0)
    c, g, known = draw.integers(0, 3, 300), draw.normal(size=300), draw.random(300) < 0.8
    scaled = scaled_by_count(g, c, known)
    assert np.array_equal(scaled_by_count(np.where(c == 0, 1024.0, 1.0) * g, c, known), scaled)
    assert (scaled[~known] == 0).all() and np.abs(scaled).max() <= OUTLIER
    assert (np.sign(scaled) == np.sign(g))[known].all()
    for count in range(3):
        assert np.median(np.abs(scaled[known & (c == count)])) == pytest.approx(1)


def test_scaled_by_count_a_group_of_zeros_stays_zero():
    assert scaled_by_count(np.zeros(3), np.array([0, 0, 1]), np.ones(3, np.bool_)).tolist() == [0, 0, 0]


def test_a_mean_in_blocks_is_numpys_in_one_and_near_it_in_many(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).normal(size=1000)
    assert mean_in_blocks(x) == x.mean()
    monkeypatch.setattr(descent, "BLOCK", 64)
    assert mean_in_blocks(x) == sum(x[at : at + 64].sum() for at in range(0, 1000, 64)) / 1000
    assert mean_in_blocks(x) == pytest.approx(x.mean(), rel=1e-12)


def test_scaled_by_count_by_hand() -> None:
    g, counts = np.array([1.0, -2.0, 30.0, 5.0, 7.0]), np.array([1, 1, 1, 0, 0])
    scaled = scaled_by_count(g, counts, np.array([True, True, True, True, False]))
    np.testing.assert_allclose(scaled, [0.5, -1.0, 4.0, 1.0, 0.0])


@pytest.mark.parametrize("z", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("seed", range(12))
def test_the_confident_exchange_is_the_largest_of_intervals_apart(seed: int, z: float):
    """Against all exchanges there are: of those whose pairs can be laid out with intervals apart, none is larger."""
    draw = np.random.default_rng(seed)
    n, share, ceiling = 7, 0.5, 2
    c, g, errors = draw.integers(0, 3, n), draw.normal(size=n), draw.uniform(0, 0.6, n)
    masked = draw.random(n) < 0.8
    found = confident_step(c, g, errors, masked, share, z, ceiling)
    may_rise = [i for i in range(n) if masked[i] and c[i] < ceiling]
    may_fall = [i for i in range(n) if masked[i] and c[i] > 0]

    def apart(up: tuple[int, ...], down: tuple[int, ...]) -> bool:
        ends, begins = sorted(g[i] + z * errors[i] for i in up), sorted(g[i] - z * errors[i] for i in down)[::-1]
        return all(end < begin for end, begin in zip(ends, begins, strict=True))

    sizes = [
        k
        for k in range(int(share * masked.sum()) + 1)
        if any(apart(up, down) for up in combinations(may_rise, k) for down in combinations(may_fall, k))
    ]
    up, down = (tuple(np.flatnonzero(found.counts - c == by)) for by in (1, -1))
    assert len(up) == len(down) == max(sizes) == found.raised == found.lowered
    assert apart(up, down) and not set(up) & set(down)
    assert found.counts.sum() == c.sum()


def test_without_errors_the_confident_exchange_is_the_exchange():
    draw = np.random.default_rng(1)
    c, g, masked = np.ones(200, np.int64), draw.normal(size=200), draw.random(200) < 0.5
    plain = exchange_step(c, g, masked, 0.3)
    np.testing.assert_array_equal(confident_step(c, g, np.zeros(200), masked, 0.3, 1.0).counts, plain.counts)
    assert confident_step(c, g, np.full(200, 10.0), masked, 0.3, 1.0).raised == 0
