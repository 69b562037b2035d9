"""Subset files as earlier versions wrote one a round: uid and count above 0, sorted, with their provenance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tasks.export.exports import PROVENANCE
from tasks.files.artefacts import canonical_json, publishing
from tasks.tables.published import write_parquet
from tasks.tables.schemas import COUNTS
from tasks.tables.uids import uid_array, uid_bytes


def write_manifest(
    run_dir: Path,
    round: int,
    uids: Iterable[Any] | pa.Array | pa.ChunkedArray,
    counts: npt.ArrayLike,
    provenance: Mapping[str, Any],
) -> Path:
    """Write `<run_dir>/manifests/round-003.parquet` and return its path; samples of count 0 are left out."""
    named, numbers = uid_bytes(uids), np.asarray(counts)
    kept = np.flatnonzero(numbers > 0)
    kept = kept[np.argsort(named[kept], kind="stable")]
    columns = [uid_array(named[kept]), pa.array(numbers[kept].astype(np.int32))]
    path = Path(run_dir) / "manifests" / f"round-{round:03d}.parquet"
    schema = COUNTS.with_metadata({PROVENANCE: canonical_json(dict(provenance))})
    with publishing(path) as file:
        write_parquet(file, pa.table(columns, schema=schema))
    return path
