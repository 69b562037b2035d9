"""Bytes of a reverse step, counted on shapes: against a step that is taken, and against PyTorch's profiler."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from mgd_core.autodiff.derivatives import curvature_product
from mgd_core.autodiff.layout import ParameterLayout
from mgd_core.engine.step_memory import AROUND, Counted, TooLittleMemory, bytes_of_step, rows_within
from mgd_core.models.clip import ClipObjective, build_clip, initial_parameters

BATCH = 32
VISION = {"layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 32}
TEXT = {"context_length": 8, "vocab_size": 50, "width": 32, "heads": 2, "layers": 2}


def case(device: str) -> tuple:
    model = build_clip(16, VISION, TEXT, seed=0).to(device)
    layout = ParameterLayout.of(model)
    theta = initial_parameters(model, layout)
    rows = (
        torch.zeros(BATCH, 3, 32, 32, dtype=torch.uint8, device=device),
        torch.ones(BATCH, 8, dtype=torch.int64, device=device),
    )
    return ClipObjective(model), layout, theta, rows


def taken(chunk: int) -> None:
    objective, layout, theta, rows = case("cpu")
    curvature_product(objective, layout, theta, torch.ones_like(theta), rows, torch.ones(BATCH), chunk)


@pytest.mark.parametrize("chunk", [4, 8, 32])
def test_shapes_tell_what_a_step_takes(chunk: int) -> None:
    objective, layout, theta, rows = case("cpu")
    v, weights = torch.ones_like(theta), torch.ones(BATCH)
    with Counted() as counted:
        curvature_product(objective, layout, theta, v, rows, weights, chunk)
    own = AROUND * 4 * len(theta) + sum(x.numel() * x.element_size() for x in rows)
    assert bytes_of_step(*case("meta"), chunk) - own == pytest.approx(counted.peak, rel=0.02)


def test_the_profiler_sees_as_much(tmp_path: Path) -> None:
    """Allocations of a step by PyTorch's own account; it also sees what operations take for themselves."""
    taken(8)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        taken(8)
    seen.export_chrome_trace(str(tmp_path / "trace.json"))
    events = [
        e["args"] for e in json.loads((tmp_path / "trace.json").read_text())["traceEvents"] if e["name"] == "[memory]"
    ]
    totals = [e["Total Allocated"] for e in events]
    objective, layout, theta, rows = case("meta")
    counted = bytes_of_step(objective, layout, theta, rows, 8) - (AROUND - 2) * 4 * len(theta)  # theta and v are made
    assert 0.85 < (max(totals) - totals[0]) / counted < 1.15


def test_as_many_rows_as_fit() -> None:
    memory = bytes_of_step(*case("meta"), 16)
    found = rows_within(memory, *case("meta"))
    assert found in (8, 16) and bytes_of_step(*case("meta"), found) <= memory * 1.02
    assert rows_within(100 * memory, *case("meta")) == BATCH
    with pytest.raises(TooLittleMemory, match=r"one row encoded at once takes .* are allowed \(learner.chunk_memory\)"):
        rows_within(1000, *case("meta"))
