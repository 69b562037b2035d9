"""Pool records: what a finished pool says of itself, and whether it is within its budget of bad samples.

A share of rejects is of the samples that were seen, used or not. Damaged tars have a budget of their own,
because how many samples each of them lost cannot be known.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pyarrow.parquet as pq
from pydantic import Field, NonNegativeInt, ValidationError

from tasks.files.artefacts import read_json
from tasks.files.option_types import FromZero, Section, Strict, Whole
from tasks.files.remotes import RemoteOptions
from tasks.homes.working_copies import at_hand
from tasks.pool.forms import PairForm, SampleForm
from tasks.pool.index_jobs import PoolError
from tasks.pool.validation import DAMAGE

Budget = NonNegativeInt | Annotated[float, Field(ge=0, le=1)]
"""How many may be bad: a whole number counts, a fraction is a share."""


class EmptyPool(PoolError):
    """No sample of the pool can be used."""


class TooManyRejects(PoolError):
    """More of the pool was rejected than its budget allows."""


class Tolerance(Section):
    """How much of a pool may be bad, and how it is read."""

    max_rejects: Budget = 0.01
    """Bad samples that are recorded and left out before the flow stops: a share (0.01) or a whole number."""
    max_damaged_shards: FromZero = 0
    """Truncated or corrupt files that are gone through as far as they can be read before the flow stops."""
    remote: RemoteOptions = RemoteOptions()
    """How patiently remote stores are read, and how much of them is kept in the home; changes no result."""


class BuildOptions(Tolerance):
    """How a pool is built and how much of it may be bad."""

    shard_size: Whole = 1000
    """Samples in each shard that is written."""
    metadata: str | tuple[str, ...] | None = None
    """Parquet files joined by uid; None: `metadata` beside a folder `shards`; an empty tuple: none."""
    form: SampleForm = PairForm()
    """What the samples are, and how they are read."""


class PoolRecord(Strict):
    """A finished pool. Its existence as `pool.json` says that all its files are complete."""

    pool_id: str
    directory: Path = Field(exclude=True, description="where the pool lies; relative shards are below it")
    source: str
    shards: int
    samples: int
    rejects: int
    reasons: dict[str, int]
    without_metadata: int | None = Field(
        default=None, description="samples without a row in the metadata, if there is one"
    )
    samples_digest: str
    rejects_digest: str
    kind: str | None = Field(
        default=None, description="what its samples are; None: an earlier version did not say, see `samples_kind`"
    )
    columns: dict[str, Any] | None = Field(default=None, description="what the form of its samples says besides")
    mgd: str | None = Field(default=None, description="the version of mgd that made it; None: one that did not say")
    notes: tuple[str, ...] = Field(default=(), description="what else is to be told of it, sentences")

    @property
    def samples_kind(self) -> str:
        """What its samples are: the `kind` of their form."""
        if self.kind is not None:
            return self.kind
        names = pq.read_schema(self.samples_path).names
        with pq.ParquetFile(self.samples_path) as file:
            first = next(file.iter_batches(1, columns=["image_size"]), None)
        texts = "completion" in names and (first is None or first["image_size"].null_count > 0)
        return "texts" if texts else "pairs"

    @property
    def samples_path(self) -> Path:
        """The samples table, sorted by uid."""
        return self._table("samples")

    @property
    def rejects_path(self) -> Path:
        """The rejects table."""
        return self._table("rejects")

    def _table(self, name: str) -> Path:
        path = self.directory / f"{name}.parquet"
        at_hand(path)
        return path


def load_pool(directory: str | Path) -> PoolRecord | None:
    """The record of the finished pool in `directory`, or None when it is not finished."""
    path = Path(directory) / "pool.json"
    if not path.exists():
        return None
    try:
        record = read_json(path)
        return PoolRecord(directory=Path(directory), **record)
    except ValidationError as error:
        first = error.errors()[0]
        told = f"{'.'.join(map(str, first['loc']))}: {first['msg']}".lower()
        by = f", but of mgd {record['mgd']}" if "mgd" in record else ""
        told = f"not a record of this version{by} ({told})"
        raise PoolError(f"{path}: {told}. Remove {directory} to build it anew") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise PoolError(f"{path}: not a record ({error}). Remove {directory} to build it again") from error


def check_budget(options: BuildOptions, record: PoolRecord) -> None:
    """Raise TooManyRejects or EmptyPool, with examples, unless the pool is within its budget."""
    damaged = sum(record.reasons.get(reason, 0) for reason in DAMAGE)
    bad, budget = record.rejects - damaged, options.max_rejects
    allowed = budget if isinstance(budget, int) else int(budget * (record.samples + bad))
    if damaged > options.max_damaged_shards:
        what = f"{damaged} of {record.shards} {options.form.one_file}s damaged, "
        what += f"max_damaged_shards is {options.max_damaged_shards}"
        raise TooManyRejects(
            f"{what}. {_examples(record)} Fetch them again, or raise max_damaged_shards to go on without"
        )
    if not record.samples:
        raise EmptyPool(f"no usable sample in {record.source}. {_examples(record)} Check that this is the right place")
    if bad > allowed:
        what = f"{bad:,} of {record.samples + bad:,} rejected, {allowed:,} allowed (max_rejects {budget})"
        raise TooManyRejects(f"{what}. {_examples(record)} Repair the pool, or raise max_rejects to go on without them")


def told_rejects(record: PoolRecord) -> str:
    """A sentence on what was left out of a pool that is within its budget; empty if nothing was."""
    return f"{record.rejects:,} rejected, the rest goes on. {_examples(record)}" if record.rejects else ""


def _examples(record: PoolRecord) -> str:
    """Counts by reason, the first three rejects, and where the rest is."""
    if not record.rejects:
        return "Nothing was rejected either: the source is empty."
    counts = ", ".join(f"{count:,} {reason}" for reason, count in record.reasons.items())
    with pq.ParquetFile(record.rejects_path) as file:
        first = file.read().slice(0, 3).to_pylist()
    shown = "; ".join(f"{row['shard']} {row['member']}: {row['reason']} {row['detail']}".strip() for row in first)
    return f"Pool {record.pool_id}: {counts}. First: {shown}. All are in {record.rejects_path}."
