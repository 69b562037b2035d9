"""Run directories: one curation's catalog, record and work, found again by the digest of what it is a function of.

The run's id is the catalog's name and a digest of what its rounds are a function of (`run_identity`) and the pool's
contents, so the same command finds its own run and goes on with it, and so does one whose tests or comparison have
changed: the run then holds the catalog as it is now. What the bits depend on besides (torch version, threads, device)
is kept in the record, and a run begun under other settings is not continued.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mgd_core.errors import UserError
from tasks.artefacts import digest, publish_bytes, publish_json, read_json, reading
from tasks.catalog import BaseCatalog, kind_of, load_catalog
from tasks.catalog_files import checked
from tasks.pools import PoolRecord
from tasks.recipe_options import as_now
from tasks.tables import counts_file
from tasks.text_catalog import TextCatalog

VERSIONS = ("torch", "torchvision", "open_clip_torch", "timm", "numpy", "pyarrow", "pillow")
TEXT_VERSIONS = ("transformers", "tokenizers", "peft")
"""Packages that the bits of a run on texts depend on as well."""


class RunMismatch(UserError, RuntimeError):
    """A run was begun under settings that would give other bits."""


class NoRun(UserError, LookupError):
    """There is no such run, or it has not come far enough."""


@dataclass(frozen=True)
class Run:
    """A run directory: ``<home>/runs/<id>``."""

    directory: Path
    catalog: BaseCatalog
    record: dict[str, Any]

    @property
    def id(self) -> str:
        """Name of the run."""
        return self.directory.name

    @property
    def home(self) -> Path:
        """The directory that holds all runs, pools and tables."""
        return self.directory.parents[1]

    @cached_property
    def pool_directory(self) -> Path:
        """Where the run's pool lies."""
        return self.home / "pools" / str(self.record["pool_id"])

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
        record = read_json(path := Path(directory) / "run.json")
        with reading(path):
            content = as_now(record["catalog"])
            return cls(Path(directory), checked(path, kind_of(content["model"]), content), record)

    def work(self, *parts: str) -> Path:
        """A path below the run's work directory."""
        path = self.directory.joinpath("work", *parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def key(self, *inputs: object) -> str:
        """Digest that names a unit of work of this run by its inputs."""
        return digest([self.catalog_digest, self.record["pool_digest"], *inputs])


def begin_run(home: Path, catalog_path: Path, pool: PoolRecord) -> Run:
    """Create the run of a catalog on a pool, or open it if it was begun before.

    Raises:
        RunMismatch: it was begun with other versions, threads or device; names each with both values.
    """
    # With torch, which takes seconds; who only reads a run does without.
    from mgd_core.determinism import environment
    from tasks.run_identity import identity, identity_of_test

    catalog = load_catalog(catalog_path)
    content = identity(catalog, Path(home))
    name = f"{catalog.name}-{digest([content, pool.samples_digest])[:8]}"
    directory = Path(home) / "runs" / name
    record: dict[str, Any] = {
        "run": name,
        "pool_id": pool.pool_id,
        "pool_digest": pool.samples_digest,
        "catalog_digest": digest(content),
        "catalog": catalog.model_dump(mode="json"),
        "tests": {test: identity_of_test(catalog, test) for test in catalog.tests},
        "environment": environment(catalog.runtime.device, catalog.runtime.threads),
        "versions": {package: version(package) for package in _packages(catalog)},
    }
    directory.mkdir(parents=True, exist_ok=True)
    if (directory / "run.json").exists():
        run = Run.load(directory)
        _check_same(run, record)
        record = {**run.record, **{key: record[key] for key in ("catalog", "tests")}}
    _publish_changed(directory / "catalog.toml", catalog_path.read_bytes())
    if not (directory / "run.json").exists() or read_json(directory / "run.json") != record:
        publish_json(directory / "run.json", record)
    return Run(directory, catalog, record)


def _publish_changed(path: Path, content: bytes) -> None:
    if not path.exists() or path.read_bytes() != content:
        publish_bytes(path, content)


def _packages(catalog: BaseCatalog) -> tuple[str, ...]:
    return (*VERSIONS, *TEXT_VERSIONS) if isinstance(catalog, TextCatalog) else VERSIONS


def _check_same(run: Run, now: dict[str, Any]) -> None:
    differences = [
        f"{key} was {then[key]!r}, is {value!r}"
        for part in ("environment", "versions")
        for then, current in [(run.record[part], now[part])]
        for key, value in current.items()
        if then.get(key) != value
    ]
    if differences:
        raise RunMismatch(
            f"run {run.id} was begun under other settings, so its results could not be continued bit for bit: "
            + "; ".join(differences)
            + f". Use the same settings, or begin again in another --home, or remove {run.directory}."
        )
