"""What does differentiating one training step cost, in training steps?

`python -m benchmarks.reverse_step` times, on the demo's CLIP (catalogs/models/fashion.json) and on emoji's, with a
batch of 256 in float32 on 2 threads and under the determinism of a real run:

* a training step: gradient and Adam update;
* a reverse step, as `mgd_core.replay` takes it: the gradient read back from the moments, the VJP of the update, and one
  curvature product (reverse over forward: 8 matrix products where a training step has 3, so 2.7 is the limit of the
  arithmetic for layers whose input is differentiated too).

Both sides alternate within one run, so that a busy machine slows both alike, and the ratio is that of their medians.
The second line of a model has both sides encode 64 rows at a time, where each makes a second pass over the encoder.
`--profile` prints where the time of a reverse step goes.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from statistics import median

# Before torch loads OpenMP: threads that wait for each other sleep instead of spinning. On a machine whose cores are
# shared, spinning made a step of two threads 30 times slower; bits and an idle machine's times are the same.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from benchmarks._envelope import emit
from mgd_core.clip import ClipObjective, build_clip, initial_parameters
from mgd_core.determinism import deterministic
from mgd_core.layout import ParameterLayout
from mgd_core.learner import Batch, Learner
from mgd_core.optimizers import Adam, State
from mgd_core.reverse import reverse_step
from mgd_core.schedules import constant
from tasks.catalog import CATALOGS
from tasks.modality.pairs.model_configs import load_model_config

BATCH, CHUNK, THREADS = 256, 64, 2
BATCHES = 4  # different ones, in turn
VOCABULARY = {"fashion": 64, "emoji": 1580}  # tokens that occur in the pool and its tasks, about
WARM_UP, REPEATS, QUICK_REPEATS = 2, 40, 7


@dataclass(frozen=True)
class Timing:
    """Seconds of both steps: median, least and most over the repeats."""

    model: str
    chunk: int | None
    parameters: int
    step: tuple[float, float, float]
    reverse: tuple[float, float, float]

    @property
    def ratio(self) -> float:
        """Training steps that a reverse step costs: the ratio of the medians."""
        return self.reverse[0] / self.step[0]


def main() -> None:
    """Print a table and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_REPEATS} repeats instead of {REPEATS}")
    parser.add_argument("--profile", action="store_true", help="also print where the time of a reverse step goes")
    options = parser.parse_args()
    repeats = QUICK_REPEATS if options.quick else REPEATS
    with deterministic(THREADS):
        timings = {name: measure(name, repeats) for name in VOCABULARY}
        show([timing for pair in timings.values() for timing in pair])
        if options.profile:
            profile("fashion")
        whole, chunked = timings["fashion"]
        whole_emoji, chunked_emoji = timings["emoji"]
        figures = {
            "ratio": whole.ratio,
            "ratio_chunked": chunked.ratio,
            "ratio_emoji": whole_emoji.ratio,
            "ratio_emoji_chunked": chunked_emoji.ratio,
            "repeats": repeats,
            "rows": [asdict(timing) for pair in timings.values() for timing in pair],
        }
        emit("reverse_step", figures)


def show(timings: list[Timing]) -> None:
    """The table, in milliseconds."""
    print(f"{'model':<9}{'parameters':>11}{'chunk':>7}{'training step, ms':>24}{'reverse step, ms':>24}{'ratio':>7}")
    for t in timings:
        step, reverse = (f"{1e3 * m:.1f} ({1e3 * a:.1f} .. {1e3 * b:.1f})" for m, a, b in (t.step, t.reverse))
        print(f"{t.model:<9}{t.parameters:>11,}{t.chunk or BATCH:>7}{step:>24}{reverse:>24}{t.ratio:>7.2f}")


def measure(name: str, repeats: int) -> tuple[Timing, Timing]:
    """Timings of a model with the whole batch at once and in chunks, all four kinds of step in turn."""
    learner, state = build(name)
    chunked = replace(learner, chunk=CHUNK)
    after, _ = learner.step(state, 0)
    adjoint = State(torch.randn_like(after.theta), tuple(torch.zeros_like(m) for m in after.moments))
    seconds: list[list[float]] = [[], [], [], []]
    for i in range(WARM_UP + repeats):
        t = i % BATCHES
        before, after = (state, after) if i == 0 else (after, learner.step(after, t)[0])
        calls = (
            lambda: learner.step(before, t),  # noqa: B023
            lambda: reverse_step(learner, before, after, adjoint, t, learner.batches(t)),  # noqa: B023
            lambda: chunked.step(before, t),  # noqa: B023
            lambda: reverse_step(chunked, before, after, adjoint, t, learner.batches(t)),  # noqa: B023
        )
        for own, call in zip(seconds, calls, strict=True):
            own.append(_seconds(call))
    spread = [(median(own), min(own), max(own)) for own in (s[WARM_UP:] for s in seconds)]
    size = learner.layout.length
    return Timing(name, None, size, spread[0], spread[1]), Timing(name, CHUNK, size, spread[2], spread[3])


def build(name: str) -> tuple[Learner, State]:
    """The catalog's model with a used-size vocabulary, on random uint8 images and tokens."""
    config = load_model_config(CATALOGS / "models" / f"{name}.json")
    vision, text = config["vision_cfg"], {**config["text_cfg"], "vocab_size": VOCABULARY[name]}
    model = build_clip(int(config["embed_dim"]), vision, text, seed=0)
    layout = ParameterLayout.of(model)
    theta = initial_parameters(model, layout)
    optimizer = Adam(b2=0.98, eps=1e-6, weight_decay=0.01, decay_mask=layout.matrix_mask(theta))
    draw = torch.Generator().manual_seed(0)
    size, length = vision["image_size"], text["context_length"]
    batches = [_batch(draw, int(size), int(length), VOCABULARY[name]) for _ in range(BATCHES)]
    learner = Learner(ClipObjective(model), layout, optimizer, constant(BATCHES, 1e-3), batches.__getitem__)
    return learner, optimizer.init(theta)


def _batch(draw: torch.Generator, size: int, length: int, vocabulary: int) -> Batch:
    images = torch.randint(256, (BATCH, 3, size, size), generator=draw, dtype=torch.uint8)
    tokens = torch.randint(1, vocabulary - 1, (BATCH, length), generator=draw)
    tokens[:, -1] = vocabulary - 1  # open_clip reads the text at its largest token, the end of text
    return Batch((images, tokens), torch.arange(BATCH), torch.ones(BATCH))


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def profile(name: str) -> None:
    """Operators of a reverse step by their own time."""
    learner, state = build(name)
    after, _ = learner.step(state, 0)
    adjoint = State(torch.randn_like(state.theta), tuple(torch.zeros_like(m) for m in state.moments))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as recorded:
        for _ in range(WARM_UP):
            reverse_step(learner, state, after, adjoint, 0, learner.batches(0))
    print(recorded.key_averages().table(sort_by="self_cpu_time_total", row_limit=15, max_name_column_width=40))


if __name__ == "__main__":
    main()
