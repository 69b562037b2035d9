"""The pool as the learner sees it: uids, tokens of captions, and pixels at the model's size, by position.

Pixels and tokens are made once, into files beside the pool that any process maps (`decoded`, `caption_tokens`), so
opening costs the same for any pool; pictures of a pool too large for that are decoded anew whenever a batch is read, to
the same pixels. The columns that hold the truth are never loaded here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tasks.modality.pairs.caption_tokens import CaptionTokens, TokenColumns
from tasks.modality.pairs.decoded import DecodedPool, Images
from tasks.modality.prepared import Prepared
from tasks.pool.columns import Ids, PoolColumns, columns_of
from tasks.pool.decoding import decode, resized
from tasks.pool.record import PoolRecord
from tasks.tables.uids import Bytes16


@dataclass(frozen=True)
class Streamed:
    """A pool that is not kept decoded: where its images lie, and the side that they are scaled to, pixels."""

    columns: PoolColumns
    size: int

    def __call__(self, ids: Ids) -> Images:
        """Images of positions, decoded now."""
        return decoded(self.columns.encoded(ids), self.size)


@dataclass(frozen=True)
class Pairs:
    """Pairs by position: ``images`` gives pictures of some (m, 3, S, S)."""

    columns: PoolColumns
    images: Callable[[Ids], Images]
    streamed: Streamed | None = None
    """Where the images lie, if they are decoded anew for each batch."""
    digests: Bytes16 | None = None
    """Digests of the decoded pictures (n,), of a pool that is kept decoded; in the order of ``columns.members``."""

    def __len__(self) -> int:
        return len(self.columns)

    def pixels(self, ids: Ids) -> Tensor:
        """Images of pool positions ``ids``, (len(ids), 3, S, S) uint8."""
        return torch.from_numpy(self.images(ids))


def load_pairs(pool: PoolRecord, size: int, decoded_disk: int | None = None) -> Pairs:
    """Pairs of a pool at ``size`` pixels, decoded on the first call if that takes at most ``decoded_disk`` bytes."""
    columns = columns_of(pool)
    kept = kept_decoded(pool, columns, size, decoded_disk)
    if kept is None:
        streamed = Streamed(columns, size)
        return Pairs(columns, streamed, streamed)
    kept.ensure()
    images = kept.images
    return Pairs(columns, lambda ids: images[columns.rows[ids]], digests=kept.digests)


def load_tokens(pool: PoolRecord, context_length: int) -> TokenColumns:
    """Tokens of a pool's captions, made on the first call."""
    return CaptionTokens(columns_of(pool), pool, context_length).opened()


def prepared(pool: PoolRecord, size: int, context_length: int, decoded_disk: int | None) -> list[Prepared]:
    """What a pool is turned into before it is trained on."""
    columns = columns_of(pool)
    kept = kept_decoded(pool, columns, size, decoded_disk)
    return [CaptionTokens(columns, pool, context_length), *([] if kept is None else [kept])]


def kept_decoded(pool: PoolRecord, columns: PoolColumns, size: int, decoded_disk: int | None) -> DecodedPool | None:
    """The pool's pictures, if they are kept: where they are, or take at most ``decoded_disk`` bytes."""
    kept = DecodedPool(columns, pool, size)
    fits = decoded_disk is None or len(columns) * 3 * size * size <= decoded_disk
    return kept if fits or kept.is_whole else None


def decoded(found: Iterable[bytes], size: int) -> Images:
    """Images (n, 3, size, size) uint8 of encoded ones, laid out as the decoded file has them: convolutions take another
    kernel for another order in memory, and round otherwise."""
    return np.ascontiguousarray(np.stack([resized(decode(data).image, size) for data in found]))
