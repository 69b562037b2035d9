"""Shard copies: one shard of an export, its members copied by byte range from the pool's tars.

Every sample's place in the new tar is known before anything is read (`shard_layouts`), so the tar is made window by
window: a window's samples are read in the order in which they lie in the pool, checked (`copied_members`), put where
they belong, and written in one go; nothing but headers is made. A json that does not name its uid plainly is written
anew, so that others find it; what fails a check is lost, with a reason, and the rest closes up.

Members beyond image, json and text are not copied. Cost a sample: one read, about 30 µs in all; WINDOW bytes of memory.
A shard with a loss, or with a json whose length changes, is written twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tasks.export.copied_members import LostSample, members_of, record_of
from tasks.export.reshard_plans import ExportPlan
from tasks.export.shard_layouts import RECORD, Hand, Layout, PositionWindow, lay_out
from tasks.export.shard_reads import read_blocks
from tasks.export.straight_copies import copy_straight
from tasks.files.artefacts import publish_json, publishing
from tasks.files.tar_headers import BLOCK, Octets

SHARD_FORMAT = "{:08d}.tar"
STATS_FORMAT = "{:08d}_stats.json"
WINDOW = 32 << 20
ZEROS = memoryview(bytes(BLOCK))


@dataclass(frozen=True)
class Copied:
    """A shard that was written: its samples, its bytes, and for each missing one a row of LOST, uid as hex."""

    number: int
    samples: int
    size: int
    lost: list[dict[str, Any]]


@dataclass
class _Findings:
    """What reading brought up, by place in the hand: json members to write anew, samples that are lost."""

    records: dict[int, bytes] = field(default_factory=dict)
    lost: dict[int, LostSample] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.records) + len(self.lost)


def copy_shard(plan: ExportPlan, number: int, root: str | Path, out: Path) -> Copied:
    """Write shard `number` of a plan and its stats file into `out`, from the pool in the directory `root`."""
    cards = plan.hand(number)
    hand = Hand.of(cards, plan.rows[cards["position"]])
    findings, known = _Findings(), -1
    with publishing(out / SHARD_FORMAT.format(number)) as file:
        # A finding moves all that follows, so the shard is written until nothing new is found: once, or twice.
        while known < len(findings):
            known = len(findings)
            layout = lay_out(hand, findings.records, findings.lost)
            windows = list(layout.windows(WINDOW))
            buffer = np.empty(max(window.stop - window.start for window in windows), np.uint8)
            file.seek(0)
            file.truncate()
            for window in windows:
                part = buffer[: window.stop - window.start]
                _fill(part, hand, layout, window, plan.sources, str(root), findings)
                file.write(part.data)
            file.write(bytes(layout.size - file.tell()))
    samples = len(cards) - len(findings.lost)
    publish_json(out / STATS_FORMAT.format(number), {"successes": samples})
    return Copied(number, samples, layout.size, _lost_rows(hand, plan.sources, findings))


def _fill(
    buffer: Octets,
    hand: Hand,
    layout: Layout,
    window: PositionWindow,
    sources: Sequence[str],
    root: str,
    findings: _Findings,
) -> None:
    """Fill a window's buffer: every sample copied straight, or else looked at closely."""
    straight = copy_straight(hand, layout, window, sources, root, buffer)
    left = [i for i in window.places if not straight[i - window.places.start] and i not in findings.lost]
    view = buffer.data
    for i, block in read_blocks(hand, np.array(left, np.int64), sources, root):
        try:
            image, known, text = members_of(block, hand.places[i].tolist(), hand.sizes[i].tolist())
            record = findings.records.get(i) or record_of(hand.uid(i), image, text, bytes(known))
        except LostSample as lost:
            findings.lost[i] = lost
            continue
        if len(record) != layout.sizes[i, RECORD]:
            findings.records[i] = record
        else:
            _put(view, layout, i, window.start, (image, record, text))


def _put(buffer: memoryview, layout: Layout, i: int, base: int, members: Sequence[bytes | memoryview]) -> None:
    """Put a sample's headers, members and padding where they belong in a buffer that begins at byte `base`."""
    for header, place, data in zip(layout.headers[i], layout.places[i].tolist(), members, strict=True):
        at = place - base + BLOCK
        end = at + len(data)
        buffer[at - BLOCK : at] = header.data
        buffer[at:end] = data
        buffer[end : end + -len(data) % BLOCK] = ZEROS[: -len(data) % BLOCK]


def _lost_rows(hand: Hand, sources: Sequence[str], findings: _Findings) -> list[dict[str, Any]]:
    return [
        {
            "uid": hand.uid(i),
            "copies": 1,
            "shard": sources[int(hand.rows["source"][i])],
            "reason": lost.reason,
            "detail": lost.detail,
        }
        for i, lost in sorted(findings.lost.items())
    ]
