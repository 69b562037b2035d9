"""The pool as the learner sees it: uids, captions, and pixels at the model's size, in uid order.

Pixels are decoded once for a pool and an image size, into a file beside the pool that any process maps; a pool too
large for that is decoded anew whenever a batch is read, to the same pixels. Only uid, shard, offsets and text are read:
the columns that hold the truth are never loaded here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from tasks.files.artefacts import publishing
from tasks.pool.decoding import VERSION, decode, resized
from tasks.pool.pools import PoolRecord
from tasks.pool.samples import read_images
from tasks.tables.published import read_parquet
from tasks.tables.uids import Bytes16, uid_bytes

PLACES = ["shard", "image_offset", "image_size"]
DECODE_AT_ONCE = 2048  # samples whose bytes are held while decoding
Ids = npt.NDArray[np.int64]
Images = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Streamed:
    """A pool that is not kept decoded: where its images lie (``PLACES``), and their side, pixels."""

    places: pa.Table
    directory: Path
    size: int


@dataclass(frozen=True)
class Pairs:
    """Pairs sorted by uid: uids (n,), captions (n,), and ``images``, which gives those of positions: (m, 3, S, S)."""

    uids: Bytes16
    texts: list[str]
    images: Callable[[Ids], Images]
    streamed: Streamed | None = None
    """Where the images lie, if they are decoded anew for each batch."""
    digests: Bytes16 | None = None
    """Digests of the decoded pictures (n,), of a pool that is kept decoded."""

    def __len__(self) -> int:
        return len(self.uids)

    def pixels(self, ids: Ids) -> Tensor:
        """Images of pool positions ``ids``, (len(ids), 3, S, S) uint8."""
        return torch.from_numpy(self.images(ids))


def load_pairs(pool: PoolRecord, size: int, decoded_disk: int | None = None) -> Pairs:
    """Pairs of a pool at ``size`` pixels, decoded on the first call if that takes at most ``decoded_disk`` bytes."""
    samples = read_parquet(pool.samples_path, columns=["uid", *PLACES, "text"])
    path = pool.directory / f"decoded-{VERSION}-{size}-{pool.samples_digest[:12]}.npy"
    uids, texts = uid_bytes(samples["uid"]), samples["text"].to_pylist()
    digests = path.with_suffix(".digests.npy")
    fits = decoded_disk is None or samples.num_rows * 3 * size * size <= decoded_disk
    if fits and not path.exists():
        with publishing(path) as file, publishing(digests) as beside:
            np.save(beside, _decode(samples, pool.directory, size, file))
    if not path.exists():
        streamed = Streamed(samples.select(PLACES), pool.directory, size)
        return Pairs(uids, texts, partial(_decoded_now, streamed), streamed)
    mapped: Images = np.load(path, mmap_mode="r")
    return Pairs(uids, texts, lambda ids: mapped[ids], digests=np.load(digests, mmap_mode="r"))


def _decoded_now(pool: Streamed, ids: Ids) -> Images:
    return decoded(read_images(pool.places.take(pa.array(ids)), pool.directory), pool.size)


def decoded(found: Iterable[bytes], size: int) -> Images:
    """Images (n, 3, size, size) uint8 of encoded ones, laid out as the decoded file has them: convolutions take another
    kernel for another order in memory, and round otherwise."""
    return np.ascontiguousarray(np.stack([resized(decode(data).image, size) for data in found]))


def _decode(samples: pa.Table, directory: Path, size: int, file: BinaryIO) -> Bytes16:
    """Write the images of ``samples``; returns the digests of the pictures, both in their order."""
    shape = (samples.num_rows, 3, size, size)
    np.lib.format.write_array_header_2_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    first, row_bytes = file.tell(), 3 * size * size
    digests: Bytes16 = np.zeros(samples.num_rows, "S16")
    # In the order of the tars, so that each is read once, wherever it lies; uids are spread over all of them.
    order = pc.sort_indices(samples, [("shard", "ascending"), ("image_offset", "ascending")]).to_numpy()
    for start in range(0, samples.num_rows, DECODE_AT_ONCE):
        chosen = order[start : start + DECODE_AT_ONCE]
        images = read_images(samples.take(pa.array(chosen)), directory)
        for position, data in zip(chosen.tolist(), images, strict=True):
            file.seek(first + position * row_bytes)
            picture = decode(data)
            file.write(resized(picture.image, size).tobytes())
            digests[position] = picture.digest
    return digests
