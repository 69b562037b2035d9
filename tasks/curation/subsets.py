"""The chosen subset as a file that DataComp's tools take, verified after writing."""

from __future__ import annotations

from pathlib import Path

from tasks.export.exports import SubsetReport, export_datacomp, verify_datacomp
from tasks.modality.registry import open_recipe


def write_subset(directory: Path, chosen: int) -> SubsetReport:
    """Write ``subset.npy`` (u8,u8 records, sorted, repeats kept) of the chosen round and check it against the pool."""
    with open_recipe(directory) as recipe:
        path = recipe.run.directory / "subset.npy"
        export_datacomp(recipe.run.counts(chosen), path)
        return verify_datacomp(path, recipe.uids)
