"""What does the engine do on a GPU? One call, under 9 minutes on one H100 or H200.

`python -m benchmarks.gpu` measures, on an open_clip ViT-B/32 with random weights and the full vocabulary, on synthetic
pairs and under the determinism of a real run:

* exactness: small trainings in float64 on the device against naive autograd; and whether steps and replays repeat
  bitwise;
* how fast a state moves from the device to pinned memory and to disk, and back;
* a training step, a reverse step and a probe: seconds and peak memory by chunk size, at batches of 1024 to 4096, in
  float32, in TF32 and with the encoders under autocast to bfloat16;
* what compiling the two steps would give;
* and from these the hours of a round of DataComp-small by the cheapest plan.

Each section has its own time; one that fails, takes longer or lacks a package is reported as such and leaves the others
alone. Without a CUDA device all of it runs on the CPU with a small model, which says that it runs, and no more.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: see benchmarks.reverse_step
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before cuBLAS's first call

import torch

from benchmarks._envelope import emit
from benchmarks.gpu.sections import Bench, Outcome, Section, run

SECTIONS = (
    Section("exactness", "benchmarks.gpu.checks:exactness", 60),
    Section("determinism", "benchmarks.gpu.checks:determinism", 90),
    Section("transfers", "benchmarks.gpu.transfers:transfers", 60),
    Section("float32", "benchmarks.gpu.speed:float32", 210),
    Section("TF32", "benchmarks.gpu.speed:tf32", 60),
    Section("bfloat16 autocast", "benchmarks.gpu.speed:autocast", 60),
    Section("compiled", "benchmarks.gpu.compiled:compiled", 150),
    Section("a round of DataComp-small", "benchmarks.gpu.round:projection", 10),
)
LAST = 10.0  # seconds kept for the projection
BUDGET = 510.0
NO_CUDA = "no CUDA device: CPU figures, small model"
KEYS = (
    "step_s",
    "reverse_s",
    "ratio",
    "probe_samples_per_s",
    "peak_mib",
    "save_mb_s",
    "load_mb_s",
    "compiled_speedup",
    "deterministic",
    "max_rel_error",
    "projected_round_hours",
)


def main() -> None:
    """Print a table and the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one batch size, few chunk sizes: under 45 s on a CPU")
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds for all sections together")
    parser.add_argument("--disk", type=Path, default=Path(tempfile.gettempdir()), help="where states would be kept")
    parser.add_argument("--only", help="names of sections, by commas")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else NO_CUDA
    print(f"{name}; torch {torch.__version__}", flush=True)
    bench = Bench(device, options.quick, options.disk)
    chosen = [s for s in SECTIONS if options.only is None or s.name in options.only.split(",")]
    emit("gpu", figures(bench, name, measure(chosen, bench, options.budget)))


def measure(sections: list[Section], bench: Bench, budget: float) -> list[Outcome]:
    """Run the sections in turn and print how each ended."""
    end, outcomes = time.perf_counter() + budget, []
    for section in sections:
        reserved = 0.0 if section is SECTIONS[-1] else LAST
        outcomes.append(run(section, bench, end - reserved - time.perf_counter()))
    print(f"\n{'section':<28}{'':<10}{'s':>7}")
    for outcome in outcomes:
        print(f"{outcome.name:<28}{outcome.end:<10}{outcome.seconds:>7.1f}  {outcome.reason}")
    return outcomes


def figures(bench: Bench, name: str, outcomes: list[Outcome]) -> dict[str, Any]:
    """The JSON figures; None for those of a section that did not get to them."""
    return {
        "device": name,
        "torch": torch.__version__,
        **dict.fromkeys(KEYS),
        **bench.found,
        "quick": bench.quick,
        "sections": [asdict(outcome) for outcome in outcomes],
        "failures": {outcome.name: outcome.reason for outcome in outcomes if outcome.end != "ok"},
    }


if __name__ == "__main__":
    main()
