"""Training step, reverse step and probe of benchmarks.gpu: seconds, and peak memory by chunk size.

Chunk sizes are compared at the smallest batch; the fastest is taken for the larger ones, for the probe, and for the
other precisions, whose results on the same inputs are compared with float32's.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.gpu.meter import Reading, read, release
from benchmarks.gpu.models import Scale, Training, scale, training
from benchmarks.gpu.sections import Bench, Finding
from mgd_core.autodiff.precision import BFLOAT16, FLOAT32, TF32, Precision
from mgd_core.engine.metagradient import ProbePoint
from mgd_core.engine.probe import Probe
from mgd_core.engine.reverse import ReverseStep, reverse_step


class Steps(NamedTuple):
    """A training step and a reverse step."""

    step: Reading
    reverse: Reading

    @property
    def seconds(self) -> float:
        """Of both."""
        return self.step.seconds + self.reverse.seconds


def float32(bench: Bench) -> Iterator[Finding]:
    """Both steps by chunk size and by batch size, and the probe."""
    sizes, own = _subject(bench)
    with FLOAT32.switched():
        best, seconds = None, float("inf")
        for chunk in sizes.chunks:
            try:
                steps = _measured(own, sizes.batches[0], chunk, FLOAT32)
            except torch.OutOfMemoryError:
                release(bench.device)
                yield Finding(f"batch {sizes.batches[0]}, chunk {chunk}: out of memory", {"peak_mib": {chunk: None}})
                break
            peaks = {"step": round(steps.step.peak_mib), "reverse": round(steps.reverse.peak_mib)}
            yield Finding(_line(sizes.batches[0], chunk, steps), {"peak_mib": {chunk: peaks}})
            if steps.seconds < seconds:
                best, seconds = chunk, steps.seconds
        if best is None:
            raise RuntimeError("no chunk size fits in the memory")
        yield Finding(f"chunk {best} is the fastest", {"chunk": best})
        for batch in sizes.batches:
            steps = _measured(own, batch, best, FLOAT32, sizes.repeats)
            yield Finding(_line(batch, best, steps), _figures(steps) | {"batch": batch})
        yield from _probe(own, batch, best, FLOAT32)


def tf32(bench: Bench) -> Iterator[Finding]:
    """The same in TF32."""
    yield from _other(bench, TF32)


def autocast(bench: Bench) -> Iterator[Finding]:
    """The same with the encoders under autocast to bfloat16."""
    yield from _other(bench, BFLOAT16)


def _other(bench: Bench, mode: Precision) -> Iterator[Finding]:
    """Both steps and the probe in another precision, at the largest batch, and how far they are from float32."""
    best, batch = bench.needed("chunk", "batch")
    sizes, own = _subject(bench)
    with mode.switched():
        steps = _measured(own, batch, best, mode, sizes.repeats)
        figures = _figures(steps)
        yield Finding(_line(batch, best, steps), {"precisions": {mode.name: figures}})
        probed = next(_probe(own, batch, best, mode))
        figures = figures | probed.figures
        yield Finding(probed.text, {"precisions": {mode.name: figures}})
        few = sizes.batches[0]
        found = _answers(own, few, min(best, few), mode)
    with FLOAT32.switched():
        reference = _answers(own, few, min(best, few), FLOAT32)
    apart = {name: _error(found[name], reference[name]) for name in found}
    text = ", ".join(f"{name} {error:.1e}" for name, error in apart.items())
    yield Finding(f"relative error to float32 at batch {few}: {text}", {"precisions": {mode.name: figures | apart}})


def _subject(bench: Bench) -> tuple[Scale, Training]:
    sizes = scale(bench.device, bench.quick)
    return sizes, training(sizes.model, sizes.batches[-1], bench.device)


def _measured(own: Training, batch: int, chunk: int, mode: Precision, repeats: int = 1) -> Steps:
    """The median of each, after a warm-up on two chunks."""
    _both(own, min(batch, 2 * chunk), chunk, mode)
    readings = [_both(own, batch, chunk, mode) for _ in range(repeats)]
    return Steps(*(_median(list(column)) for column in zip(*readings, strict=True)))


def _both(own: Training, batch: int, chunk: int, mode: Precision) -> Steps:
    learner, device = own.learner_for(batch, chunk, mode), own.state.theta.device
    step = read(lambda: learner.step(own.state, 1), device)
    rows = learner.batches(1)
    reverse = read(lambda: reverse_step(learner, own.state, own.after, own.adjoint, 1, rows), device)
    return Steps(step._replace(value=None), reverse._replace(value=None))


def _median(readings: list[Reading]) -> Reading:
    return Reading(None, median(r.seconds for r in readings), max(r.peak_mib for r in readings))


def _probe(own: Training, batch: int, chunk: int, mode: Precision) -> Iterator[Finding]:
    """Candidates scored against a reference batch of ``batch`` pairs."""
    learner, device = own.learner_for(batch, chunk, mode), own.state.theta.device
    point = ProbePoint(1, own.state.theta, own.adjoint.theta)
    made = read(lambda: Probe(learner, point), device)
    candidates = learner.batches(1)
    scored = read(lambda: made.value.scores(candidates.rows, candidates.ids), device)
    rate = batch / scored.seconds
    text = f"probe: {rate:,.0f} candidates a second ({scored.peak_mib:,.0f} MiB), reference {made.seconds:.2f} s"
    yield Finding(text, {"probe_samples_per_s": rate, "probe_reference_s": made.seconds})


def _answers(own: Training, batch: int, chunk: int, mode: Precision) -> dict[str, Tensor]:
    """What a step and a reverse step compute."""
    learner = own.learner_for(batch, chunk, mode)
    _, g = learner.gradient(own.state, 1)
    pulled: ReverseStep = reverse_step(learner, own.state, own.after, own.adjoint, 1, learner.batches(1))
    return {"gradient_error": g, "adjoint_error": pulled.adjoint.theta, "weights_error": pulled.weights}


def _error(found: Tensor, reference: Tensor) -> float:
    return ((found - reference).norm() / reference.norm()).item()


def _figures(steps: Steps) -> dict[str, Any]:
    step, reverse = steps.step.seconds, steps.reverse.seconds
    return {"step_s": step, "reverse_s": reverse, "ratio": reverse / step, "reverse_peak_mib": steps.reverse.peak_mib}


def _line(batch: int, chunk: int, steps: Steps) -> str:
    step, reverse = steps
    return (
        f"batch {batch:>5}, chunk {chunk:>5}: step {step.seconds:8.3f} s {step.peak_mib:>8,.0f} MiB, reverse "
        f"{reverse.seconds:8.3f} s {reverse.peak_mib:>8,.0f} MiB, ratio {reverse.seconds / step.seconds:.2f}"
    )
