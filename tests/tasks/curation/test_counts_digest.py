"""Counts are known by the digest of their list, as earlier versions took it."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.curation import counts_digest as digests
from tasks.curation.counts_digest import counts_digest
from tasks.files.artefacts import digest


@pytest.mark.parametrize("stretch", [1, 3, 64, 1 << 20])
@pytest.mark.parametrize("most", [1, 2, 10, 11, 1 << 40])
def test_it_is_that_of_the_list(most: int, stretch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "STRETCH", stretch)
    for n in (0, 1, 5, 64, 200):
        counts = np.random.default_rng(n).integers(0, most, n)
        assert counts_digest(counts) == digest(counts.tolist())
    assert counts_digest(np.array([-1, 5])) == digest([-1, 5])
