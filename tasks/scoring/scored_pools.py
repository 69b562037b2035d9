"""Scores of a pool by a scorer, shard by shard: each is found done by its record, and together they are one table.

The table (`<home>/scores/<name>.parquet`, or a file of one's own) has a row a sample: uid and score, the highest the
best. `mgd subset` takes it as `score(name="...", fraction=0.3)`. A shard's scores are a function of scorer, pool and
shard, on one thread: no byte depends on who carried the work. Other shards of the same pairs give other last digits.

Cost: a look at each sample by each model, or nothing but its numbers; memory for a shard, and 8 bytes a sample.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from mgd_core.training.determinism import deterministic
from tasks.files.artefacts import digest, file_digest, is_done, publish_json, unit_name
from tasks.files.export_files import publishing_over
from tasks.files.plurals import counted
from tasks.pool.columns import columns_of, mapped, publish_array
from tasks.pool.record import PoolRecord, load_pool
from tasks.scoring.scorers import Scorer, ScorerError, read_scorer
from tasks.tables.published import ROW_GROUP
from tasks.tables.run_folders import score_table
from tasks.tables.streams import RowWriter
from tasks.tables.uids import UID, uid_array

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True)
class ScorePlan:
    """A pool to be scored: by which file of which ``content``, on which device, and where the table goes."""

    scorer: Path
    content: str
    home: Path
    pool: Path
    out: Path
    device: str = "cpu"

    @cached_property
    def record(self) -> PoolRecord:
        """The pool's record, read once in each process: every shard asks for it."""
        pool = load_pool(self.pool)
        if pool is None:
            raise ScorerError(f"{self.pool}: no pool, or one that is gone")
        return pool

    @property
    def shards(self) -> list[str]:
        """The pool's shards."""
        return columns_of(self.record).names

    def unit(self, shard: str) -> tuple[Path, str]:
        """Where a shard's scores are recorded, and their key."""
        pool = self.record.samples_digest
        place = self.home / "scores" / "shards" / f"{self.content[:12]}-{pool[:12]}"
        return place / f"{unit_name(shard)}.json", digest([self.content, pool, shard, self.device])


def plan_scores(scorer: Path, home: Path, pool: Path, name: str | None, out: Path | None, device: str) -> ScorePlan:
    """How a pool is scored; sees that it can be.

    Raises ScorerError, FeatureError.
    """
    name = name or re.sub(r"[^A-Za-z0-9_.-]", "_", scorer.stem)
    if out is None and not NAME.fullmatch(name):
        raise ScorerError(f"--save {name}: a name is up to 64 letters, digits, and _ . - after the first")
    try:
        torch.zeros(1, device=device)
    except Exception as error:  # torch raises what it likes
        raise ScorerError(f"--device {device}: {str(error).splitlines()[0][:200]}") from error
    read = read_scorer(scorer)
    plan = ScorePlan(scorer, file_digest(scorer), home, pool, out or score_table(home, name), device)
    read.check(plan.record)
    return plan


def pending_shards(plan: ScorePlan) -> list[str]:
    """Shards that are not scored yet."""
    return [shard for shard in plan.shards if not is_done(*plan.unit(shard))]


def score_shard(plan: ScorePlan, shard: str) -> None:
    """Score one shard, unless it is scored."""
    record, key = plan.unit(shard)
    if not is_done(record, key):
        ids = columns_of(plan.record).of_shard(shard)
        with deterministic(1):
            found = _scorer(plan.scorer, plan.content, plan.device).scores(plan.record, ids)
        publish_array(record.with_suffix(".npy"), found)
        publish_json(record, {"key": key})


def finish_scores(plan: ScorePlan) -> None:
    """Put the shards' scores together as a table."""
    columns = columns_of(plan.record)
    scores = np.full(len(columns), np.nan)
    for shard in columns.names:
        scores[columns.of_shard(shard)] = mapped(plan.unit(shard)[0].with_suffix(".npy"))
    assert np.isfinite(scores).all(), "a shard was not scored"
    origin = {b"scorer": plan.content.encode(), b"pool": plan.record.samples_digest.encode()}
    schema = pa.schema([pa.field("uid", UID, False), pa.field("score", pa.float64(), False)], metadata=origin)
    plan.out.parent.mkdir(parents=True, exist_ok=True)
    with publishing_over(plan.out, "parquet") as file:
        writer = RowWriter(file, schema)
        for at in range(0, len(scores), ROW_GROUP):
            part = slice(at, at + ROW_GROUP)
            uids = uid_array(np.ascontiguousarray(columns.uids[part]))
            writer.add(pa.table([uids, pa.array(scores[part])], schema=schema))
        writer.close()


def format_scores(plan: ScorePlan) -> str:
    """A sentence on the table."""
    samples = counted(plan.record.samples, "sample")
    return f"{plan.out}: scores of {samples}, the highest the best, by {plan.scorer}"


@lru_cache(maxsize=1)
def _scorer(path: Path, content: str, device: str) -> Scorer:
    """The scorer of a file with the digest ``content``, once in each process."""
    if file_digest(path) != content:
        raise ScorerError(f"{path}: was changed since its first shard was scored; give the command again")
    return read_scorer(path, device)
