"""Runs begun, or found begun: a run's id is a digest of what its rounds are a function of.

That is its catalog without what cannot change them, what the files it names hold, and the pool's contents; so the same
command finds its own run and goes on with it. Comparison and tests come after the rounds and change none of them: a run
whose rivals, seeds or tests change keeps its name and its rounds, and holds the catalog as it is now. What the bits
depend on besides (torch version, threads, device) is kept in the record, and a run begun under other settings is not
continued.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

from mgd_core.training.determinism import environment
from tasks.catalog.base import BaseCatalog
from tasks.catalog.catalogs import load_catalog
from tasks.catalog.device_options import kind_of_device
from tasks.catalog.files import read_toml
from tasks.catalog.overrides import Overrides, as_toml, overridden
from tasks.files.artefacts import digest
from tasks.modality.registry import modality_of
from tasks.pool.record import PoolRecord
from tasks.runs.run import Run
from tasks.subset.sources import identity as identity_of_subset

VERSIONS = ("torch", "torchvision", "open_clip_torch", "timm", "numpy", "pyarrow", "pillow")
IDLE: Any = {
    "description": True,
    "census": True,
    "smoothness": True,
    "comparison": True,
    # A test's share lies behind those of target and held-out.
    "targets": {"tests": True, "parts": {"test"}, "per_task": True, "groups": True, "tasks": {"__all__": {"test"}}},
    "pool": {"source", "how_to_get", "metadata", "remote"},
    "descent": {"checkpoint_seconds", "checkpoint_steps"},
    "runtime": {"devices", "runner", "workers", "readers", "decoded_disk", "batch_cache"},
}
"""What changes no round: descriptions, comparison and tests, where files lie, and how work is spread."""
ADDED = (
    *("groups", "whole_groups", "target_share", "learned", "diversity", "diverse_by", "blends", "replicates"),
    "final_trainings",
)
"""Keys of `descent` that came later: where one says what earlier versions did, runs are known as they were."""


def begin_run(home: Path, catalog_path: Path, pool: PoolRecord, overrides: Overrides | None = None) -> Run:
    """Create the run of a catalog, with ``overrides`` laid over it, on a pool, or open it if it was begun before.

    Raises:
        RunMismatch: it was begun with other versions, threads or device; names each with both values.
    """
    catalog = load_catalog(catalog_path, overrides)
    content = identity(catalog, Path(home))
    name = f"{catalog.name}-{digest([content, pool.samples_digest])[:8]}"
    directory = Path(home) / "runs" / name
    packages = (*VERSIONS, *modality_of(catalog).packages)
    record: dict[str, Any] = {
        "run": name,
        "pool_id": pool.pool_id,
        "pool_digest": pool.samples_digest,
        "catalog_digest": digest(content),
        "catalog": catalog.model_dump(mode="json"),
        "tests": {test: identity_of_test(catalog, test) for test in catalog.tests},
        "environment": environment(catalog.runtime.device, catalog.runtime.threads),
        "versions": {package: version(package) for package in packages},
    }
    said = catalog_path.read_bytes()
    if overrides:
        said = as_toml(overridden(read_toml(catalog_path), overrides)).encode()
    return Run.begin(directory, catalog, record, said)


def identity(catalog: BaseCatalog, home: Path) -> dict[str, Any]:
    """What a run's rounds are a function of, beside its pool: what the catalog says, with digests of what it names."""
    modality, content = modality_of(catalog), catalog.model_dump(mode="json", exclude=IDLE)
    if catalog.descent.start is None:
        del content["descent"]["start"]
    else:
        content["descent"]["start"] = identity_of_subset(catalog.descent.start, home)
    for key in ADDED:
        if getattr(catalog.descent, key) == type(catalog.descent).model_fields[key].default:
            del content["descent"][key]
    if catalog.descent.rule != "confident":
        del content["descent"]["z"]
    content["descent"]["memory"] = content["descent"].pop("momentum")  # its first name, which runs are known by
    if catalog.runtime.ranks == 1:  # as runs were known before there were ranks
        del content["runtime"]["ranks"]
    content["runtime"]["device"] = kind_of_device(catalog.runtime.device)
    content["model"] = modality.model_identity(catalog)
    if catalog.targets.many:
        for name, task in catalog.targets.tasks.items():
            content["targets"]["tasks"][name]["source"] = modality.task_identity(catalog, task)
        return content
    for role, task in (("target", catalog.targets.target), ("heldout", catalog.targets.heldout)):
        content["targets"][role]["source"] = modality.task_identity(catalog, task)
    return content


def identity_of_test(catalog: BaseCatalog, name: str) -> str:
    """What a test's result is a function of, beside the model: its options and the contents of its files, and how it is
    measured; equal for equal ones, whatever the test is called."""
    modality, (task, said) = modality_of(catalog), catalog.targets.tested(name)
    return digest([said, modality.task_identity(catalog, task), modality.measured_by(catalog.targets)])
