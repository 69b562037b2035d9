"""Counts to go on from: those that an earlier run of a catalog chose, on the pool as it is now.

A curation that is run night after night starts where the last one ended. Samples that the earlier pool lacked stand at
one copy, as in any first round; those that are gone are left out.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tasks.files.artefacts import publishing
from tasks.pool.record import PoolRecord
from tasks.subset.files import everything, write_records
from tasks.tables.published import read
from tasks.tables.run_folders import chosen_round
from tasks.tables.uids import uid_bytes


def continued_counts(home: Path, run: str, pool: PoolRecord, path: Path) -> int:
    """Write to ``path``, as a subset file, the counts that ``run`` chose, for the samples of ``pool``; how many of
    these it did not know."""
    chosen = chosen_round(home, run)
    assert chosen is not None, f"run {run} is finished, so it has chosen a round"
    table = read(home, run, "counts", chosen)
    known, counted = uid_bytes(table["uid"]), table["count"].to_numpy()
    uids = everything(pool.samples_path).uids
    place = np.minimum(np.searchsorted(known, uids), len(known) - 1)
    new = known[place] != uids
    counts = np.where(new, 1, counted[place]).astype(np.int64)
    with publishing(path) as file:
        write_records(file, uids[counts > 0], counts[counts > 0])
    return int(new.sum())
