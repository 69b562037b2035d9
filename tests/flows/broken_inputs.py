"""Broken things to give to commands, and a home with a run that looks finished, made without training."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa

from tasks.catalog.catalogs import load_catalog
from tasks.curation import estimate, subsets
from tasks.curation.begin import begin_run
from tasks.modality.registry import open_recipe
from tasks.pool.pools import build_pool
from tasks.tables.published import publish
from testing.small_catalog import small_catalog

BINARY = bytes(range(256)) * 8


def broken(directory: Path, suffix: str) -> dict[str, Path]:
    """One path a kind: what a user may give in place of a good file, all with the suffix that the good one has."""
    directory.mkdir(parents=True, exist_ok=True)
    kinds = ("missing", "empty", "binary", "text", "folder", "dangling", "circle", "unreadable", "below_a_file")
    made = {kind: directory / f"{kind}{suffix}" for kind in kinds}
    made["empty"].write_bytes(b"")
    made["binary"].write_bytes(BINARY)
    made["text"].write_text("just some words\nand more = of them\n")
    made["folder"].mkdir(exist_ok=True)
    for kind, to in (("dangling", "nowhere"), ("circle", made["circle"].name), ("unreadable", "/proc/self/mem")):
        if not made[kind].is_symlink():
            made[kind].symlink_to(to)  # reading /proc/self/mem from its start fails for root too
    made["below_a_file"] = made["text"] / f"more{suffix}"

    return made


def finished_home(place: Path) -> Path:
    """A home below ``place`` with a run that has tables, choice, manifest and subset of round 0, and no training."""
    catalog, home = small_catalog(place), place / "home"
    options = load_catalog(catalog)
    pool = build_pool(str(options.pool.source), home, options.pool.build_options())
    run = begin_run(home, catalog, pool)
    with open_recipe(run.directory) as bench:
        estimate.publish_pool(bench)
    publish(home, run.id, "choices", 0, pa.table({"rule": ["heldout_loss"], "value": [2.3]}))
    subsets.write_subset(run.directory, 0)
    return home


def files_of(home: Path) -> list[Path]:
    """Every file of a home that a command may read, apart from locks."""
    found = (Path(folder) / name for folder, _, names in os.walk(home) for name in names)
    return sorted(path for path in found if path.suffix != ".lock")
