"""Where a reverse traversal keeps its states, and the check that a replayed state is the one it replaces.

A metagradient is exact only if every replayed state equals the first one bit for bit. The store keeps a fingerprint of
each state of the first sweep and compares every replay that passes the same step.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from mgd_core.optimizers import State


class NondeterminismError(RuntimeError):
    """A replayed state differs from the first one."""


def fingerprint(state: State) -> bytes:
    """128-bit digest of the bits of a state."""
    digest = hashlib.blake2b(digest_size=16)
    for tensor in state.tensors:
        digest.update(_bytes(tensor))
    return digest.digest()


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.detach().contiguous().cpu().view(torch.uint8).numpy().data


class MemoryStore:
    """States in the memory of their device, with the fingerprints of the first sweep.

    States are immutable, so keeping one costs a reference and no copy. ``peak_states`` and ``peak_bytes`` are what was
    held at the worst moment.
    """

    def __init__(self) -> None:
        self._states: dict[int, State] = {}
        self._fingerprints: dict[int, bytes] = {}
        self.peak_states = 0
        self.peak_bytes = 0

    def save(self, step: int, state: State) -> None:
        """Keep the state of ``step``."""
        self._states[step] = state
        self.peak_states = max(self.peak_states, len(self._states))
        self.peak_bytes = max(self.peak_bytes, sum(s.nbytes for s in self._states.values()))

    def load(self, step: int) -> State:
        """The kept state of ``step``."""
        return self._states[step]

    def free(self, step: int) -> None:
        """Forget the state of ``step``."""
        del self._states[step]

    def witness(self, step: int, state: State) -> None:
        """Record the fingerprint of ``step`` the first time, compare it every later time.

        Raises:
            NondeterminismError: a replay gave other bits; names the step and the likely causes.
        """
        now = fingerprint(state)
        first = self._fingerprints.setdefault(step, now)
        if first != now:
            raise NondeterminismError(
                f"the state before step {step} was recomputed and differs from the first time "
                f"({first.hex()} then, {now.hex()} now): the training step is not deterministic. Likely causes: "
                "a change of the number of threads, an operation without a deterministic kernel, data or "
                "augmentation that depend on process state, or a batch that was altered in place."
            )
