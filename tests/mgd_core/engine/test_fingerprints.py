"""The fingerprint against Horner's rule in Python's integers, and what it must and must not notice."""

import hashlib

import pytest
import torch

from mgd_core.engine import fingerprints
from mgd_core.engine.fingerprints import BLOCK, FACTOR, LANES, fingerprint, tensor_digest, tensors_digest
from mgd_core.training.optimizers import State


def by_integers(data: bytes) -> bytes:
    """The definition, word by word."""
    lanes = [0] * LANES
    whole = len(data) // BLOCK * BLOCK
    for at in range(0, whole, 8):
        lane = at // 8 % LANES
        lanes[lane] = (lanes[lane] * FACTOR + int.from_bytes(data[at : at + 8], "little")) % 2**64
    digest = hashlib.blake2b(len(data).to_bytes(8, "little"), digest_size=16)
    if whole:
        digest.update(b"".join(lane.to_bytes(8, "little") for lane in lanes))
    return digest.update(data[whole:]) or digest.digest()


@pytest.mark.parametrize("size", [0, 5, BLOCK - 1, BLOCK, 3 * BLOCK + 7])
def test_agrees_with_its_definition(size: int):
    data = torch.randint(256, (size,), generator=torch.Generator().manual_seed(size), dtype=torch.uint8)
    assert tensor_digest(data) == by_integers(bytes(data.tolist()))


def test_the_gpu_form_gives_the_same_lanes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fingerprints, "ROWS", 3)
    raw = torch.randint(256, (8 * BLOCK,), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    assert (fingerprints._lanes(raw) == fingerprints._lanes_on_gpu(raw)).all()


def state(value: float, n: int = 3) -> State:
    return State(torch.full((n,), value), (torch.zeros(n),))


def test_sees_every_bit():
    assert fingerprint(state(1.0)) == fingerprint(state(1.0))
    assert fingerprint(state(0.0)) != fingerprint(state(-0.0)), "equal numbers, other bits"
    assert fingerprint(state(1.0)) != fingerprint(State(torch.zeros(3), (torch.ones(3),)))
    theta, n = torch.randn(5 * LANES, generator=torch.Generator().manual_seed(1)), 5 * LANES
    plain = tensor_digest(theta)
    for i in range(0, n, 997):
        changed = theta.clone()
        changed.view(torch.int32)[i] += 1
        assert tensor_digest(changed) != plain, i


def test_opposite_changes_of_one_unit_do_not_cancel():
    """They would in a sum of the words."""
    theta = torch.randn(16 * LANES, generator=torch.Generator().manual_seed(2))
    plain, words = tensor_digest(theta), theta.view(torch.int32)
    for i, j in ((0, 2 * LANES), (5, 6), (7, 7 + 14 * LANES), (2 * LANES + 1, 4 * LANES + 1)):
        words[i] += 1
        words[j] -= 1
        assert tensor_digest(theta) != plain
        words[i] -= 1
        words[j] += 1
    assert tensor_digest(theta) == plain


def test_names_types_shapes_and_facts_count():
    x = torch.arange(6, dtype=torch.float32)
    plain = tensors_digest({"a": x, "b": x}, {"step": "3"})
    assert plain == tensors_digest({"b": x, "a": x.clone()}, {"step": "3"})
    others = [({"a": x, "c": x}, "3"), ({"a": x, "b": x.view(2, 3)}, "3"), ({"a": x, "b": x}, "4")]
    others.append(({"a": x, "b": x.view(torch.int32)}, "3"))
    assert len({plain, *(tensors_digest(tensors, {"step": step}) for tensors, step in others)}) == 5


def test_strided_and_small_types():
    x = torch.randn(40, 30)
    assert tensor_digest(x.T) == tensor_digest(x.T.contiguous())
    for dtype in (torch.bfloat16, torch.bool, torch.int64, torch.float64):
        assert tensor_digest(x.to(dtype)) == tensor_digest(x.to(dtype).clone())
    assert tensor_digest(torch.tensor(1.5)) != tensor_digest(torch.tensor(-1.5))
