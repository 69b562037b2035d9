"""Tables of a pool that never was: any number of samples, streamed to disk, the same bytes for the same size.

uids ascend evenly over all 128 bits with a random rest, so no sort is needed. Captions are of 4 to 14 words of a small
vocabulary, g is normal with a spread that falls with the CLIP score, counts follow the sign of earlier g.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tasks.tables.published import ROW_GROUP, publish
from tasks.tables.streams import publishing_rows
from tasks.tables.uids import Bytes16, uid_array

RUN = "synthetic-1"
WORDS = "a the of on in dog cat red blue photo sale vintage house new car beach set card man city"
SHARD = 10_000
Floats = npt.NDArray[np.float64]


def groups(n: int) -> Iterator[tuple[int, int]]:
    """First and last (exclusive) sample of each row group."""
    return ((at, min(at + ROW_GROUP, n)) for at in range(0, n, ROW_GROUP))


def uids_between(n: int, start: int, stop: int) -> Bytes16:
    """uids (stop - start,) of samples start .. stop of n, ascending."""
    draw = np.random.default_rng([n, start])
    step = (1 << 64) // n
    high = np.arange(start, stop, dtype=np.uint64) * np.uint64(step)
    high += draw.integers(0, step, stop - start, dtype=np.uint64)
    low = draw.integers(0, 1 << 64, stop - start, dtype=np.uint64)
    return np.ascontiguousarray(np.stack([high, low], 1).astype(">u8")).view("S16").reshape(-1)


def publish_samples(home: Path, n: int) -> None:
    """The samples table, with the columns that DataComp's metadata brings."""
    with publishing_rows(home, RUN, "samples", 0) as table:
        for start, stop in groups(n):
            table.add(_samples(n, start, stop))


def publish_rounds(home: Path, n: int, rounds: int, probed: float = 1.0) -> None:
    """`rounds` rounds of metagradients and counts, and one more of counts; a row of `rounds` and `timings` each."""
    for number in range(rounds + 1):
        with publishing_rows(home, RUN, "counts", number) as table:
            for start, stop in groups(n):
                counts = 1 + sum(-np.sign(_g(n, start, stop, r)).astype(np.int32) for r in range(min(number, 2)))
                columns = {"uid": uid_array(uids_between(n, start, stop)), "count": np.maximum(counts, 0)}
                table.add(pa.table(columns if number else {**columns, "count": np.ones(stop - start, np.int32)}))
        _publish_small(home, n, number)
        if number < rounds:
            with publishing_rows(home, RUN, "metagradients", number) as table:
                for start, stop in groups(n):
                    table.add(_metagradients(n, start, stop, number, probed))


def _publish_small(home: Path, n: int, number: int) -> None:
    figures = {"target_loss": 2.0 - 0.1 * number, "target_accuracy": 0.3, "heldout_loss": 2.1 - 0.1 * number}
    figures |= {"heldout_accuracy": 0.3, "temperature": 10.0, "train_loss": 3.0}
    whole = dict.fromkeys(("advances", "reverse_steps", "peak_states", "peak_bytes", "raised", "lowered"), 100)
    sizes = dict.fromkeys(("distinct_samples", "total", "probed"), n)
    row: dict[str, float | None] = {**figures, **whole, **sizes}
    publish(home, RUN, "rounds", number, pa.Table.from_pylist([row]))
    phases = [{"phase": phase, "seconds": 10.0} for phase in ("train", "reverse", "probe")]
    publish(home, RUN, "timings", number, pa.Table.from_pylist(phases))


def _samples(n: int, start: int, stop: int) -> pa.Table:
    size, draw = stop - start, np.random.default_rng([n, start, 1])
    at = np.arange(start, stop, dtype=np.int64)
    inside = at % SHARD
    score = _score(n, start, stop)
    images, texts = draw.integers(8_000, 40_000, size), draw.integers(20, 80, size)
    offsets = {"image_offset": inside * 50_000, "text_offset": inside * 50_000 + 45_000}
    sizes = {"image_size": images, "text_size": texts}
    return pa.table(
        {
            "uid": uid_array(uids_between(n, start, stop)),
            "shard": _named("shards/{:08d}.tar", at // SHARD),
            "key": pa.array(np.char.mod("%012d", at // SHARD * SHARD + inside)),
            **{name: offsets.get(name, sizes.get(name)) for name in (*offsets, *sizes)},
            "json_offset": inside * 50_000 + 48_000,
            "json_size": np.full(size, 900, np.int64),
            "image_format": _named("{}", np.zeros(size, np.int64), ["jpg"]),
            "text": _captions(draw, size),
            "width": draw.choice(np.array([256, 320, 480, 512], np.int32), size),
            "height": draw.choice(np.array([256, 320, 480, 512], np.int32), size),
            "clip_l14_similarity_score": score.astype(np.float32),
            "clip_b32_similarity_score": (score + draw.normal(0, 0.02, size)).astype(np.float32),
            "original_width": draw.integers(100, 2000, size),
            "original_height": draw.integers(100, 2000, size),
        }
    )


def _metagradients(n: int, start: int, stop: int, number: int, share: float) -> pa.Table:
    probed = np.random.default_rng([n, start, 2, number]).random(stop - start) < share
    return pa.table(
        {
            "uid": uid_array(uids_between(n, start, stop)),
            "g": np.where(probed, _g(n, start, stop, number), 0.0),
            "probed": probed,
            "visits": probed.astype(np.int32),
        }
    )


def _score(n: int, start: int, stop: int) -> Floats:
    return np.random.default_rng([n, start, 3]).normal(0.22, 0.05, stop - start)


def _g(n: int, start: int, stop: int, number: int) -> Floats:
    noise = np.random.default_rng([n, start, 4, number]).normal(size=stop - start)
    return np.asarray((0.22 - _score(n, start, stop)) * 10 + noise)


def _named(form: str, values: npt.NDArray[np.int64], names: list[str] | None = None) -> pa.Array:
    distinct, codes = np.unique(values, return_inverse=True)
    words = names or [form.format(value) for value in distinct]
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(words)).cast(pa.string())


def _captions(draw: np.random.Generator, size: int) -> pa.Array:
    """Captions put together from half a million that are spelt out once."""
    words = np.array(WORDS.split())
    some = [" ".join(words[draw.integers(0, len(words), k)]) for k in draw.integers(2, 8, 4_000)]
    halves = pa.array(some)
    first, second = (halves.take(pa.array(draw.integers(0, len(some), size))) for _ in range(2))
    return pc.binary_join_element_wise(first, second, " ")
