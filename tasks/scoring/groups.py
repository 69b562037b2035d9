"""Groups of samples by which metagradients are denoised: columns of the pool, or groupings of its kind of data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as types
from torch import Tensor

from mgd_core.descent.shrinkage import Codes
from mgd_core.errors import UserError
from tasks.catalog.catalogs import BaseCatalog
from tasks.modality.recipe import PoolRecipe
from tasks.modality.registry import modality_of
from tasks.tables.published import read_parquet

CROSS = "*"
"""Between groupings that are crossed."""


class GroupError(UserError, ValueError):
    """A grouping that is neither a column of the pool nor made of its samples."""


def check_groups(samples: Path, catalog: BaseCatalog, groupings: Sequence[str], said: str = "descent.groups") -> None:
    """See that each of some groupings can be had; raises GroupError, which tells where they are ``said``."""
    schema = pq.read_schema(samples)
    kinds = (types.is_string, types.is_large_string, types.is_boolean, types.is_integer)
    usable = [field.name for field in schema if any(kind(field.type) for kind in kinds) and _allowed(field.name)]
    made = modality_of(catalog).groupings
    for column in (part for grouping in groupings for part in grouping.split(CROSS)):
        if column not in usable and column not in made:
            beside = f"; or {' or '.join(made)}, which mgd makes" if made else ""
            raise GroupError(
                f"{said}: '{column}' is no column of the pool that tells groups; there are {', '.join(usable)}{beside}"
            )


def group_codes(recipe: PoolRecipe, grouping: str, theta: Callable[[], Tensor]) -> Codes:
    """The group of every sample (n,), from 0; those of which the pool says nothing are one group.

    ``theta`` gives the parameters that round 0 ended with, where they are needed. A column of the pool goes before a
    grouping of the same name. Of crossed ones (`a*b`) each pair that there is makes a group: what a picture of one kind
    and a caption of another are together, neither says alone.
    """
    first, *others = grouping.split(CROSS)
    codes = _codes(recipe, first, theta)
    for other in others:
        more = _codes(recipe, other, theta)
        codes = np.unique(codes * (more.max(initial=0) + 1) + more, return_inverse=True)[1]
    return codes


def _codes(recipe: PoolRecipe, column: str, theta: Callable[[], Tensor]) -> Codes:
    if column not in pq.read_schema(recipe.pool.samples_path).names:
        return modality_of(recipe.catalog).groupings[column](recipe, theta())
    values = read_parquet(recipe.pool.samples_path, columns=[column])[column].combine_chunks()
    codes = values.dictionary_encode(null_encoding="encode")
    codes = codes.combine_chunks() if isinstance(codes, pa.ChunkedArray) else codes
    return codes.indices.to_numpy(zero_copy_only=False).astype(np.int64)


def _allowed(name: str) -> bool:
    return not name.startswith("truth_") and not name.endswith(("_offset", "_size")) and name not in ("uid", "key")
