"""Shard layouts: where the samples of one shard of an export lie in the pool, and where each goes in the new tar.

All of it comes from the plan's arrays, column by column, before a byte is read: names, headers, offsets, the tar's
length. Members are in DataComp's order, image, json, text, under the key `<uid>-<copy>`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.export.reshard_plans import FORMATS, Rows
from tasks.export.shard_assignment import Cards
from tasks.files.artefacts import canonical_json
from tasks.files.tar_headers import BLOCK, Octets, archive_size, headers, padded

WRITTEN = ("image", "json", "text")
RECORD = 1  # place of the json among them
DIGITS = np.frombuffer(b"0123456789abcdef", np.uint8)

Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Hand:
    """The n samples of a shard, in its order.

    `starts`, `stops` (n,): bytes of the source tar from a sample's first header to the end of its last member. `places`
    (n, 3): where in that span its image, json and text begin. `sizes` (n, 3): their lengths, -1 for a json that is not
    there. `digits` (n, 32): the uid as text.
    """

    cards: Cards
    rows: Rows
    digits: Octets
    starts: Places
    stops: Places
    places: Places
    sizes: Places

    @classmethod
    def of(cls, cards: Cards, rows: Rows) -> Hand:
        """The hand of these cards, whose samples are `rows` (n,)."""
        offsets, sizes = (np.stack([rows[f"{m}_{part}"] for m in WRITTEN], axis=1) for part in ("offset", "size"))
        there = offsets >= 0
        # The members of a sample are adjacent, the index refuses others: one span covers them.
        starts = np.where(there, offsets, np.iinfo(np.int64).max).min(axis=1) - BLOCK
        stops = np.where(there, offsets + sizes, 0).max(axis=1)
        octets = rows["uid"]
        digits = np.stack([DIGITS[octets >> 4], DIGITS[octets & 15]], axis=2).reshape(len(octets), -1)
        return cls(cards, rows, digits, starts, stops, offsets - starts[:, None], sizes)

    def uid(self, i: int) -> str:
        """The uid of one sample."""
        return bytes(self.digits[i]).decode()


@dataclass(frozen=True)
class PositionWindow:
    """Samples that follow each other in the new tar, by place in the hand, and the bytes [start, stop) they take."""

    places: range
    start: int
    stop: int


@dataclass(frozen=True)
class Layout:
    """The new tar: headers (n, 3, 512), lengths of the members (n, 3), where their headers go (n, 3), where each sample
    begins and the last one ends (n + 1), and the tar's length in bytes."""

    headers: Octets
    sizes: Places
    places: Places
    offsets: Places
    size: int

    def windows(self, limit: int) -> Iterator[PositionWindow]:
        """The tar in windows of at most `limit` bytes, or one sample."""
        start, samples = 0, len(self.offsets) - 1
        while start < samples:
            last = int(np.searchsorted(self.offsets, self.offsets[start] + limit, side="right")) - 1
            stop = max(start + 1, last)
            yield PositionWindow(range(start, stop), int(self.offsets[start]), int(self.offsets[stop]))
            start = stop


def lay_out(hand: Hand, records: Mapping[int, bytes], lost: Collection[int]) -> Layout:
    """The layout of a hand, given the json members that are written anew and the samples that are lost."""
    sizes = hand.sizes.copy()
    sizes[:, RECORD][sizes[:, RECORD] < 0] = len(new_record("0" * 32))
    for i, data in records.items():
        sizes[i, RECORD] = len(data)
    taken = padded(sizes) + BLOCK
    taken[list(lost)] = 0
    offsets = np.concatenate([[0], np.cumsum(taken.sum(axis=1))])
    places = offsets[:-1, None] + np.cumsum(taken, axis=1) - taken
    blocks = headers(_names(hand), sizes.reshape(-1)).reshape(-1, len(WRITTEN), BLOCK)
    return Layout(blocks, sizes, places, offsets, archive_size(int(offsets[-1])))


def new_record(uid: str) -> bytes:
    """The json member of a sample that brought none."""
    return canonical_json({"uid": uid})


def _names(hand: Hand) -> Octets:
    """Member names of every sample, three rows each, padded with zeros."""
    # Few pairs of copy and format are different.
    pairs, which = np.unique(np.stack([hand.cards["copy"], hand.rows["format"]], axis=1), axis=0, return_inverse=True)
    tails = np.array([_tails(copy, FORMATS[kind]) for copy, kind in pairs.tolist()])
    octets = tails.view(np.uint8).reshape(len(pairs), len(WRITTEN), -1)[which.reshape(-1)]
    return np.hstack([np.repeat(hand.digits, len(WRITTEN), axis=0), octets.reshape(-1, octets.shape[2])])


def _tails(copy: int, image: str) -> list[bytes]:
    return [f"-{copy}.{extension}".encode() for extension in (image, "json", "txt")]
