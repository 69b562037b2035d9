"""The census: everything that is missing from a pool, damaged, doubled or drifted, before anybody trains on it.

`plan_census` splits the work into units, one a shard and one a metadata file; `census_shard` and `census_file` do one
each; `finish_census` joins what they left, writes the tables and the page, and `census.json` last. All of it lies in
`<home>/census/<pool>`: units that are done stay, so a census after one shard was fetched again reads that shard only.

Cost: one pass over the tars (`mgd curate` afterwards finds them indexed), then a few joins in DuckDB, which spills to
the disk what its memory does not hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tasks.census.files import FileUnit
from tasks.census.page import write_census_page
from tasks.census.shards import CensusUnit, finding
from tasks.census.tables import write_census_tables
from tasks.census.verdict import CensusRecord, verdict
from tasks.files.artefacts import digest, publish_json, read_json
from tasks.files.local_files import DANGLING
from tasks.files.option_types import Strict
from tasks.files.package_data import product
from tasks.files.remote_files import STAMPS
from tasks.files.remotes import RemoteFault, RemoteOptions, list_files, split_query
from tasks.files.sources import common_base, load_source
from tasks.homes.working_copies import at_hand
from tasks.pool.census_kinds import CensusOptions
from tasks.pool.pools import PoolPlan, plan_pool
from tasks.pool.record import BuildOptions

TABLES = ("shards", "samples", "attempts", "metadata", "findings")


class CensusPlan(Strict):
    """What a census takes: its units, none of which depends on another."""

    directory: Path
    pool: PoolPlan
    shards: tuple[CensusUnit, ...]
    files: tuple[FileUnit, ...]
    options: CensusOptions
    pictures: Path | None = None
    """Table of the pictures of the catalog's target and tests (`target_check`), which the pool's are compared with."""

    @property
    def key(self) -> str:
        """Digest of all that decides what the census finds."""
        pictures = [self.pictures.stem] if self.pictures else []
        passed = [sorted(self.pool.passed_over)] if self.pool.passed_over else []
        return digest([[unit.key for unit in self.shards], [unit.key for unit in self.files], *pictures, *passed])


def plan_census(
    source: str | Path | Sequence[str],
    home: str | Path,
    options: BuildOptions | None = None,
    limits: CensusOptions | None = None,
    pictures: Path | None = None,
) -> CensusPlan:
    """The units of a census; raises SourceError when there is no pool at `source`."""
    pool = plan_pool(source, home, options or BuildOptions())
    directory = Path(home) / "census" / pool.pool_id
    shards = _sheet_units(directory, pool) if pool.units[0].start is not None else _tar_units(directory, pool)
    return CensusPlan(
        directory=directory,
        pool=pool,
        shards=tuple(shards),
        files=tuple(_file_units(directory, pool)),
        options=limits or CensusOptions(),
        pictures=pictures,
    )


def pending(plan: CensusPlan) -> tuple[list[CensusUnit], list[FileUnit]]:
    """Units of shards and of metadata files that are still to be taken."""
    shards = [unit for unit in plan.shards if not unit.path("marker").exists()]
    return shards, [unit for unit in plan.files if not unit.marker.exists()]


def finish_census(plan: CensusPlan) -> CensusRecord:
    """Join the units' files, write tables and page, and then the record; equal censuses give equal bytes.

    Only what is allowed is judged anew when the census was taken before.
    """
    path = plan.directory / "census.json"
    at_hand(plan.directory)
    found = _record(path)
    if found is None or found.key != plan.key or not all((plan.directory / f"{t}.parquet").exists() for t in TABLES):
        base = load_source(plan.pool.directory).base
        passed = [finding("passed_over", url.removeprefix(f"{base}/")) for url in plan.pool.passed_over]
        totals, findings = write_census_tables(plan.directory, plan.shards, plan.files, plan.pictures, passed)
    else:
        totals, findings = found.totals, found.findings
    record = CensusRecord(
        key=plan.key,
        pool_id=plan.pool.pool_id,
        source=plan.pool.source,
        totals=totals,
        findings=findings,
        mgd=product(),
        lines=tuple(verdict(plan.options, plan.pool.options, totals, findings)),
    )
    write_census_page(plan.directory, record)
    publish_json(path, record.model_dump(mode="json"))
    return record


def _record(path: Path) -> CensusRecord | None:
    try:
        return CensusRecord(**read_json(path))
    except (FileNotFoundError, ValueError, TypeError, ValidationError):
        return None  # none yet, or of another version: taken again from the units


def _sheet_units(directory: Path, pool: PoolPlan) -> list[CensusUnit]:
    return [
        CensusUnit(directory=directory, pool=pool.directory, shard=f"shards/{unit.shard.name}", unit=unit)
        for unit in pool.units
    ]


def _tar_units(directory: Path, pool: PoolPlan) -> list[CensusUnit]:
    """A unit for every tar, and for every table or stats file whose tar is missing."""
    beside = _Listing(pool)
    units = [
        CensusUnit(directory=directory, pool=pool.directory, shard=unit.name, unit=unit, **beside.sidecars(unit.source))
        for unit in pool.units
    ]
    known = {unit.source.removesuffix(".tar") for unit in pool.units}
    names = {unit.source: unit.name for unit in pool.units}
    for stem in sorted(beside.stems() - known):
        url = f"{stem}.tar"
        folder, _, last = url.rpartition("/")
        like = next(name for source, name in names.items() if source.startswith(f"{folder}/"))
        shard = f"{like.rpartition('/')[0]}/{last}".lstrip("/") if "://" not in like else url
        units.append(CensusUnit(directory=directory, pool=pool.directory, shard=shard, **beside.sidecars(url)))
    return units


def _file_units(directory: Path, pool: PoolPlan) -> list[FileUnit]:
    beside = _Listing(pool, [*pool.metadata])
    units = []
    for url, name in zip(pool.metadata, common_base(pool.metadata)[1] if pool.metadata else (), strict=True):
        npz = url.removesuffix(".parquet") + ".npz"
        prints = (beside.fingerprint(url), beside.fingerprint(npz))
        found = npz if beside.fingerprint(npz) else ""
        named = {"url": url, "name": name, "npz": found}
        units.append(FileUnit(directory=directory, pool=pool.directory, fingerprints=prints, **named))
    return units


def _listed(folder: str, options: RemoteOptions) -> list[dict[str, Any]]:
    """A directory's entries; none where a web server answers for files alone (signed addresses)."""
    try:
        return list_files(folder, options)
    except RemoteFault:
        if folder.startswith(("http://", "https://")):
            return []
        raise


class _Listing:
    """What lies in the directories of some files: one listing each, instead of a look-up a file."""

    def __init__(self, pool: PoolPlan, urls: Sequence[str] | None = None) -> None:
        sources = [unit.source for unit in pool.units] if urls is None else urls
        self._entries: dict[str, Mapping[str, Any]] = {}
        for folder in dict.fromkeys(split_query(url)[0].rpartition("/")[0] for url in sources):
            for entry in _listed(folder, pool.options.remote):
                if entry["type"] == DANGLING:
                    continue  # as good as not there
                self._entries[f"{folder}/{str(entry['name']).rstrip('/').rpartition('/')[2]}"] = entry

    def fingerprint(self, url: str) -> str:
        """Size and stamp of a file; empty if it is not there."""
        entry = self._entries.get(url)
        if entry is None:
            return ""
        stamp = next((f"{key}={entry[key]}" for key in STAMPS if entry.get(key) is not None), "")
        return f"{entry.get('size')} {stamp}"

    def sidecars(self, tar: str) -> dict[str, Any]:
        """Fields of the unit of a tar: its table, its stats, and their fingerprints."""
        stem = tar.removesuffix(".tar")
        names = (f"{stem}.parquet", f"{stem}_stats.json")
        prints = tuple(self.fingerprint(name) for name in names)
        found = [name if stamp else "" for name, stamp in zip(names, prints, strict=True)]
        return {"table": found[0], "stats": found[1], "fingerprints": prints}

    def stems(self) -> set[str]:
        """Addresses, without extension, of everything numbered that has a table or stats."""
        ends = ("_stats.json", ".parquet")
        stems = {url.removesuffix(end) for url in self._entries for end in ends if url.endswith(end)}
        return {stem for stem in stems if stem.rpartition("/")[2].isdigit()}
