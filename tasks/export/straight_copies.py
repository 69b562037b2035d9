"""Straight copies: the quick way for samples that lie in a local tar as they will lie in the new one.

What img2dataset writes, and what this package writes, has image, json and text in that order, one after the other, and
the uid first in the json. Such a sample is read straight to its place in the new tar, in one system call; then the old
headers and uids of all samples of the window are checked at once, by column, and new headers put over the old. A sample
that is anything else, or fails a check, is left to `shard_copies`, which looks closer and says what is wrong with it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tasks.export.copied_members import FIRST_UID
from tasks.export.shard_layouts import RECORD, Hand, Layout, Places, PositionWindow
from tasks.export.shard_reads import addresses, pieces_of
from tasks.files.remotes import is_local
from tasks.files.tar_headers import BLOCK, SIZE, Octets

LOOKED_AT = 128  # bytes of a json member in which its uid must end
UID_DIGITS = 32


def copy_straight(
    hand: Hand, layout: Layout, window: PositionWindow, sources: Sequence[str], root: str, buffer: Octets
) -> npt.NDArray[np.bool_]:
    """Copy what can be copied straight into the window's `buffer`; returns which of its samples that was."""
    places = np.arange(window.places.start, window.places.stop)
    done = np.zeros(len(places), bool)
    straight = np.flatnonzero(_is_straight(hand, layout, places))
    done[straight] = _read_in(hand, layout, places[straight], window.start, sources, root, buffer)
    there = np.flatnonzero(done)
    if len(there):
        sound = _is_sound(hand, layout, places[there], window.start, buffer)
        done[there[~sound]] = False
        _finish(layout, places[there[sound]], window.start, buffer)
    return done


def _is_straight(hand: Hand, layout: Layout, places: Places) -> npt.NDArray[np.bool_]:
    """Whether members lie in the pool with the lengths and at the distances that they will have, and are not lost."""
    source, target = hand.places[places] - BLOCK, layout.places[places] - layout.offsets[places, None]
    same = (source == target).all(axis=1) & (hand.sizes[places] == layout.sizes[places]).all(axis=1)
    return np.asarray(same & (layout.offsets[places + 1] > layout.offsets[places]))


def _read_in(
    hand: Hand, layout: Layout, places: Places, base: int, sources: Sequence[str], root: str, buffer: Octets
) -> npt.NDArray[np.bool_]:
    """Read samples from local tars to their places; returns which came whole."""
    whole = np.zeros(len(layout.offsets), bool)
    view = buffer.data
    pieces = pieces_of(hand, places)
    for piece, url in zip(pieces, addresses(hand, pieces, sources, root), strict=True):
        if not is_local(url):
            continue
        starts, stops = hand.starts[piece].tolist(), hand.stops[piece].tolist()
        targets = (layout.offsets[piece] - base).tolist()
        try:
            with open(url.removeprefix("file://").removeprefix("local://"), "rb", buffering=0) as file:
                for i, start, stop, at in zip(piece, starts, stops, targets, strict=True):
                    length = stop - start
                    whole[i] = os.preadv(file.fileno(), [view[at : at + length]], start) == length
        except OSError:
            continue  # read again one by one, where the reason is kept
    return whole[places]


def _is_sound(hand: Hand, layout: Layout, places: Places, base: int, buffer: Octets) -> npt.NDArray[np.bool_]:
    """Whether headers with the right sizes, and the right uid, are where they should be."""
    blocks = buffer.reshape(-1, BLOCK)
    at = (layout.places[places] - base) // BLOCK
    sizes = (blocks[:, SIZE][at] == layout.headers[places][:, :, SIZE]).all(axis=(1, 2))
    records = blocks[:, :LOOKED_AT][at[:, RECORD] + 1]
    # All json members of a pool begin alike; what this one does not is looked at elsewhere.
    first = FIRST_UID.match(records[0].tobytes())
    if first is None:
        return np.zeros(len(places), bool)
    begin, end = first.start(1), first.start(1) + UID_DIGITS
    frame = np.ones(LOOKED_AT, bool)
    frame[begin:end] = frame[end + 1 :] = False
    alike = (records[:, frame] == records[0, frame]).all(axis=1)
    same = (records[:, begin:end] == hand.digits[places]).all(axis=1)
    return np.asarray(sizes & alike & same & (hand.sizes[places, RECORD] > end))


def _finish(layout: Layout, places: Places, base: int, buffer: Octets) -> None:
    """Put the new headers in, and zeros behind every member, whatever was there."""
    blocks = buffer.reshape(-1, BLOCK)
    at = (layout.places[places] - base) // BLOCK
    blocks[at] = layout.headers[places]
    tails = layout.sizes[places] % BLOCK
    last = at + layout.sizes[places] // BLOCK + 1
    ragged = tails > 0
    ends = blocks[last[ragged]]
    ends[np.arange(BLOCK) >= tails[ragged][:, None]] = 0
    blocks[last[ragged]] = ends
