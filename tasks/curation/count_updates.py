"""The count update of a round, from published tables to published tables, in bounded memory.

The tables of a round have the same samples in the same order, so they are read side by side, a row group at a time
(`table_streams`). What the update acts on (g, or the sum over rounds that the catalog asks for) goes into scratch files
once, since `exchange` looks at it several times; then the next round's counts and their manifest are written in one
pass.

Cost: about 0.7 GiB of memory whatever the number of samples, 13 bytes of scratch a sample (21 with scale = "sample"),
and a keyed hash a sample where p < 1, about a microsecond.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mgd_core.descent.order_statistics import median
from mgd_core.descent.steps import (
    Counts,
    CountUpdate,
    Gradients,
    Mask,
    in_sizes,
    mask,
    mean_in_blocks,
    per_own_size,
    terms,
)
from mgd_core.descent.streamed_descent import Chunk, streamed_exchange, streamed_sign
from tasks.catalog.recipe_options import DescentOptions
from tasks.files.scratch import scratch
from tasks.tables.manifests import ManifestRows, streaming_manifest
from tasks.tables.published import ROW_GROUP, TableError, files
from tasks.tables.streams import TableRows, publishing_rows, row_groups
from tasks.tables.uids import Bytes16, uid_array, uid_bytes


@dataclass(frozen=True)
class Moves:
    """What an update did: samples whose count it raised and lowered."""

    raised: int
    lowered: int


@dataclass(frozen=True)
class Published:
    """The published tables of a run that an update reads: files of metagradients and counts by round."""

    metagradients: dict[int, Path]
    counts: dict[int, Path]

    @classmethod
    def of(cls, home: Path, run: str, rounds: list[int]) -> Published:
        """The files of these rounds; raises TableError naming one that is not there."""
        found = {table: files(home, run, table) for table in ("metagradients", "counts")}
        for table, parts in found.items():
            missing = [number for number in rounds if number not in parts]
            if missing:
                raise TableError(f"{home}: run {run!r} has no {table} for round {missing[0]}; published: {list(parts)}")
        return cls(*({number: parts[number] for number in rounds} for parts in found.values()))


def publish_update(run_dir: Path, round: int, options: DescentOptions, provenance: Mapping[str, Any]) -> Moves:
    """Step the counts of `round` by its metagradients, and publish those of the next round with their manifest.

    `run_dir` is `<home>/runs/<run>`. Equal tables give equal bytes, those that `tables.publish` and
    `manifests.write_manifest` give. Raises TableError where a table is not there, ManifestError where nothing is left.
    """
    home, run = run_dir.parents[1], run_dir.name
    rounds = [r for r in range(round + 1) if r == round or options.memory]
    published = Published.of(home, run, rounds)
    with ExitStack() as open_until_done:
        directory = open_until_done.enter_context(scratch(home, "update"))
        updates = _updates(_prepared(directory, published, round, options), options)
        table = open_until_done.enter_context(publishing_rows(home, run, "counts", round + 1))
        manifest = open_until_done.enter_context(streaming_manifest(run_dir, round + 1, provenance))
        raised = lowered = 0
        for (rows,), update in zip(row_groups([published.counts[round]], [["uid"]]), updates, strict=True):
            _add(table, manifest, uid_array(rows["uid"]), update.counts)
            raised, lowered = raised + update.raised, lowered + update.lowered
    return Moves(raised, lowered)


def publish_counts(run_dir: Path, round: int, uids: Bytes16, counts: Counts, provenance: Mapping[str, Any]) -> None:
    """Publish counts (n,) of ascending uids (n,) as a round's table and manifest."""
    with ExitStack() as open_until_done:
        table = open_until_done.enter_context(publishing_rows(run_dir.parents[1], run_dir.name, "counts", round))
        manifest = open_until_done.enter_context(streaming_manifest(run_dir, round, provenance))
        for at in range(0, len(uids), ROW_GROUP):
            _add(table, manifest, uid_array(uids[at : at + ROW_GROUP]), counts[at : at + ROW_GROUP])


def _add(table: TableRows, manifest: ManifestRows, uids: pa.Array, counts: Counts) -> None:
    table.add(pa.table({"uid": uids, "count": counts.astype(np.int32)}))
    kept = np.flatnonzero(counts > 0)
    manifest.add(uid_array(uid_bytes(uids)[kept]), counts[kept])


@dataclass(frozen=True)
class Columns:
    """Files of plain numbers, one a column, that are read ROW_GROUP samples at a time."""

    directory: Path
    columns: Mapping[str, npt.DTypeLike]
    mean_square: float = 0.0

    def chunks(self) -> Iterator[Chunk]:
        """What the update acts on; g is scaled here where the scale needs the whole pool."""
        for counts, total, moving, *squares in self.read("counts", "g", "moving", *self._squares):
            g = per_own_size(total, squares[0], self.mean_square) if squares else total
            yield Chunk(counts.astype(np.int64), g, moving)

    def read(self, *names: str) -> Iterator[list[Any]]:
        """Columns side by side."""
        with ExitStack() as opened:
            files = [opened.enter_context(open(self.directory / name, "rb")) for name in names]
            kinds = [self.columns[name] for name in names]
            parts = [np.fromfile(*each, ROW_GROUP) for each in zip(files, kinds, strict=True)]
            while len(parts[0]):
                yield parts
                parts = [np.fromfile(*each, ROW_GROUP) for each in zip(files, kinds, strict=True)]

    def append(self, **columns: npt.NDArray[Any]) -> None:
        """Write the next samples' values."""
        for name, values in columns.items():
            with open(self.directory / name, "ab") as file:
                values.astype(self.columns[name], copy=False).tofile(file)

    @property
    def _squares(self) -> list[str]:
        return ["squares"] if "squares" in self.columns else []


def _updates(columns: Columns, options: DescentOptions) -> Iterator[CountUpdate]:
    if options.rule == "sign":
        return streamed_sign(columns.chunks, options.max_count)
    return streamed_exchange(columns.chunks, options.share, options.max_count)


def _prepared(directory: Path, published: Published, round: int, options: DescentOptions) -> Columns:
    """What the update acts on, a column each: counts, who moves, and g, with earlier rounds' discounted by `memory`."""
    kinds: dict[str, npt.DTypeLike] = {"counts": np.int32, "g": np.float64, "moving": np.bool_}
    if options.scale == "sample":
        kinds["squares"] = np.float64
    columns = Columns(directory, kinds)
    rounds = list(published.metagradients)
    weights = [options.memory ** (round - r) for r in rounds]
    for uids, counts, gradients, probed in _side_by_side(directory, published, round, options.scale == "count"):
        total, squares = terms(gradients, weights)
        moving = np.any(probed, axis=0)
        moving[moving] = mask(uids[moving], options.seed, round, options.p)
        columns.append(counts=counts, g=total, moving=moving)
        if options.scale == "sample":
            columns.append(squares=squares)
    if options.scale != "sample":
        return columns
    return Columns(directory, kinds, mean_in_blocks(squares for (squares,) in columns.read("squares")))


def _side_by_side(
    directory: Path, published: Published, round: int, by_count: bool
) -> Iterator[tuple[Bytes16, Counts, list[Gradients], list[Mask]]]:
    """uids, the round's counts, and each round's g and who was probed; g in sizes of its count where `by_count`."""
    rounds = list(published.metagradients)
    earlier = [r for r in rounds if by_count and r != round]
    paths = [published.counts[round], *published.metagradients.values(), *(published.counts[r] for r in earlier)]
    sizes = [_median_sizes(directory, published, r) for r in rounds] if by_count else []
    wanted = [["uid", "count"], *[["g", "probed"]] * len(rounds), *[["count"]] * len(earlier)]
    for own, *others in row_groups(paths, wanted):
        tables = others[: len(rounds)]
        probed = [table["probed"].to_numpy() for table in tables]
        gradients = [table["g"].to_numpy() for table in tables]
        if by_count:
            counts = [*map(_counts, others[len(rounds) :]), _counts(own)]
            gradients = [in_sizes(*parts) for parts in zip(gradients, counts, probed, sizes, strict=True)]
        yield uid_bytes(own["uid"]), _counts(own), gradients, probed


def _median_sizes(directory: Path, published: Published, round: int) -> dict[int, float]:
    """Median of |g| among the probed samples of each count of a round."""
    columns, numbers = Columns(directory / f"round-{round}", {"counts": np.int32, "sizes": np.float64}), Counter[int]()
    columns.directory.mkdir()
    for rows, table in row_groups(
        [published.counts[round], published.metagradients[round]], [["count"], ["g", "probed"]]
    ):
        probed = table["probed"].to_numpy()
        counts, sizes = _counts(rows)[probed], np.abs(table["g"].to_numpy()[probed])
        columns.append(counts=counts, sizes=sizes)
        numbers.update(dict(zip(*(x.tolist() for x in np.unique(counts, return_counts=True)), strict=True)))

    def sizes_of(count: int) -> Callable[[], Iterator[Gradients]]:
        return lambda: (sizes[counts == count] for counts, sizes in columns.read("counts", "sizes"))

    return {count: median(sizes_of(count), n) for count, n in sorted(numbers.items())}


def _counts(table: pa.Table) -> Counts:
    return np.asarray(table["count"].to_numpy().astype(np.int64))
