"""The chosen subset as a file that DataComp's tools take, verified after writing."""

from __future__ import annotations

from pathlib import Path

from tasks.exports import SubsetReport, export_datacomp, verify_datacomp
from tasks.workbench import opened


def write_subset(directory: Path, chosen: int) -> SubsetReport:
    """Write ``subset.npy`` (u8,u8 records, sorted, repeats kept) of the chosen round and check it against the pool."""
    with opened(directory) as bench:
        path = bench.run.directory / "subset.npy"
        export_datacomp(bench.run.counts(chosen), path)
        return verify_datacomp(path, bench.uids)
