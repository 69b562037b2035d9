"""Data order: which pool examples make up the batch of step t, as a pure function of (counts, seed, round).

The training multiset holds example i counts[i] times. Each epoch is a fresh permutation of it in which the c copies of
one example are spread over the epoch (one in each c-th part), and a copy that would still meet another in its batch
waits for the next batch: two copies of a pair are false negatives of each other in a contrastive loss, so they never
meet. An example with more copies than an epoch has batches therefore stands once in each batch, and no more.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


def generator(seed: int, *stream: int) -> np.random.Generator:
    """Counter-based generator (Philox) for a named stream: no state is shared with anything else."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *stream])))


def spread(counts: Indices, draws: np.random.Generator) -> Indices:
    """A permutation of the multiset that holds i ``counts[i]`` times, (sum of counts,), in which the c copies of one
    member lie each in another c-th part."""
    members = np.repeat(np.arange(len(counts)), counts)
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])[members]
    position = np.arange(len(members)) - first + draws.random(len(members))
    return members[np.argsort(position / counts[members], kind="stable")]


class DataOrder:
    """Batches of pool positions for a whole training run."""

    def __init__(self, counts: Indices, batch: int, steps: int, seed: int, round: int = 0) -> None:
        """``counts``: (pool size,) whole numbers; ``batch``: rows a step; ``steps``: length of the training.

        Raises:
            ValueError: fewer distinct examples than a batch holds.
        """
        distinct = int((counts > 0).sum())
        if distinct < batch:
            raise ValueError(
                f"the subset holds {distinct} distinct examples but a batch needs {batch}: copies of one pair would "
                "meet in every batch. Use a smaller batch, or stop dropping examples earlier."
            )
        most = max(1, -(-int(counts.sum()) // batch))  # batches an epoch: copies beyond would only pile up
        self.counts = np.minimum(counts, most)
        self.batch, self.steps, self.seed, self.round = batch, steps, seed, round

    def epoch(self, number: int) -> Indices:
        """One pass over the multiset in the order of epoch ``number``, shape (sum of counts,)."""
        return spread(self.counts, generator(self.seed, self.round, number))

    @cached_property
    def table(self) -> Indices:
        """All batches, shape (steps, batch)."""
        batches = np.empty((self.steps, self.batch), np.int64)
        stream, number = np.empty(0, np.int64), 0
        for t in range(self.steps):
            while True:
                chosen = _first_distinct(stream, self.batch)
                if len(chosen) == self.batch:
                    break
                stream, number = np.concatenate([stream, self.epoch(number)]), number + 1
            batches[t] = stream[chosen]
            stream = _without(stream, chosen)
        return batches

    def __getitem__(self, t: int) -> Indices:
        return self.table[t]


def _without(stream: Indices, chosen: Indices) -> Indices:
    """The stream but for ``chosen`` (ascending); changes it in place, and costs what lies before the last of them."""
    end = int(chosen[-1]) + 1
    left = np.delete(stream[:end], chosen)
    stream[end - len(left) : end] = left
    return stream[end - len(left) :]


def _first_distinct(stream: Indices, n: int) -> Indices:
    """Positions of the first ``n`` entries of ``stream`` that differ from each other; fewer if there are fewer."""
    window = n
    while True:
        _, first = np.unique(stream[:window], return_index=True)
        if len(first) >= n or window >= len(stream):
            return np.sort(first)[:n]
        window *= 2
