"""Numbers that a pool has of each sample, in columns that are mapped: its own, and what it brought along.

Width and height, the length of the caption in characters and in words, and every numeric column of the pool's
metadata, such as CLIP scores. What says where a sample lies, and what holds the truth, is none of them.

Cost: one pass over those columns and the captions; 8 bytes a sample and number of disk, beside the pool's other
columns; memory for a stretch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.types as types

from tasks.files.artefacts import is_done, publish_json, publishing, read_json, reading
from tasks.pool.columns import STRETCH, mapped
from tasks.pool.record import PoolRecord
from tasks.tables.schemas import SAMPLES

Vector = npt.NDArray[np.float64]
FORMAT = 1
CAPTION = ("caption characters", "caption words")


def numbers_of(pool: PoolRecord) -> Mapping[str, Vector]:
    """The numbers of a finished pool, (n,) each by name, NaN where it has none; made on the first call."""
    place = pool.directory / f"columns-{pool.samples_digest[:12]}" / "numbers"
    record, key = place / "numbers.json", f"{FORMAT} {pool.samples_digest}"
    if not is_done(record, key):
        publish_json(record, {"key": key, "names": _make(pool.samples_path, place)})
    with reading(record):
        named: list[str] = read_json(record)["names"]
        table: npt.NDArray[np.float64] = mapped(place / "numbers.npy")
    return dict(zip(named, table, strict=True))


def _make(samples: Path, place: Path) -> list[str]:
    """Write the numbers (k, n) of a samples table; returns their names."""
    schema = pq.read_schema(samples)
    stored = [field.name for field in schema if _is_number(field)]
    with reading(samples), pq.ParquetFile(samples) as file, publishing(place / "numbers.npy") as out:
        shape = (len(stored) + len(CAPTION), file.metadata.num_rows)
        np.lib.format.write_array_header_2_0(out, {"descr": "<f8", "fortran_order": False, "shape": shape})
        first, at = out.tell(), 0
        for rows in file.iter_batches(STRETCH, columns=[*stored, "text"]):
            columns = [pc.cast(rows[name], pa.float64()).fill_null(np.nan) for name in stored]
            columns += [pc.utf8_length(rows["text"]), pc.list_value_length(pc.utf8_split_whitespace(rows["text"]))]
            for i, column in enumerate(columns):
                out.seek(first + 8 * (i * shape[1] + at))
                out.write(column.to_numpy(zero_copy_only=False).astype("<f8").tobytes())
            at += rows.num_rows
    return [*stored, *CAPTION]


def _is_number(field: pa.Field) -> bool:
    """Whether a column of the samples table tells something of a sample in numbers."""
    kind = field.type
    if field.name in SAMPLES.names:
        return field.name in ("width", "height")
    return not field.name.startswith("truth_") and (
        types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)
    )
