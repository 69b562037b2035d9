"""Run directories: one curation's catalog, record and work, as `tasks.curation.begin` leaves them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

from mgd_core.errors import UserError
from tasks.catalog.base import BaseCatalog
from tasks.catalog.catalogs import kind_of
from tasks.catalog.device_options import kind_of_device
from tasks.catalog.files import checked
from tasks.catalog.recipe_options import as_now
from tasks.files.artefacts import digest, publish_bytes, publish_json, read_json, reading
from tasks.files.package_data import product
from tasks.pool.index_jobs import PoolError
from tasks.pool.record import PoolRecord, load_pool
from tasks.tables.published import counts_file
from tasks.tables.run_folders import NoRun

FORMAT = 1
"""Version of the records of runs and studies; one that says none is of the first."""


class NewerRecord(UserError, RuntimeError):
    """A record that a newer version of this program wrote, in a form that this one does not know."""


class RunMismatch(UserError, RuntimeError):
    """A run was begun under settings that would give other bits."""


@dataclass(frozen=True)
class WorkDirectory:
    """A directory of the home that trainings leave their work in: its catalog, and the record of how it was begun."""

    record_name: ClassVar[str]
    renewed: ClassVar[tuple[str, ...]]
    """Keys of the record that may be said otherwise when the same is begun again."""

    directory: Path
    catalog: Any
    record: dict[str, Any]

    @property
    def id(self) -> str:
        """Its name, which its tables go by."""
        return self.directory.name

    @property
    def home(self) -> Path:
        """The directory that holds all runs, studies, pools and tables."""
        return self.directory.parents[1]

    def work(self, *parts: str) -> Path:
        """A path below the work directory."""
        path = self.directory.joinpath("work", *parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    @classmethod
    def begin(cls, directory: Path, catalog: Any, record: dict[str, Any], content: bytes) -> Self:
        """Leave the record and the catalog's text, ``content``, in the directory. Where it was begun before, what
        ``renewed`` names is as it is now, and all else as it was.

        Raises:
            RunMismatch: it was begun with other versions, threads or device.
        """
        path = directory / cls.record_name
        record = {"format": FORMAT, "mgd": product(), **record}
        if path.exists():
            begun = read_record(path)
            cls(directory, catalog, begun).check_same(record)
            record = {**begun, **{key: record[key] for key in cls.renewed}}
        directory.mkdir(parents=True, exist_ok=True)
        copy = directory / "catalog.toml"
        if not copy.exists() or copy.read_bytes() != content:
            publish_bytes(copy, content)
        if not path.exists() or read_json(path) != record:
            publish_json(path, record)
        return cls(directory, catalog, record)

    def check_same(self, now: dict[str, Any]) -> None:
        """See that what bits depend on is as it was.

        Raises:
            RunMismatch: versions, threads or device are others; names each with both values.
        """
        differences = [
            f"{key} was {then[key]!r}, is {value!r}"
            for part in ("environment", "versions")
            for then, current in [(self.record[part], now[part])]
            for key, value in current.items()
            if (kind_of_device(then.get(key, "")) if key == "device" else then.get(key)) != value
        ]
        if differences:
            raise RunMismatch(
                f"run {self.id} was begun under other settings, so its results could not be continued bit for bit: "
                + "; ".join(differences)
                + f". Use the same settings, or begin again in another --home, or remove {self.directory}."
            )


@dataclass(frozen=True)
class Run(WorkDirectory):
    """A run directory: ``<home>/runs/<id>``."""

    record_name = "run.json"
    renewed = ("catalog", "tests")

    catalog: BaseCatalog

    @cached_property
    def pool_directory(self) -> Path:
        """Where the run's pool lies."""
        return self.home / "pools" / str(self.record["pool_id"])

    @property
    def pool(self) -> PoolRecord:
        """The record of the run's pool; raises PoolError where it is gone."""
        pool = load_pool(self.pool_directory)
        if pool is None:
            raise PoolError(f"the pool of run {self.id} is gone from {self.pool_directory}; run `mgd curate` again")
        return pool

    @property
    def catalog_digest(self) -> str:
        """Digest of everything the catalog says that can change a result."""
        return str(self.record["catalog_digest"])

    def counts(self, round: int) -> Path:
        """The counts that a round trains on, as a subset file.

        Raises:
            NoRun: they are not published yet.
        """
        found = counts_file(self.home, self.id, round)
        if found is None:
            raise NoRun(
                f"run {self.id} has no counts of round {round}; it has rounds 0 to {self.catalog.descent.rounds}"
            )
        return found

    def provenance(self, round: int) -> dict[str, Any]:
        """What the counts of a round came from."""
        pool, parent = self.record["pool_digest"], round - 1 if round else None
        return {"run": self.id, "catalog": self.catalog_digest, "pool": pool, "parent_round": parent}

    @classmethod
    def load(cls, directory: Path) -> Run:
        """Open a run that was begun."""
        record = read_record(path := Path(directory) / cls.record_name)
        with reading(path):
            content = as_now(record["catalog"])
            return cls(Path(directory), checked(path, kind_of(content["model"]), content), record)

    def key(self, *inputs: object) -> str:
        """Digest that names a unit of work of this run by its inputs."""
        return digest([self.catalog_digest, self.record["pool_digest"], *inputs])


def read_record(path: Path) -> dict[str, Any]:
    """The record of a run or study.

    Raises:
        NewerRecord: it has a form that this version does not know.
    """
    record = read_json(path)
    if record.get("format", FORMAT) != FORMAT:
        by, has = record.get("mgd"), record["format"]
        told = f"{path}: a record of version {has}, written by mgd {by}; this is mgd {product()}, which reads {FORMAT}"
        raise NewerRecord(f"{told}: use mgd {by} or a later one")
    return record
