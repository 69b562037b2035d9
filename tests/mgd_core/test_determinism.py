"""Determinism settings come and go; the store keeps states and notices others."""

import pytest
import torch

from mgd_core.determinism import deterministic, environment
from mgd_core.optimizers import State
from mgd_core.store import MemoryStore, NondeterminismError, fingerprint


def settings() -> tuple[object, ...]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.get_num_threads(),
        torch.backends.cuda.flash_sdp_enabled(),
        torch.get_rng_state().tolist(),
    )


@pytest.mark.parametrize("warn_only", [False, True])
def test_settings_are_restored(warn_only: bool):
    torch.use_deterministic_algorithms(warn_only, warn_only=warn_only)
    try:
        before = settings()
        with deterministic(2):
            assert torch.are_deterministic_algorithms_enabled() and torch.get_num_threads() == 2
            assert not torch.is_deterministic_algorithms_warn_only_enabled()
            torch.rand(3)
        assert settings() == before
        with pytest.raises(KeyError), deterministic(2):
            raise KeyError
        assert settings() == before
    finally:
        torch.use_deterministic_algorithms(False)


def test_environment_names_what_bits_depend_on():
    named = environment("cpu", 3)
    assert named["torch"] == torch.__version__ and named["threads"] == 3 and named["device"] == "cpu"


def state(value: float) -> State:
    return State(torch.full((3,), value), (torch.zeros(3),))


def test_fingerprint_sees_every_bit():
    assert fingerprint(state(1.0)) == fingerprint(state(1.0))
    assert fingerprint(state(0.0)) != fingerprint(state(-0.0)), "equal numbers, other bits"
    assert fingerprint(state(1.0)) != fingerprint(State(torch.zeros(3), (torch.ones(3),)))


def test_store_keeps_frees_and_remembers_its_peak():
    store = MemoryStore()
    for step in range(3):
        store.save(step, state(float(step)))
    store.free(1)
    store.save(5, state(5.0))
    assert (store.peak_states, store.peak_bytes) == (3, 3 * 24)
    assert torch.equal(store.load(5).theta, torch.full((3,), 5.0))
    with pytest.raises(KeyError):
        store.load(1)


def test_store_refuses_a_replay_with_other_bits():
    store = MemoryStore()
    store.witness(7, state(1.0))
    store.witness(7, state(1.0))
    with pytest.raises(NondeterminismError, match=r"before step 7.*not deterministic.*number of threads"):
        store.witness(7, state(1.0 + 1e-7))
