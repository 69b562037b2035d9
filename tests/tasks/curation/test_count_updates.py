"""Streamed updates and tables: the same bytes as in one piece, whatever the row groups, the rule and the rounds."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mgd_core.descent import steps as descent
from mgd_core.descent.shrinkage import denoised
from mgd_core.descent.steps import exchange_step, mask, sign_step
from tasks.catalog.recipe_options import DescentOptions
from tasks.curation import count_updates
from tasks.curation.count_updates import publish_update
from tasks.files.scratch import scratch
from tasks.tables import published as tables
from tasks.tables import streams as table_streams
from tasks.tables.published import TableError, files, publish
from tasks.tables.streams import publishing_rows
from tasks.tables.uids import Bytes16, uid_array
from testing.count_scales import scaled_by_count, summed

N, RUN = 500, "small-1"


@pytest.fixture(params=[7, 64, 250, 1 << 20])
def group(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Row groups of some size, and sums in blocks of it."""
    for module in (tables, table_streams, count_updates):
        monkeypatch.setattr(module, "ROW_GROUP", request.param)
    monkeypatch.setattr(descent, "BLOCK", request.param)
    return int(request.param)


def fill(home: Path, rounds: int = 3, p: float = 0.5) -> tuple[Bytes16, list[np.ndarray], list[np.ndarray]]:
    """Publish rounds of counts and metagradients, with ties; returns uids, counts and g (NaN: not probed)."""
    draw = np.random.default_rng(1)
    uids = np.sort(np.frombuffer(draw.bytes(16 * N), "S16"))
    counts = [draw.integers(0, 4, N) for _ in range(rounds)]
    gradients = []
    for number in range(rounds):
        probed = mask(uids, 0, number, p)
        g = np.where(probed, np.round(draw.normal(size=N), 1), 0.0)
        columns = {"uid": uid_array(uids), "g": g, "probed": probed, "visits": np.ones(N, np.int32)}
        publish(home, RUN, "metagradients", number, pa.table(columns))
        publish(home, RUN, "counts", number, pa.table({"uid": uid_array(uids), "count": counts[number]}))
        gradients.append(np.where(probed, g, np.nan))
    return uids, counts, gradients


def fill_groups(home: Path, rounds: int, errors: bool) -> tuple[np.ndarray, np.ndarray]:
    """Rounds of a g that is the effect of a sample's group under noise ten times its size; returns groups, effects."""
    draw = np.random.default_rng(4)
    uids = np.sort(np.frombuffer(draw.bytes(16 * N), "S16"))
    groups, effects = draw.integers(0, 5, N), np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    for number in range(rounds):
        columns = {"uid": uid_array(uids), "g": effects[groups] + draw.normal(0, 10, N), "probed": np.ones(N, bool)}
        columns |= {"visits": np.ones(N, np.int32)} | ({"g_error": np.full(N, 10.0)} if errors else {})
        publish(home, RUN, "metagradients", number, pa.table(columns))
        publish(home, RUN, "counts", number, pa.table({"uid": uid_array(uids), "count": np.ones(N, np.int32)}))
    return groups, effects


@pytest.mark.parametrize(("rounds", "errors"), [(1, False), (1, True), (3, False), (3, True)])
@pytest.mark.parametrize("scale", ["none", "count"])
def test_groups_move_together(rounds: int, errors: bool, scale: str, group: int, tmp_path: Path) -> None:
    groups, effects = fill_groups(tmp_path, rounds, errors)
    options = DescentOptions(rounds=3, rule="exchange", p=1.0, share=0.2, momentum=1.0, scale=scale, groups=("source",))
    run_dir = tmp_path / "runs" / RUN
    publish_update(run_dir, rounds - 1, options, [groups])
    after = tables.read(tmp_path, RUN, "counts", rounds)["count"].to_numpy()
    assert (after - 1).sum() == 0 and np.abs(after - 1).sum() == 2 * (N // 5)
    moved = [effects[groups][after == count].mean() for count in (2, 0)]
    assert moved[0] < -1 and moved[1] > 1, "own g alone would tell hardly anything: noise is ten times the effect"


def test_what_is_believed_is_published_and_acted_on(group: int, tmp_path: Path) -> None:
    """Three rounds of known noise: what is published is the shrinkage of their mean, whatever the step acts on; a rule
    that asks how sure it is moves less than one that does not."""
    groups, effects = fill_groups(tmp_path, 3, errors=True)
    run_dir, moved = tmp_path / "runs" / RUN, {}
    g = np.stack([tables.read(tmp_path, RUN, "metagradients", r)["g"].to_numpy() for r in range(3)])
    noise = max(float(g.var(0, ddof=1).mean()), 100.0) / 3
    for name, codes, learn in (
        ("plain", [], None),
        ("groups", [groups], None),
        ("learned", [], lambda *_: effects[groups]),
    ):
        plain = {"rounds": 3, "p": 1.0, "share": 0.2, "momentum": 1.0, "groups": ("source",) if codes else ()}
        for rule in ("exchange", "confident"):
            options = DescentOptions(rule=rule, learned=learn is not None, **plain)
            moved[name, rule] = publish_update(run_dir, 2, options, codes, learn).raised
        expected = denoised(g.mean(0), np.full(N, noise), codes, learn and learn())
        found = tables.read(tmp_path, RUN, "beliefs", 2)
        np.testing.assert_allclose(found["g_mean"].to_numpy(), expected.values, atol=1e-9)
        np.testing.assert_allclose(found["g_sd"].to_numpy(), expected.errors, atol=1e-9)
        np.testing.assert_allclose(found["p_helps"].to_numpy(), expected.helps, atol=1e-12)
    assert all(moved[name, "exchange"] == N // 5 for name in ("plain", "groups", "learned"))
    assert moved["plain", "confident"] < N // 20 < moved["groups", "confident"] <= moved["learned", "confident"]


def test_without_a_measure_of_noise_nothing_is_sure(tmp_path: Path) -> None:
    fill_groups(tmp_path, 1, errors=False)
    options = DescentOptions(rounds=3, rule="confident", p=1.0, momentum=1.0)
    assert publish_update(tmp_path / "runs" / RUN, 0, options).raised == 0
    found = tables.read(tmp_path, RUN, "beliefs", 0)
    np.testing.assert_allclose(
        found["g_sd"].to_numpy(), tables.read(tmp_path, RUN, "metagradients", 0)["g"].to_numpy().std()
    )


OPTIONS = [
    {"rule": "sign", "p": 0.5},
    {"rule": "sign", "p": 1.0, "max_count": 2, "momentum": 0.5},
    {"rule": "exchange", "p": 0.5, "share": 0.3},
    {"rule": "exchange", "p": 1.0, "share": 0.9, "max_count": 2, "momentum": 1.0, "scale": "sample"},
    {"rule": "exchange", "p": 0.5, "share": 0.2, "momentum": 0.7, "scale": "count"},
    {"rule": "exchange", "p": 0.1, "share": 1e-9},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_streamed_the_bytes_are_those_of_one_piece(options: dict, group: int, tmp_path: Path) -> None:
    chosen = DescentOptions(rounds=3, **options)
    streamed, whole = tmp_path / "streamed", tmp_path / "whole"
    uids, counts, gradients = fill(streamed)
    run_dir = streamed / "runs" / RUN
    moves = publish_update(run_dir, 2, chosen)

    known = [~np.isnan(g) for g in gradients]
    used = [r for r in range(3) if r == 2 or chosen.momentum]
    g = [np.where(known[r], gradients[r], 0.0) for r in used]
    if chosen.scale == "count":
        g = [scaled_by_count(x, counts[r], known[r]) for x, r in zip(g, used, strict=True)]
    score = summed(g, [chosen.momentum ** (2 - r) for r in used], chosen.scale == "sample")
    moving = np.any([known[r] for r in used], axis=0) & mask(uids, 0, 2, chosen.p)
    if chosen.rule == "sign":
        update = sign_step(counts[2], score, moving, chosen.max_count)
    else:
        update = exchange_step(counts[2], score, moving, chosen.share, chosen.max_count)
    publish(whole, RUN, "counts", 3, pa.table({"uid": uid_array(uids), "count": update.counts}))

    count_updates.publish_counts(tmp_path / "plain" / "runs" / RUN, 3, [uids[:99], uids[99:]], update.counts)
    plain = files(tmp_path / "plain", RUN, "counts")[3]
    assert plain.name == files(whole, RUN, "counts")[3].name
    assert (moves.raised, moves.lowered) == (update.raised, update.lowered)
    one, two = (files(home, RUN, "counts")[3] for home in (streamed, whole))
    assert one.name == two.name and one.read_bytes() == two.read_bytes()
    assert os.listdir(streamed / ".staging") == []


def test_rows_in_any_pieces_give_the_same_file(group: int, tmp_path: Path) -> None:
    fill(tmp_path / "a", 1)
    path = files(tmp_path / "a", RUN, "metagradients")[0]
    rows = pq.ParquetFile(path).read()
    for cuts in ([], [1], [3, 250, 251], [250, 250]):
        with publishing_rows(tmp_path / "b", RUN, "metagradients", 0) as table:
            for start, stop in zip([0, *cuts], [*cuts, N], strict=True):
                table.add(rows.slice(start, stop - start))
        assert files(tmp_path / "b", RUN, "metagradients")[0].read_bytes() == path.read_bytes()


def test_a_stream_that_is_no_table_is_refused(tmp_path: Path) -> None:
    uids = [bytes([i]) * 16 for i in (1, 2, 3)]
    for first, second, match in (
        ([1, 0], [], "do not ascend"),
        ([1], [1], "do not ascend"),
        ([0, 0], [], "do not asc"),
    ):
        with pytest.raises(TableError, match=match), publishing_rows(tmp_path, RUN, "counts", 0) as table:
            for part in (first, second):
                table.add(pa.table({"uid": uid_array([uids[i] for i in part]), "count": [1] * len(part)}))
    with pytest.raises(TableError, match="no rows"), publishing_rows(tmp_path, RUN, "counts", 0):
        pass
    with (
        pytest.raises(TableError, match="NaN or infinite"),
        publishing_rows(tmp_path, RUN, "metagradients", 0) as table,
    ):
        columns = {"uid": uid_array(uids), "g": [0.0, np.nan, 0.0], "probed": [True] * 3, "visits": [1] * 3}
        table.add(pa.table(columns))
    assert not files(tmp_path, RUN, "counts") and not files(tmp_path, RUN, "metagradients")


def test_what_is_missing_or_does_not_fit_is_told(tmp_path: Path) -> None:
    uids, _, _ = fill(tmp_path, 1, p=1.0)
    run_dir, options = tmp_path / "runs" / RUN, DescentOptions(rounds=3, p=1.0)
    with pytest.raises(TableError, match="no metagradients for round 4"):
        publish_update(run_dir, 4, options)
    publish(tmp_path, RUN, "counts", 0, pa.table({"uid": uid_array(uids[:9]), "count": [1] * 9}))
    with pytest.raises(TableError, match=r"different numbers of rows: .*counts 9, metagradients 500"):
        publish_update(run_dir, 0, options)
    publish(tmp_path, RUN, "counts", 0, pa.table({"uid": uid_array(uids), "count": np.ones(N, np.int32)}))
    rising = {"uid": uid_array(uids), "g": np.ones(N), "probed": np.ones(N, bool), "visits": np.ones(N, np.int32)}
    publish(tmp_path, RUN, "metagradients", 0, pa.table(rising))
    with pytest.raises(TableError, match="every sample was dropped"):
        publish_update(run_dir, 0, options)
    assert list(files(tmp_path, RUN, "counts")) == [0]


def test_scratch_of_the_dead_is_removed_and_of_the_living_kept(tmp_path: Path) -> None:
    left = tmp_path / ".staging" / "scratch-update-dead"
    left.mkdir(parents=True)
    with scratch(tmp_path, "a") as one:
        (one / "x").write_bytes(b"x")
        assert not left.exists()
        with scratch(tmp_path, "b") as two:
            assert (one / "x").exists() and two != one
    assert os.listdir(tmp_path / ".staging") == []


def test_near_copies_are_not_all_raised(tmp_path: Path) -> None:
    fill_groups(tmp_path, 1, False)
    g, raised = tables.read(tmp_path, RUN, "metagradients", 0)["g"].to_numpy(), []
    best = g < np.quantile(g, 0.05)
    for strength in (0.0, 3.0):
        options = DescentOptions(rounds=1, rule="exchange", p=1.0, share=0.02, diversity=strength)
        alike = np.where(best, 0, 1 + np.arange(N))  # the best are copies of one another
        publish_update(tmp_path / "runs" / RUN, 0, options, alike=alike if strength else None)
        after = tables.read(tmp_path, RUN, "counts", 1)["count"].to_numpy()
        raised.append(int((after[best] == 2).sum()))
    assert raised[0] == int(0.02 * N) and raised[1] < 0.5 * raised[0]


def test_whole_groups_move_as_one(tmp_path: Path) -> None:
    groups, _ = fill_groups(tmp_path, 2, True)
    options = DescentOptions(rounds=2, rule="sign", p=1.0, momentum=1.0, groups=("source",), whole_groups=True)
    publish_update(tmp_path / "runs" / RUN, 1, options, [groups])
    after = tables.read(tmp_path, RUN, "counts", 2)["count"].to_numpy()
    assert all(len(set(after[groups == one])) == 1 for one in range(5))
    assert set(after[groups == 0]) == {2} and set(after[groups == 4]) == {0}
