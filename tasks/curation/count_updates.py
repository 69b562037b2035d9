"""The count update of a round, from published tables to published tables.

The tables of a round have the same samples in the same order, so they are laid side by side and asked by one lazy
polars query for what the update acts on: g, or the sum over rounds that the catalog asks for, of the samples that move.
uids never go through it: the mask is a keyed hash of their bytes, and the next round's counts are written in the order
that the round has. `mgd_core.descent.steps` decides who moves.

What g is taken for, and how surely, is published beside (`beliefs`) where the step acts on it, and of pools of up to
BELIEVED samples in any case.

Cost: memory for the counts and, of the samples that move, about 60 bytes each; 8 bytes a sample more with scale =
"sample", 40 with scale = "count", 500 for beliefs with groups; and a keyed hash a sample where p < 1, about a
microsecond.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from mgd_core.descent.diversity import diminishing
from mgd_core.descent.shrinkage import Codes, Denoised, Vector
from mgd_core.descent.steps import Counts, CountUpdate, Mask, confident_step, exchange_step, mask, sign_step
from tasks.catalog.recipe_options import DescentOptions
from tasks.scoring.acted_on import acted_on, believed, column, measured
from tasks.tables.published import ROW_GROUP, TableError, files
from tasks.tables.streams import publishing_rows
from tasks.tables.uids import Bytes16, uid_array, uid_bytes

BELIEVED = 1 << 21
"""Samples of a pool up to which beliefs are published where no step acts on them: they take about 500 bytes each."""
Learn = Callable[[Vector, Vector], Vector]
"""Of a measured g (n,) and how many rounds' worth it is (n,), what is to be expected of each sample (n,)."""


@dataclass(frozen=True)
class Published:
    """The published tables of a run that an update reads: files of metagradients and counts by round, alike in rows."""

    metagradients: dict[int, Path]
    counts: dict[int, Path]

    @classmethod
    def of(cls, home: Path, run: str, rounds: list[int]) -> Published:
        """The files of these rounds; raises TableError naming one that is not there, or has other rows."""
        found, rows = {table: files(home, run, table) for table in ("metagradients", "counts")}, set()
        for table, parts in found.items():
            missing = [number for number in rounds if number not in parts]
            if missing:
                raise TableError(f"{home}: run {run!r} has no {table} for round {missing[0]}; published: {list(parts)}")
            rows |= {(pq.read_metadata(parts[number]).num_rows, table) for number in rounds}
        if len({n for n, _ in rows}) > 1:
            told = ", ".join(f"{table} {n:,}" for n, table in sorted(rows))
            raise TableError(f"tables of one run have different numbers of rows: {told}")
        return cls(*({number: parts[number] for number in rounds} for parts in found.values()))

    def side_by_side(self) -> pl.LazyFrame:
        """What is known of every sample, a column a round: `g0`, `g_error0`, `probed0`, `count0`, ..."""
        parts = []
        for columns, paths in ((["g", "g_error", "probed"], self.metagradients), (["count"], self.counts)):
            for number, path in paths.items():
                rows, there = pl.scan_parquet(path, glob=False), pq.read_schema(path).names
                known = [pl.col(name) if name in there else pl.lit(None, pl.Float64) for name in columns]
                parts.append(
                    rows.select(one.alias(f"{name}{number}") for name, one in zip(columns, known, strict=True))
                )
        return pl.concat(parts, how="horizontal")


def publish_update(
    run_dir: Path,
    round: int,
    options: DescentOptions,
    groups: Sequence[Codes] = (),
    learn: Learn | None = None,
    alike: Codes | None = None,
) -> CountUpdate:
    """Step the counts of `round` by its metagradients, publish what is believed of g and the next round's counts, and
    return them.

    `run_dir` is `<home>/runs/<run>`; `groups`: of each sample, for every grouping of `options`; `learn`: a model of g,
    if there is one; `alike`: the groups in which the next sample is worth less, where `options` have `diversity`. Equal
    tables give equal bytes. Raises TableError where a table is not there, or nothing is left.
    """
    rounds = rounds_acted_on(options, round)
    published = Published.of(run_dir.parents[1], run_dir.name, rounds)
    samples = published.side_by_side()
    beliefs = None
    if options.acts_on_beliefs or pq.read_metadata(published.counts[round]).num_rows <= BELIEVED:
        found = measured(samples, rounds, options)
        expected = learn(found.mean, found.rounds) if learn else None
        beliefs = believed(found, groups, options.groups, expected, options.whole_groups)
        _publish_beliefs(run_dir, round, _uids(published.counts[round]), beliefs)
    update = _stepped(published, samples, round, options, beliefs, alike)
    publish_counts(run_dir, round + 1, _uids(published.counts[round]), update.counts)
    return update


def rounds_acted_on(options: DescentOptions, round: int) -> list[int]:
    """Rounds whose g the step of a round acts on: its own, and with `momentum` all before it."""
    return list(range(round + 1)) if options.momentum else [round]


def publish_counts(run_dir: Path, round: int, uids: Iterable[Bytes16], counts: Counts) -> None:
    """Publish counts (n,) of ascending uids, which come in pieces, as a round's table; raises TableError where all of
    them are 0."""
    if not counts.any():
        raise TableError(f"round {round}: every sample was dropped; a smaller step (p), or fewer rounds, keeps some")
    at = 0
    with publishing_rows(run_dir.parents[1], run_dir.name, "counts", round) as table:
        for piece in uids:
            table.add(pa.table({"uid": uid_array(piece), "count": counts[at : at + len(piece)].astype(np.int32)}))
            at += len(piece)


def _publish_beliefs(run_dir: Path, round: int, uids: Iterable[Bytes16], beliefs: Denoised) -> None:
    columns, at = {"g_mean": beliefs.values, "g_sd": beliefs.errors, "p_helps": beliefs.helps}, 0
    with publishing_rows(run_dir.parents[1], run_dir.name, "beliefs", round) as table:
        for piece in uids:
            stop = at + len(piece)
            table.add(pa.table({"uid": uid_array(piece), **{name: x[at:stop] for name, x in columns.items()}}))
            at = stop


def _stepped(
    published: Published,
    samples: pl.LazyFrame,
    round: int,
    options: DescentOptions,
    beliefs: Denoised | None,
    alike: Codes | None,
) -> CountUpdate:
    """The next round's counts (n,): the rule of the catalog among the samples that move."""
    moving = _moving(samples, published.counts[round], round, options)
    if options.acts_on_beliefs:
        assert beliefs is not None
        g = beliefs.values[moving]
    else:
        sums = samples.select(acted_on(samples, list(published.counts), options))
        g = column(pl.concat([sums, pl.LazyFrame({"moving": moving})], how="horizontal").filter("moving"))
    if alike is not None:
        g = diminishing(g, alike[moving], options.diversity)
    counts = column(samples.select(f"count{round}")).astype(np.int64)
    old, all_of_them = counts[moving], np.ones(len(g), bool)
    if options.rule == "sign":
        update = sign_step(old, g, all_of_them, options.max_count)
    elif options.rule == "exchange":
        update = exchange_step(old, g, all_of_them, options.share, options.max_count)
    else:
        assert beliefs is not None
        errors = beliefs.errors[moving]
        update = confident_step(old, g, errors, all_of_them, options.share, options.z, options.max_count)
    counts[moving] = update.counts
    return update._replace(counts=counts)


def _moving(samples: pl.LazyFrame, of: Path, round: int, options: DescentOptions) -> Mask:
    """Who moves (n,): the masked among those that a round has probed."""
    moving, at = column(samples.select(pl.any_horizontal(pl.col("^probed.*$")))).copy(), 0
    for uids in _uids(of):
        piece = moving[at : at + len(uids)]
        piece[piece] = mask(uids[piece], options.seed, round, options.p)
        at += len(uids)
    return moving


def _uids(path: Path) -> Iterator[Bytes16]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(ROW_GROUP, columns=["uid"]):
            yield uid_bytes(batch["uid"])
