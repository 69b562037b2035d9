"""What rounds of DataComp's sizes would take on several GPUs, and hold and send: by formula from measured costs.

`python -m benchmarks.projection` prints the tables of docs/scale.md. Nothing runs; the seconds of one H100 are those of
benchmarks/results/gpu.md (ViT-B/32, bfloat16), those of a ViT-B/16 are scaled by arithmetic, the bandwidths are stated.
"""

from __future__ import annotations

from typing import NamedTuple

from benchmarks._envelope import emit
from mgd_core.plans.traffic import Traffic

WINDOW, PROBED = 325, 0.2  # steps differentiated, share of the pool probed
AGAIN = 0.84  # of the window recomputed on one GPU, by the plan that `auto` takes there
GPUS = (1, 8, 64)
BANDWIDTH = {1: 1.0, 8: 300e9, 64: 50e9}  # bytes a second that a rank sends: NVLink in a host, 400 Gbit/s between hosts
STATE_BYTES = 12  # of a parameter: itself and two moments, float32
FEATURES = 2 * 512 * 4  # bytes of a row's features
COUPLE = 87e12  # FLOP a second, as the step of gpu.md reaches


class Size(NamedTuple):
    """A track: parameters, batch, steps, pool; seconds of a step and a reverse step of one GPU, candidates a second."""

    parameters: int
    batch: int
    steps: int
    pool: int
    step: float
    reverse: float
    probe: float


B16 = 165 / 59  # GFLOP of a pair, ViT-B/16 over ViT-B/32: two forward passes and a backward
SIZES = {
    "small (ViT-B/32)": Size(151_300_000, 4096, 3_125, 12_800_000, 2.77, 9.10, 1998),
    "medium (ViT-B/32)": Size(151_300_000, 4096, 31_250, 128_000_000, 2.77, 9.10, 1998),
    "large (ViT-B/16)": Size(149_600_000, 8192, 156_250, 1_280_000_000, 2 * B16 * 2.77, 2 * B16 * 9.10, 1998 / B16),
}


class Round(NamedTuple):
    """Of one round, on so many GPUs: seconds of its steps, hours, and bytes that a GPU holds and sends."""

    step: float
    reverse: float
    hours: float
    states: int
    sent_step: int
    sent_reverse: int
    efficiency: float


def projected(size: Size, gpus: int) -> Round:
    """``work / W + (W > 1) (couple + bytes / bandwidth)`` for each step; nothing of it overlaps."""
    traffic = Traffic(gpus, size.parameters, size.batch, FEATURES)
    couple = 3 * 2 * size.batch**2 * 512 / COUPLE  # of a training step: forward and backward of b x b logits
    more = gpus > 1
    step = size.step / gpus + more * (couple + traffic.step / BANDWIDTH[gpus])
    reverse = size.reverse / gpus + more * (8 / 3 * couple + traffic.reverse / BANDWIDTH[gpus])
    again = AGAIN * WINDOW if gpus == 1 else 0
    seconds = (size.steps + again) * step + WINDOW * reverse + PROBED * size.pool / size.probe / gpus
    alone = size.steps * size.step + WINDOW * size.reverse + PROBED * size.pool / size.probe
    states = -(-size.parameters // gpus) * STATE_BYTES
    return Round(step, reverse, seconds / 3600, states, traffic.step, traffic.reverse, alone / gpus / seconds)


def main() -> None:
    """Print a table and the figures."""
    figures = {}
    for name, size in SIZES.items():
        for gpus in GPUS:
            one = projected(size, gpus)
            figures[f"{name}, {gpus}"] = one._asdict()
            hours = f"{one.hours:,.{2 if one.hours < 1 else 1}f}"
            print(
                f"| {name} | {gpus} | {one.step:.3f} s; {one.reverse:.3f} s | {hours} | "
                f"{one.states / 1e9:.3f} GB; {WINDOW * one.states / 1e9:,.1f} GB | "
                f"{one.sent_step / 1e9:.2f} GB; {one.sent_reverse / 1e9:.2f} GB | {100 * one.efficiency:.0f} % |"
            )
    emit("projection", {"rounds": figures})


if __name__ == "__main__":
    main()
