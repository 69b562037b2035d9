"""What compiling would give: a training step's gradient and a curvature product as TorchInductor programs.

``make_fx`` records each as one graph of plain operations, reverse pass and forward-mode tangents included, and Inductor
(the compiler of torch.compile) compiles that. Both sides run in this process on the same inputs, one chunk at a time. A
whole ViT-B/32 makes a graph of more than 20,000 operations, which takes longer to compile than there is time for: the
model is cut to a few layers a tower, at full width and with everything around them. The engine itself runs uncompiled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from benchmarks.gpu.meter import read
from benchmarks.gpu.models import Training, scale, training
from benchmarks.gpu.sections import Bench, Finding, LeftOut
from mgd_core.autodiff.derivatives import curvature_product, value_and_gradient
from mgd_core.autodiff.precision import FLOAT32
from mgd_core.training.learner import Learner

LAYERS, REPEATS = 2, 5
Program = Callable[..., tuple[Tensor, ...]]


def compiled(bench: Bench) -> Iterator[Finding]:
    """Speed-up of both programs, and whether they give the same results."""
    cuda = bench.device.type == "cuda"
    if bench.quick and not cuda:
        raise LeftOut("compiling C++ takes minutes; without --quick it is measured")
    sizes = scale(bench.device, bench.quick)
    rows = sizes.chunks[len(sizes.chunks) // 2]
    own = training(sizes.model, rows, bench.device, LAYERS if cuda else 1)
    with FLOAT32.switched():
        for name, program, inputs in _programs(own, rows):
            yield _compared(name, program, inputs, bench.device)


def _programs(own: Training, rows: int) -> Iterator[tuple[str, Program, tuple[Tensor, ...]]]:
    learner: Learner = own.learner_for(rows, None)
    batch, theta = learner.batches(1), own.state.theta
    subject = learner.objective, learner.layout

    def step(theta: Tensor, images: Tensor, tokens: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
        return value_and_gradient(*subject, theta, (images, tokens), weights)

    def reverse(theta: Tensor, v: Tensor, images: Tensor, tokens: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
        return tuple(curvature_product(*subject, theta, v, (images, tokens), weights)[:3])

    yield "step", step, (theta, *batch.rows, batch.weights)
    yield "reverse", reverse, (theta, own.adjoint.theta, *batch.rows, batch.weights)


def _compared(name: str, program: Program, inputs: tuple[Tensor, ...], device: torch.device) -> Finding:
    made = read(lambda: _compile(program, inputs), device)
    eager, fast = _seconds(program, inputs, device), _seconds(made.value, inputs, device)
    found, again = made.value(*inputs), made.value(*inputs)
    same = all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
    expected = program(*inputs)
    apart = max(((a - b).norm() / b.norm()).item() for a, b in zip(found, expected, strict=True))
    text = (
        f"{name}: {1e3 * eager:.1f} ms, compiled {1e3 * fast:.1f} ms ({eager / fast:.2f} times as fast), made in "
        f"{made.seconds:.0f} s; relative difference {apart:.1e}, twice {'the same' if same else 'NOT the same'}"
    )
    figures = {
        "compiled_speedup": {name: eager / fast},
        "compile_s": {name: made.seconds},
        "compiled_difference": {name: apart},
        "compiled_repeats": {name: same},
    }
    return Finding(text, figures)


def _compile(program: Program, inputs: tuple[Tensor, ...]) -> Program:
    import torch._inductor

    graph = make_fx(program)(*inputs)
    with torch.no_grad():
        fast: Callable[..., Any] = torch._inductor.compile(graph, list(inputs))
        fast(*inputs)
    return lambda *given: tuple(_without_grad(fast, given))


def _without_grad(call: Callable[..., Any], inputs: tuple[Tensor, ...]) -> Any:
    with torch.no_grad():
        return call(*inputs)


def _seconds(program: Program, inputs: tuple[Tensor, ...], device: torch.device) -> float:
    program(*inputs)
    return median(read(lambda: program(*inputs), device).seconds for _ in range(REPEATS))
