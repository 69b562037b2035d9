"""Determinism settings come and go."""

import random
import threading

import numpy as np
import pytest
import torch

from mgd_core.training.determinism import deterministic, environment


def settings() -> tuple[object, ...]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.get_num_threads(),
        torch.get_float32_matmul_precision(),
        torch.backends.cudnn.benchmark,
        torch.utils.deterministic.fill_uninitialized_memory,
        torch.backends.cuda.flash_sdp_enabled(),
        torch.get_rng_state().tolist(),
        random.getstate(),
        np.random.get_state()[1].tolist(),
    )


def use_all() -> None:
    """Draw from every ambient generator, and change a flag."""
    torch.rand(3)
    random.random()
    np.random.rand()
    torch.set_float32_matmul_precision("high")


@pytest.mark.parametrize("warn_only", [False, True])
def test_settings_are_restored(warn_only: bool):
    torch.use_deterministic_algorithms(warn_only, warn_only=warn_only)
    torch.backends.cudnn.benchmark = True
    try:
        before = settings()
        with deterministic(2):
            assert torch.are_deterministic_algorithms_enabled() and torch.get_num_threads() == 2
            assert not torch.is_deterministic_algorithms_warn_only_enabled() and not torch.backends.cudnn.benchmark
            use_all()
        assert settings() == before
        with pytest.raises(KeyError), deterministic(2):
            use_all()
            raise KeyError
        assert settings() == before
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.benchmark = False


def test_environment_names_what_bits_depend_on():
    named = environment("cpu", 3)
    assert named["torch"] == torch.__version__ and named["threads"] == 3 and named["device"] == "cpu"


def test_a_second_thread_waits_so_that_no_generator_is_restored_under_it():
    drawn: list[float] = []

    def other() -> None:
        with deterministic(1):
            torch.manual_seed(5)
            drawn.append(torch.rand(1).item())

    with deterministic(1):
        torch.manual_seed(3)
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(0.2)
        assert thread.is_alive() and not drawn
        first = torch.rand(1).item()
    thread.join()
    torch.manual_seed(3)
    assert first == torch.rand(1).item() and len(drawn) == 1
