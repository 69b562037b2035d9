"""What does the path of the data cost a sample, and does that stay as pools grow?

`python -m benchmarks.scale [--quick]` writes pools of 100,000 and 1,000,000 tiny pairs (JPEGs of 16 pixels and captions
in tars of 10,000), takes each along the whole path in a process of its own (index, join, columns, tokens, decode,
publish, a round's probes, count update; all but what the model computes, `benchmarks.scale.path`), and removes it.
Microseconds are of CPU, all threads together, since the machine is shared. `growth`: the largest ratio of a phase's
microseconds a sample, large pool over small. `bytes_per_sample`: resident bytes that the large pool took more than the
small one, at the highest phase, by the samples that it has more. `probe_unit_ms`: opening the recipe in a new
process and one probe unit, without imports and the model's products, in either pool: its shard, not the pool.

What is held at once is a stretch or a row group of up to 2^20 rows, which a pool of a million fills for the first time;
with `--buffers ROWS` these are smaller, so that smaller pools tell what grows with the pool and what does not.

Projections are for 16 cores: index, decode, tokens and probes are spread over tasks, join, columns, publish and update
are one thread's. `--quick`: 3,000 and 30,000 pairs.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks._envelope import emit
from benchmarks.scale.synthetic import write_pool
from tasks.modality.pairs.tokens import tokenize

SIZES, SHARD, QUICK_SIZES, QUICK_SHARD = (100_000, 1_000_000), 10_000, (3_000, 30_000), 1_000
SPREAD = ("index", "decode", "tokens", "probe")
ALONE = ("join", "columns", "publish", "update")
CORES, PROJECTED = 16, (12_800_000, 128_000_000)
GROWTH_BAR, BYTES_BAR = 1.2, 150
CAPTIONS = 2_000


def main() -> None:
    """Measure, print a table, projections and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3,000 and 30,000 pairs")
    parser.add_argument("--sizes", type=int, nargs=2, help="other numbers of pairs, the small one first")
    parser.add_argument("--buffers", type=int, default=0, help="rows that are held at once (default: as it is)")
    parser.add_argument("--place", type=Path, help="where the pools are written (4.5 GB), and removed again")
    options = parser.parse_args()
    sizes, shard = (QUICK_SIZES, QUICK_SHARD) if options.quick else (SIZES, SHARD)
    sizes = tuple(options.sizes or sizes)
    small, large = (measured(n, shard, options.place, options.buffers) for n in sizes)
    ratios = {name: large["us"][name] / small["us"][name] for name in (*SPREAD, *ALONE)}
    more = {name: (large["peaks"][name] - small["peaks"][name]) / (sizes[1] - sizes[0]) for name in ratios}
    print(f"{'CPU us a sample':<16}{sizes[0]:>12,}{sizes[1]:>12,}{'ratio':>8}{'bytes a sample more':>21}")
    for name, ratio in ratios.items():
        print(f"{name:<16}{small['us'][name]:>12.2f}{large['us'][name]:>12.2f}{ratio:>8.2f}{more[name]:>21.0f}")
    for n in PROJECTED:
        spread, alone = (n * sum(large["us"][name] for name in names) / 1e6 for names in (SPREAD, ALONE))
        told = f"{spread / CORES / 3600:.2f} h spread over {CORES} cores, {alone / 3600:.2f} h of one"
        print(f"projected, {n:,} such pairs: {told}")
    speed = tokenizer_speed()
    print(f"a caption of ten words: {speed['ours']:.1f} us; open_clip {speed['open_clip']:.0f} us")
    figures = {f"us_{name}": large["us"][name] for name in ("index", "decode", "tokens", "update", *ALONE[:3])}
    emit(
        "scale",
        figures
        | {"us_probe_overhead": large["us"]["probe"], "probe_unit_ms": [small["open_ms"], large["open_ms"]]}
        | {"peak_gib": max(large["peaks"].values()) / 2**30, "bytes_per_sample": max(more.values())}
        | {"growth": max(ratios.values()), "bars": [GROWTH_BAR, BYTES_BAR], "sizes": sizes, "buffers": options.buffers}
        | {"ratios": ratios, "us_small": small["us"], "tokenizer": speed},
    )


def measured(n: int, shard: int, place: Path | None, buffers: int) -> dict[str, Any]:
    """CPU microseconds a sample and highest resident bytes of each phase, on a pool of ``n`` pairs."""
    home = Path(tempfile.mkdtemp(prefix="mgd-scale-", dir=place))
    try:
        write_pool(home / "tars", n, shard)
        found = _run(str(home), str(shard), str(buffers))
        (directory,) = (home / "runs").iterdir()
        opened = _run("--open", str(directory))
    finally:
        shutil.rmtree(home)
    assert found["n"] == n
    found["seconds"]["probe"] -= found["products"]
    us = {name: 1e6 * seconds / n for name, seconds in found["seconds"].items()}
    told = ", ".join(f"{name} {value:.1f}" for name, value in us.items())
    print(f"{n:,} pairs, CPU us a sample: {told}", flush=True)  # the next pool may take an hour
    return {"us": us, "peaks": found["peaks"], "open_ms": opened["ms"]}


def tokenizer_speed() -> dict[str, float]:
    """CPU microseconds a caption of ten words, here and by open_clip."""
    from open_clip.tokenizer import SimpleTokenizer

    theirs = SimpleTokenizer()
    texts = [f"a photo of the red dress number {i % 97} with boots" for i in range(CAPTIONS)]
    found = {}
    for name, call in (("ours", lambda: tokenize(texts, 77)), ("open_clip", lambda: theirs(texts, 77))):
        call()
        began = time.process_time()
        call()
        found[name] = 1e6 * (time.process_time() - began) / CAPTIONS
    return found


def _run(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.scale.path", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    main()
