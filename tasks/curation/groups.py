"""Groups of samples: columns of the pool by which metagradients are denoised."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as types

from mgd_core.descent.shrinkage import Codes
from mgd_core.errors import UserError
from tasks.tables.published import read_parquet


class GroupError(UserError, ValueError):
    """A column of the pool that cannot tell groups."""


def check_groups(samples: Path, columns: tuple[str, ...]) -> None:
    """See that each column can tell groups; raises GroupError."""
    schema = pq.read_schema(samples)
    kinds = (types.is_string, types.is_large_string, types.is_boolean, types.is_integer)
    usable = [field.name for field in schema if any(kind(field.type) for kind in kinds) and _allowed(field.name)]
    for column in columns:
        if column not in usable:
            raise GroupError(
                f"descent.groups: '{column}' is no column of the pool that tells groups; there are {', '.join(usable)}"
            )


def group_codes(samples: Path, column: str) -> Codes:
    """The group of every sample (n,), from 0; those of which the pool says nothing are one group."""
    values = read_parquet(samples, columns=[column])[column].combine_chunks()
    codes = values.dictionary_encode(null_encoding="encode")
    codes = codes.combine_chunks() if isinstance(codes, pa.ChunkedArray) else codes
    return codes.indices.to_numpy(zero_copy_only=False).astype(np.int64)


def _allowed(name: str) -> bool:
    return not name.startswith("truth_") and not name.endswith(("_offset", "_size")) and name not in ("uid", "key")
