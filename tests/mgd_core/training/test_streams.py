"""Random streams: no two are one, and their numbers are those of what was published."""

from __future__ import annotations

from itertools import combinations, pairwise

from mgd_core.training import streams
from mgd_core.training.order import generator

NAMED = {
    name: value
    for name, value in vars(streams).items()
    if isinstance(value, int) and name not in {"MOST_ROUNDS", "ROUND_STREAM", "REPLICATES"}
}
LARGEST_POOL = 1 << 30


def test_no_two_streams_draw_the_same() -> None:
    assert NAMED == {
        **{"RANDOM_SUBSETS": 7, "CAPTION_BATCHES": 8, "WARM_UP": 9},
        **{"CLUSTERS": 1 << 22, "TARGETS": 1 << 23, "BOOTSTRAP": 1 << 24, "NEGATIVES": 1 << 25, "CURVATURE": 1 << 26},
        **{"POISONS": 1 << 27, "CROPS": 1 << 28, "PROBE_CROPS": 3 << 27, "DROPS": 1 << 29, "DIRECTIONS": 1 << 31},
    }
    assert streams.ROUND_STREAM == 1_000
    draws = {name: generator(0, value).integers(1 << 62) for name, value in NAMED.items()}
    assert all(draws[one] != draws[two] for one, two in combinations(NAMED, 2))


def test_but_for_the_three_published_ones_streams_lie_beyond_every_round_and_size_of_drops() -> None:
    spans = [(0, streams.MOST_ROUNDS), *((value, value) for value in NAMED.values() if value > 9)]
    spans[spans.index((streams.DROPS, streams.DROPS))] = (streams.DROPS, streams.DROPS + LARGEST_POOL)
    assert all(end < start for (_, end), (start, _) in pairwise(spans))
