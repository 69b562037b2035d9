"""Pools: from a sheet of tiles, or from existing tars, to a table of samples that are read one by one.

`plan_pool` splits the work into units of one shard; `write_or_index_unit` does one (writes the shard if the source is
a sheet, then indexes it); `finish_pool` joins the parts into `samples.parquet` and `rejects.parquet`, sorted by uid,
and writes `pool.json` last. A unit's marker carries the digest of its inputs, so a killed build continues with the
same bytes, and a pool that is finished is never built again. Tars are indexed where they are, on any store, not
copied; whoever changes or adds some gets a new pool, for which those are indexed, and the tables joined anew. Equal
tars give equal tables wherever they lie: rows name their shard by its path below the pool's base (`sources`). Metadata
beside the tars is joined by uid (`metadata`).

Cost: one pass over the images, and what `joins` takes in `finish_pool`. Units are independent of each other.
"""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from tasks.files.artefacts import digest, file_digest, publish_json, publishing
from tasks.files.local_files import absolute
from tasks.files.option_types import Strict
from tasks.files.package_data import product
from tasks.files.plurals import counted
from tasks.files.progress import say
from tasks.files.remote_files import Reader
from tasks.files.remotes import split_query
from tasks.files.scratch import scratch
from tasks.files.sources import PoolSource, common_base, fingerprint, reader_of, record_source
from tasks.homes.working_copies import at_hand, removed
from tasks.pool.index_jobs import (
    IndexJob,
    check_done,
    check_part,
    is_done,
    read_marker,
    sheet_fingerprint,
    write_or_index_unit,
)
from tasks.pool.joins import Repeat, join_parts
from tasks.pool.metadata import find_metadata
from tasks.pool.record import BuildOptions, PoolRecord, check_budget, load_pool
from tasks.pool.sheets import TABLE, open_sheet
from tasks.pool.validation import reject
from tasks.tables.published import conform, read_parquet, write_parquet
from tasks.tables.uids import uid_array


class PoolPlan(Strict):
    """What building a pool takes: its units, none of which depends on another."""

    pool_id: str
    directory: Path
    source: str
    units: tuple[IndexJob, ...]
    options: BuildOptions
    metadata: tuple[str, ...] = ()
    passed_over: tuple[str, ...] = ()
    """Files beside the pool's that look like data, and are none of it."""


def build_pool(
    source: str | Path | Sequence[str], home: str | Path, options: BuildOptions | None = None, split: str = "pool"
) -> PoolRecord:
    """Build, or find built, the pool of `source` in `home`, unit by unit in this process."""
    plan = plan_pool(source, home, options, split)
    for unit in pending_units(plan):
        write_or_index_unit(unit)
    return finish_pool(plan)


def plan_pool(
    source: str | Path | Sequence[str], home: str | Path, options: BuildOptions | None = None, split: str = "pool"
) -> PoolPlan:
    """The units of a pool: a sheet's directory (`split` of it), or tars: a directory, glob, brace pattern,
    URL or list of them.

    Notes in the pool's directory where its tars are. Raises SourceError when there is nothing at `source`.
    """
    options = options or BuildOptions()
    if options.form.has_pictures and isinstance(source, str | Path) and (Path(source) / TABLE).is_file():
        return _plan_sheet(Path(source), Path(home), options, split)
    return _plan_tars(source, Path(home), options)


def pending_units(plan: PoolPlan) -> list[IndexJob]:
    """The units still to do; none when the pool is finished. Tells how many were done before."""
    told, units = f"pool {plan.pool_id}:", len(plan.units)
    if load_pool(plan.directory):
        say(f"{told} all of its {counted(units, 'file')} were indexed before, and nothing changed")
        return []
    pending = [unit for unit in plan.units if not is_done(unit)]
    if len(pending) < units:
        say(f"{told} of its {counted(units, 'file')}, {units - len(pending):,} were indexed before")
    return pending


def finish_pool(plan: PoolPlan) -> PoolRecord:
    """Join the parts and write the pool's record; returns it at once when the pool is finished.

    A uid's first sample (in shard order) stays, later ones are rejected. Raises EmptyPool, or TooManyRejects,
    naming counts by reason and the first three examples; the rejects table is there to look at in both cases.
    """
    record = load_pool(plan.directory)
    if record is None:
        at_hand(*(unit.part for unit in plan.units))
        record = _join(plan)
    for note in record.notes:
        say(f"pool {record.pool_id}: {note}")
    removed(plan.directory / "parts")
    shutil.rmtree(plan.directory / "parts", ignore_errors=True)
    check_budget(plan.options, record)
    return record


def _plan_sheet(sheet: Path, home: Path, options: BuildOptions, split: str) -> PoolPlan:
    rows, size = open_sheet(sheet).rows(split).num_rows, options.shard_size
    shared = {"source": str(sheet), "fingerprint": sheet_fingerprint(sheet), "split": split}
    units = [{**shared, "start": at, "stop": min(at + size, rows)} for at in range(0, rows, size)]
    return _plan(Path(absolute(str(sheet), Path.cwd())).name, str(sheet), home, options, units)


def _plan_tars(source: str | Path | Sequence[str], home: Path, options: BuildOptions) -> PoolPlan:
    form = options.form
    found = form.find(source, options.remote)
    urls, passed_over = found.urls, found.passed_over
    if passed_over:
        say(found.told(form.names))
    base, names = common_base(urls)
    metadata = find_metadata(options.metadata, base, options.remote) if form.has_pictures else []
    reader = Reader(options.remote)
    stamps = [fingerprint(url, reader, fresh=False) for url in (*urls, *metadata)]  # all were listed just now
    units = [
        {"source": url, "name": name, "fingerprint": stamp, "form": form}
        for url, name, stamp in zip(urls, names, stamps, strict=False)
    ]
    inputs = dict(zip(metadata, stamps[len(urls) :], strict=True))
    told = source if isinstance(source, str) else str(source)
    plan = _plan(_name_of(Path(split_query(urls[0])[0]).parent), told, home, options, units, inputs)
    plan = plan.model_copy(update={"passed_over": passed_over})
    record_source(plan.directory, PoolSource(base=base, remote=options.remote))
    return plan


def _name_of(folder: Path) -> str:
    """What a person calls the pool in a folder; DataComp's downloader calls every pool's folder `shards`."""
    return folder.parent.name if folder.name == "shards" and folder.parent.name else folder.name


def _plan(
    name: str,
    source: str,
    home: Path,
    options: BuildOptions,
    units: list[dict[str, Any]],
    metadata: dict[str, str] | None = None,
) -> PoolPlan:
    """The plan whose pool is named after the keys of its units and the fingerprints of its metadata, so equal inputs
    find their pool again in any home."""
    keys: list[Any] = [IndexJob(directory=Path(), index=i, **unit).key for i, unit in enumerate(units)]
    keys += [metadata] if metadata else []
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "pool"
    pool_id = f"{slug}-{digest(keys)[:12]}"
    directory = home / "pools" / pool_id
    made = tuple(IndexJob(directory=directory, index=i, **unit) for i, unit in enumerate(units))
    found = tuple(metadata or ())
    return PoolPlan(pool_id=pool_id, directory=directory, source=source, units=made, options=options, metadata=found)


def _join(plan: PoolPlan) -> PoolRecord:
    """Merge the parts, part duplicate uids from first ones, and publish tables and record."""
    for unit in plan.units:
        check_done(unit)
    markers = [read_marker(unit) for unit in plan.units]
    for unit in plan.units:
        check_part(unit)
    rejects = [row for marker in markers for row in marker["rejects"]]
    parts, nameless = _named(plan.units, [marker["names_uids"] for marker in markers])
    with scratch(plan.directory.parents[1], "pool") as work, publishing(plan.directory / "samples.parquet") as file:
        joined = join_parts(parts, plan.metadata, reader_of(plan.directory), work, file)
    rejects += nameless + [_duplicate(repeat) for repeat in joined.repeats]
    with publishing(plan.directory / "rejects.parquet") as file:
        write_parquet(file, conform("rejects", _rejects_table(rejects)))
    notes = Counter(note for marker in markers for note in marker.get("notes", ()))
    told = tuple(f"{note} (in {n:,} of {len(markers):,} files)" for note, n in notes.items())
    return _publish_record(plan, joined.samples, [row["reason"] for row in rejects], joined.missing, told)


def _named(units: Sequence[IndexJob], named: list[bool]) -> tuple[list[Path], list[dict[str, Any]]]:
    """The parts to join, and rejects: where some shards name uids, samples of the others could never be joined."""
    if not any(named):
        return [unit.part for unit in units], []
    detail = f"none of the shard's samples names one, those of {sum(named)} other shards do"
    nameless = [unit for unit, names in zip(units, named, strict=True) if not names]
    keys = [row for unit in nameless for row in read_parquet(unit.part, ["shard", "key"]).to_pylist()]
    rejects = [reject(row["shard"], row["key"], "missing_uid", detail) for row in keys]
    return [unit.part for unit, names in zip(units, named, strict=True) if names], rejects


def _duplicate(repeat: Repeat) -> dict[str, Any]:
    detail = f"first seen in {repeat.first_shard}, key {repeat.first_key}"
    named = {"shard": repeat.shard, "member": repeat.key, "uid": repeat.uid}
    return {**named, "reason": "duplicate_uid", "detail": detail}


def _rejects_table(rejects: list[dict[str, Any]]) -> pa.Table:
    columns = {name: [row[name] for row in rejects] for name in ("shard", "member", "reason", "detail")}
    arrays = {name: pa.array(values, pa.string()) for name, values in columns.items()}
    return pa.table({**arrays, "uid": uid_array([row["uid"] for row in rejects])})


def _publish_record(
    plan: PoolPlan, samples: int, reasons: list[str], without_metadata: int | None, notes: tuple[str, ...]
) -> PoolRecord:
    directory = plan.directory
    record = PoolRecord(
        pool_id=plan.pool_id,
        directory=directory,
        source=plan.source,
        shards=len(plan.units),
        samples=samples,
        rejects=len(reasons),
        reasons={reason: reasons.count(reason) for reason in sorted(set(reasons))},
        without_metadata=without_metadata,
        kind=plan.options.form.kind,
        columns=plan.options.form.model_dump() or None,
        notes=notes,
        mgd=product(),
        samples_digest=file_digest(directory / "samples.parquet"),
        rejects_digest=file_digest(directory / "rejects.parquet"),
    )
    publish_json(directory / "pool.json", record.model_dump(mode="json"))
    return record
