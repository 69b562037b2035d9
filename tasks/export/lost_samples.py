"""Lost samples: those of a subset that do not come along in an export, and how many may.

A lost copy counts as one sample. The table has a row a uid, with how many of its copies are missing and why:
`dead_link` (not downloaded), `not_in_pool` (nothing is known of the uid: another pool, perhaps), the reason for which
the pool rejected it, or what was met when its tar was read (`missing_shard`, `unreadable_shard`, `shard_changed`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mgd_core.errors import UserError
from tasks.files.artefacts import publishing
from tasks.tables.published import write_parquet
from tasks.tables.uids import UID, uid_array, uid_hex

LOST = pa.schema(
    [("uid", UID), ("copies", pa.int64()), ("shard", pa.string()), ("reason", pa.string()), ("detail", pa.string())]
)


class LostSamples(UserError, ValueError):
    """More samples of a subset are missing than its budget allows."""


def lost_table(known: pa.Table, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """What was known to be lost and what was found since (rows of LOST, uid as hex, a row a copy), sorted by uid."""
    found: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: str(row["uid"])):
        one = found.setdefault(str(row["uid"]), {**row, "copies": 0})
        one["copies"] += row["copies"]
    columns = [uid_array(list(found))] + [
        pa.array([row[field.name] for row in found.values()], field.type) for field in list(LOST)[1:]
    ]
    table = pa.concat_tables([known, pa.table(columns, schema=LOST)]).combine_chunks()
    return table.take(pc.sort_indices(table["uid"].combine_chunks().storage))


def copies_lost(lost: pa.Table) -> int:
    """Samples that are missing, copies counted."""
    return pc.sum(lost["copies"]).as_py() or 0


def write_lost(lost: pa.Table, path: Path) -> None:
    """Publish the table, or nothing when nothing is lost."""
    if lost.num_rows:
        with publishing(path) as file:
            write_parquet(file, lost)


def check_lost(lost: pa.Table, total: int, budget: int | float, path: Path) -> None:
    """Raise LostSamples, with the table published under `path`, unless the budget (a number, or a share of the `total`)
    covers what is lost."""
    count, allowed = copies_lost(lost), allowance(budget, total)
    if count <= allowed:
        return
    write_lost(lost, path)
    reasons = "; ".join(
        f"{row['copies_sum']:,} {row['reason']}"
        for row in lost.group_by("reason").aggregate([("copies", "sum")]).sort_by("reason").to_pylist()
    )
    first = ", ".join(uid_hex(lost["uid"].slice(0, 3)))
    raise LostSamples(
        f"{count:,} of {total:,} samples of the subset are missing, {allowed:,} may be (max_lost {budget:g}): "
        f"{reasons}. First: {first}. All are in {path}. Is it the right pool? If so, repair it, or raise max_lost to "
        "go on without them; what is written is kept"
    )


def allowance(budget: int | float, total: int) -> int:
    """Samples that may be missing."""
    return budget if isinstance(budget, int) else int(budget * total)
