"""Shard reads: the bytes of a shard's samples, in the order in which they lie in the pool.

One ranged read a sample, in pieces of neighbours of one tar; of remote pools several pieces are under way together.
What cannot be read comes back as the reason. Memory: PIECE samples, LANES times that for remote pools.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise

import numpy as np

from tasks.export.copied_members import Block
from tasks.export.shard_layouts import Hand, Places
from tasks.files.remote_files import Reader
from tasks.files.remotes import Range, RemoteFault, is_local
from tasks.files.sources import reader_of
from tasks.pool.samples import resolve

PIECE = 256
LANES = 16


def read_blocks(hand: Hand, places: Places, sources: Sequence[str], root: str) -> Iterator[tuple[int, Block]]:
    """Place in the hand and bytes, from first header to last member, of the samples at `places`.

    Raises RemoteFault when a store does not answer: that is no loss but a stop.
    """
    pieces = pieces_of(hand, places)
    spans = [list(zip(hand.starts[piece].tolist(), hand.stops[piece].tolist(), strict=True)) for piece in pieces]
    for piece, blocks in zip(
        pieces, _read(addresses(hand, pieces, sources, root), spans, reader_of(root)), strict=True
    ):
        yield from zip(piece, blocks, strict=True)


def pieces_of(hand: Hand, places: Places) -> list[list[int]]:
    """The places in the order in which they lie in the pool, parted where the tar changes and after PIECE of them."""
    if not len(places):
        return []
    ordered = places[np.lexsort((hand.starts[places], hand.rows["source"][places]))]
    codes = hand.rows["source"][ordered]
    edges = [0, *(np.flatnonzero(codes[1:] != codes[:-1]) + 1).tolist(), len(ordered)]
    return [
        ordered[at : min(at + PIECE, stop)].tolist()
        for start, stop in pairwise(edges)
        for at in range(start, stop, PIECE)
    ]


def addresses(hand: Hand, pieces: Sequence[Sequence[int]], sources: Sequence[str], root: str) -> list[str]:
    """The tar of each piece, a path or URL."""
    return [_address(sources[int(hand.rows["source"][piece[0]])], root) for piece in pieces]


def _read(urls: Sequence[str], spans: Sequence[Sequence[Range]], reader: Reader) -> Iterator[Sequence[Block]]:
    """The bytes of the spans of each URL; of remote ones, LANES are under way together."""
    if all(map(is_local, urls)):
        yield from (_read_one(url, span, reader) for url, span in zip(urls, spans, strict=True))
        return
    under_way: deque[Future[Sequence[Block]]] = deque()
    with ThreadPoolExecutor(LANES) as lanes:
        for url, span in zip(urls, spans, strict=True):
            under_way.append(lanes.submit(_read_one, url, span, reader))
            if len(under_way) > LANES:
                yield under_way.popleft().result()
        yield from (future.result() for future in under_way)


def _read_one(url: str, spans: Sequence[Range], reader: Reader) -> Sequence[Block]:
    """The bytes of each span, or why it cannot be read."""
    try:
        return reader.ranges(url, spans)
    except RemoteFault:
        raise
    except OSError as error:
        if len(spans) == 1 or isinstance(error, FileNotFoundError):
            return [error] * len(spans)
        # A bad sector costs the samples on it, not their neighbours.
        return [block for span in spans for block in _read_one(url, [span], reader)]


@lru_cache(maxsize=1 << 16)
def _address(source: str, root: str) -> str:
    return resolve(source, root)
