"""The tables of a home for Python: each as a lazy polars frame over the published files.

    from tasks.tables.scan import scan
    scan("runs", "counts").filter(pl.col("count") > 1).collect()

The home may be a URL.

Nothing is read before it is asked for, and then only the columns that are. Questions that join tables, and the views,
are for SQL (`mgd sql`, `queries.connect`).
"""

from __future__ import annotations

from pathlib import Path
from warnings import warn

import polars as pl
import pyarrow as pa

from tasks.homes.opening import opened
from tasks.homes.working_copies import at_hand, home_path
from tasks.tables.published import TableError, files
from tasks.tables.queries import ALL, Found, chosen_runs
from tasks.tables.schemas import FORMER, TABLES
from tasks.tables.table_views import table_view


def scan(home: str | Path, table: str, run: str | None = None) -> pl.LazyFrame:
    """All rounds of a table, with `run` and `round` in front and uid as 32 hex digits.

    `run` is one run, "all", or None for the one that published last. Raises QueryError where there is no such run,
    TableError where it has published no such table, or in a newer form. Of all runs, what cannot be read is left out,
    with a warning.
    """
    with opened(home, writes=False):
        home = home_path(home)
    chosen = chosen_runs(home, run)
    if run == ALL:
        found = Found(home, chosen, True, [table])
        table_view(table, found.files[table], found.skip)
        for told in found.left_out.values():
            warn("; ".join(told), stacklevel=2)
        published = [_place(path) for path in found.files[table]]
    else:
        published = [(one, number, path) for one in chosen for number, path in files(home, one, table).items()]
    if not published:
        raise TableError(f"{home}: {', '.join(chosen) or 'no run'} has published no {table} yet")
    return pl.concat([_columns(table), *(_part(table, *part) for part in published)], how="diagonal_relaxed")


def _place(path: Path) -> tuple[str, int, Path]:
    """Run, round and path of a published file."""
    return path.parents[1].name.removeprefix("run="), int(path.parent.name.removeprefix("round=")), path


def _columns(table: str) -> pl.LazyFrame:
    """No row, but all columns of the table: those that an earlier version did not know are null in its files."""
    fields = [pa.field("run", pa.string()), pa.field("round", pa.int32()), *TABLES[table]]
    kinds = {field.name: pa.string() if field.name == "uid" else field.type for field in fields}
    return pl.DataFrame(pa.schema(kinds.items()).empty_table()).lazy()


def _part(table: str, run: str, round: int, path: Path) -> pl.LazyFrame:
    """The rows of one file, in the present names."""
    at_hand(path)
    present = {former: name for name, former in FORMER.get(table, {}).items()}
    rows = pl.scan_parquet(path, glob=False).rename(present, strict=False)
    place = [pl.lit(run).alias("run"), pl.lit(round, pl.Int32).alias("round")]
    uids = [pl.col("uid").bin.encode("hex")] if "uid" in TABLES[table].names else []
    return rows.select(*place, *uids, pl.exclude("uid"))
