"""Pools of tiny pairs: real JPEGs of 16 pixels and captions in real tars, some microseconds a sample to make.

Headers are laid out by `tarfile` once and then filled in: name, size and checksum are all that differs. Captions have
words as often as texts have them (Zipf), one in twelve with an accent, an entity or a typographic quote in it.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

import numpy as np
from PIL import Image

from mgd_core.training.order import generator

SIDE, PICTURES, WORDS = 16, 2048, 200_000
STRANGE = ("café", "fish &amp; chips", "it’s", "naïve “quote”", "東京")
EVERY = 12
"""Captions, one of which is strange."""


def write_pool(folder: Path, n: int, shard: int) -> None:
    """Write ``n`` pairs into ``folder`` as tars of ``shard`` pairs each."""
    folder.mkdir(parents=True)
    draw = generator(0, n)
    pictures, words = list(_pictures(draw)), [_word(i) for i in range(WORDS)]
    headers = {kind: _header(kind) for kind in ("jpg", "json", "txt")}
    for number, first in enumerate(range(0, n, shard)):
        count = min(shard, n - first)
        lengths = draw.integers(2, 20, count)
        drawn = (WORDS ** draw.random(int(lengths.sum()))).astype(np.int64).tolist()
        chosen, at, parts = draw.integers(0, PICTURES, count).tolist(), 0, list[bytes]()
        for i, (length, picture) in enumerate(zip(lengths.tolist(), chosen, strict=True), first):
            text = " ".join([words[j - 1] for j in drawn[at : at + length]])
            text += f" {STRANGE[i % len(STRANGE)]}" if i % EVERY == 0 else ""
            at += length
            uid = blake2b(i.to_bytes(8, "little"), digest_size=16).hexdigest()
            members = {"jpg": pictures[picture], "json": b'{"uid":"%b"}' % uid.encode(), "txt": text.encode()}
            for kind, data in members.items():
                parts += [_filled(*headers[kind], i, len(data)), data, bytes(-len(data) % 512)]
        (folder / f"{number:08d}.tar").write_bytes(b"".join([*parts, bytes(1024)]))


def _pictures(draw: np.random.Generator) -> Iterator[bytes]:
    for _ in range(PICTURES):
        coarse = Image.fromarray(draw.integers(0, 256, (4, 4, 3), np.uint8))
        written = io.BytesIO()
        coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(written, "JPEG", quality=85)
        yield written.getvalue()


def _word(number: int) -> str:
    """A word that says nothing."""
    sounds = ("ba", "re", "ti", "no", "lu", "mar", "sen", "kol", "dri", "pa")
    return "".join(sounds[int(digit)] for digit in str(number))


def _header(kind: str) -> tuple[bytes, str]:
    return tarfile.TarInfo(f"{0:09d}.{kind}").tobuf(tarfile.USTAR_FORMAT), kind


def _filled(header: bytes, kind: str, number: int, size: int) -> bytes:
    """The header of another member."""
    laid = bytearray(header)
    laid[:9], laid[124:135], laid[148:156] = b"%09d" % number, b"%011o" % size, b" " * 8
    laid[148:156] = b"%06o\0 " % sum(laid)
    return bytes(laid)
