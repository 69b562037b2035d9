"""Fingerprints: 128 bits that stand for the bits of a tensor, at the speed of memory.

A replay is compared with the first sweep, and a file with what was written to it, so both sides come from this project
and only accidents are to be found: the hash is not cryptographic. Words of 64 bits are dealt to ``LANES`` lanes; each
lane is h <- h K + word modulo 2^64 with an odd K (Horner's rule). K is invertible, so another word alone always gives
another lane, and words that differ by a few units in the last place cannot cancel as they do in a plain sum. The lanes
are condensed by blake2b.

Cost: one pass over the bytes, 9 GB/s on one core where blake2b alone makes 1.3 (benchmarks/results/kill.md). On a GPU
the lanes are computed there and give the same bits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mgd_core.training.optimizers import State

LANES = 4096  # 32 KiB of lanes: half of the smallest first-level caches, and long enough for numpy's calls to be cheap
BLOCK = 8 * LANES
FACTOR = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio, odd
ROWS = 512  # blocks that the GPU takes at once: 16 MiB and as much again for their products

Fingerprint = tuple[bytes, ...]
"""16 bytes for each tensor of a state: parameters first, then the moments."""


def fingerprint(state: State) -> Fingerprint:
    """Of each tensor of a state."""
    return tuple(tensor_digest(tensor) for tensor in state.tensors)


def tensor_digest(tensor: Tensor) -> bytes:
    """16 bytes that stand for the elements of ``tensor``; its shape and type do not count."""
    raw = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    whole = len(raw) // BLOCK * BLOCK
    digest = hashlib.blake2b(len(raw).to_bytes(8, "little"), digest_size=16)
    if whole:
        digest.update((_lanes_on_gpu if raw.is_cuda else _lanes)(raw[:whole]).tobytes())
    digest.update(raw[whole:].cpu().numpy().data)
    return digest.digest()


def tensors_digest(tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> str:
    """32 hex digits that stand for named tensors with their types and shapes, and for facts about them."""
    digest = hashlib.blake2b(repr(sorted(facts.items())).encode(), digest_size=16)
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode() + tensor_digest(tensor))
    return digest.hexdigest()


def _lanes(raw: Tensor) -> npt.NDArray[np.uint64]:
    """Lanes of whole blocks in main memory."""
    words = raw.numpy().view(np.uint64)
    lanes, factor = np.zeros(LANES, np.uint64), np.uint64(FACTOR)
    for at in range(0, len(words), LANES):
        np.multiply(lanes, factor, out=lanes)
        np.add(lanes, words[at : at + LANES], out=lanes)
    return lanes


def _lanes_on_gpu(raw: Tensor) -> npt.NDArray[np.uint64]:
    """The same by sums over many blocks at once, each times its power of K: few calls, and no order of its own."""
    blocks = raw.view(torch.int64).view(-1, LANES)
    powers = torch.tensor([_signed(pow(FACTOR, ROWS - 1 - i, 1 << 64)) for i in range(ROWS)], device=raw.device)
    lanes = torch.zeros(LANES, dtype=torch.int64, device=raw.device)
    for piece in blocks.split(ROWS):
        n = len(piece)
        lanes = lanes * _signed(pow(FACTOR, n, 1 << 64)) + (piece * powers[ROWS - n :, None]).sum(0)
    return lanes.cpu().numpy().view(np.uint64)


def _signed(word: int) -> int:
    """A 64-bit word as torch's int64 has it."""
    return word - (1 << 64) if word >> 63 else word
