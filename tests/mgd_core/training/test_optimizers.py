"""Adam and SGD against torch.optim over a product of settings; their derivative against autograd and differences."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mgd_core.training.optimizers import (
    Adam,
    Bounds,
    Optimizer,
    Sgd,
    State,
    UpdateCotangents,
    autograd_vjp,
    clip_by_norm,
    clip_vjp,
)
from testing.oracles import central_difference

STEPS, SIZE = 6, 37
TOLERANCE = {torch.float64: 1e-13, torch.float32: 2e-6}


def gradients(dtype: torch.dtype, scale: float = 1.0) -> list[Tensor]:
    draw = torch.Generator().manual_seed(0)
    return [scale * torch.randn(SIZE, generator=draw, dtype=torch.float64).to(dtype) for _ in range(STEPS)]


def ours(optimizer: Optimizer, theta: Tensor, rates: list[float], g: list[Tensor]) -> Tensor:
    state = optimizer.init(theta)
    for t, (lr, gradient) in enumerate(zip(rates, g, strict=True)):
        state = optimizer.update(state, gradient, t, torch.tensor(lr, dtype=theta.dtype))
    return state.theta


def theirs(
    make: type[torch.optim.Optimizer], theta: Tensor, rates: list[float], g: list[Tensor], clip: float | None, **kw
) -> Tensor:
    p = torch.nn.Parameter(theta.clone())
    optimizer = make([p], lr=rates[0], **kw)
    for lr, gradient in zip(rates, g, strict=True):
        optimizer.param_groups[0]["lr"] = lr
        p.grad = gradient.clone()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_([p], clip)
        optimizer.step()
    return p.detach()


def start(dtype: torch.dtype) -> Tensor:
    return torch.randn(SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


RATES = [[1e-2] * STEPS, [1e-3 * (t + 1) for t in range(STEPS)]]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("decoupled", [True, False])
def test_adam_is_torchs(dtype: torch.dtype, decoupled: bool):
    make = torch.optim.AdamW if decoupled else torch.optim.Adam
    product = itertools.product(RATES, [(0.9, 0.999), (0.8, 0.95), (0.0, 0.9)], [1e-8, 1e-3], [0.0, 0.1], [None, 0.5])
    for rates, (b1, b2), eps, decay, clip in product:
        optimizer = Adam(b1, b2, eps, eps_root=0.0, weight_decay=decay, decoupled=decoupled, clip_norm=clip)
        kw = {"betas": (b1, b2), "eps": eps, "weight_decay": decay}
        found = ours(optimizer, start(dtype), rates, gradients(dtype))
        expected = theirs(make, start(dtype), rates, gradients(dtype), clip, **kw)
        torch.testing.assert_close(found, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_sgd_is_torchs(dtype: torch.dtype):
    product = itertools.product(RATES, [0.0, 0.9], [False, True], [0.0, 0.1], [None, 0.5, 100.0])
    for rates, momentum, nesterov, decay, clip in product:
        if nesterov and not momentum:
            continue
        kw = {"momentum": momentum, "nesterov": nesterov, "weight_decay": decay}
        found = ours(Sgd(**kw, clip_norm=clip), start(dtype), rates, gradients(dtype))
        expected = theirs(torch.optim.SGD, start(dtype), rates, gradients(dtype), clip, **kw)
        torch.testing.assert_close(found, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


def test_eps_root_stands_under_the_root_after_bias_correction():
    g, lr = torch.tensor([0.3, 1e-6], dtype=torch.float64), torch.tensor(0.1, dtype=torch.float64)
    after = Adam(eps=1e-8, eps_root=1e-4).update(Adam().init(torch.zeros_like(g)), g, 0, lr)
    torch.testing.assert_close(after.theta, -0.1 * g / (torch.sqrt(g * g + 1e-4) + 1e-8))


def test_decay_mask_spares_what_it_leaves_out():
    theta, mask = start(torch.float64), torch.arange(SIZE) % 2.0
    g = [torch.zeros_like(theta)] * STEPS
    for optimizer in (Adam(weight_decay=0.1, decay_mask=mask), Sgd(weight_decay=0.1, decay_mask=mask)):
        moved = ours(optimizer, theta, RATES[0], g) != theta
        assert torch.equal(moved, mask.bool())


SMOOTH: list[Optimizer] = [
    Adam(eps_root=1e-4),
    Adam(eps_root=1e-2, weight_decay=0.1, clip_norm=0.5),
    Adam(eps_root=1e-2, weight_decay=0.1, decoupled=False),
    Sgd(),
    Sgd(nesterov=True, weight_decay=0.1, clip_norm=0.5),
]


@pytest.mark.parametrize("optimizer", SMOOTH, ids=repr)
def test_vjp_agrees_with_differences(optimizer: Optimizer):
    """<adjoint, J d> for a random direction d of (g, state, lr)."""
    draw = torch.Generator().manual_seed(3)

    def normal() -> Tensor:
        return torch.randn(SIZE, generator=draw, dtype=torch.float64)

    moments = optimizer.init(normal()).moments
    state = State(normal(), tuple(normal().abs() for _ in moments))
    adjoint = State(normal(), tuple(normal() for _ in moments))
    g, lr = normal(), torch.tensor(0.05, dtype=torch.float64)
    dg, dtheta, dm, dlr = normal(), normal(), tuple(normal() for _ in moments), 0.7

    def moved(h: Tensor) -> Tensor:
        there = State(state.theta + h * dtheta, tuple(m + h * d for m, d in zip(state.moments, dm, strict=True)))
        after = optimizer.update(there, g + h * dg, 4, lr + h * dlr)
        return sum((a * b).sum() for a, b in zip(after.tensors, adjoint.tensors, strict=True))

    pulled = optimizer.vjp(state, g, 4, lr, adjoint)
    along = (pulled.gradient * dg).sum() + (pulled.state.theta * dtheta).sum() + pulled.lr * dlr
    along = along + sum((a * b).sum() for a, b in zip(pulled.state.moments, dm, strict=True))
    one = torch.ones((), dtype=torch.float64)
    assert along.item() == pytest.approx(central_difference(moved, 0 * one, one, 1e-3), rel=1e-8)


MASK = torch.arange(SIZE, dtype=torch.float64) % 2
BOUNDS = Bounds(torch.tensor([2, 20, 36]), -0.6, 0.5)
BOUNDED: list[Optimizer] = [
    Adam(0.9, 0.98, 1e-6, 1e-6, 0.1, decay_mask=MASK, bounds=BOUNDS),
    Adam(0.9, 0.98, 1e-6, 1e-6, 0.1, decoupled=False, clip_norm=0.5, bounds=BOUNDS),
    Sgd(0.9, True, 0.1, 0.5, MASK, BOUNDS),
]
EVERY_ADAM = [
    Adam(b1, b2, eps, root, decay, decoupled, clip, mask)
    for b1, b2, eps, root in [(0.9, 0.999, 1e-8, 1e-6), (0.0, 0.9, 1e-3, 1e-3), (0.8, 0.0, 1e-8, 1e-2)]
    for decay, decoupled, mask in [(0.0, True, None), (0.1, True, None), (0.1, True, MASK), (0.1, False, MASK)]
    for clip in (None, 0.5, 100.0)
]
EVERY_SGD = [
    Sgd(momentum, nesterov, decay, clip, mask)
    for momentum, nesterov in [(0.0, False), (0.9, False), (0.9, True)]
    for decay, mask in [(0.0, None), (0.1, None), (0.1, MASK)]
    for clip in (None, 0.5, 100.0)
]


@pytest.mark.parametrize("every", [EVERY_ADAM, EVERY_SGD, BOUNDED], ids=["adam", "sgd", "bounded"])
@pytest.mark.parametrize("queries", [(), (1,), (3,)], ids=["one", "one of one", "three"])
@pytest.mark.parametrize("t", [0, 4])
def test_vjp_is_autograds(every: list[Optimizer], queries: tuple[int, ...], t: int):
    draw = torch.Generator().manual_seed(5)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, SIZE, generator=draw, dtype=torch.float64)

    for optimizer in every:
        moments = optimizer.init(normal()).moments
        state = State(normal(), tuple(normal().abs() for _ in moments))
        adjoint = State(normal(*queries), tuple(normal(*queries) for _ in moments))
        arguments = (state, normal(), t, torch.tensor(0.05, dtype=torch.float64), adjoint)
        before = [x.clone() for x in (*state.tensors, *adjoint.tensors, arguments[1])]
        found, expected = optimizer.vjp(*arguments), autograd_vjp(optimizer, *arguments)
        for a, b in zip(flat(found), flat(expected), strict=True):
            assert a.shape == b.shape
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13, msg=lambda m, o=optimizer: f"{o}: {m}")
        after = (*state.tensors, *adjoint.tensors, arguments[1])
        assert all(torch.equal(x, y) for x, y in zip(before, after, strict=True)), "an input was changed"


def test_bounds_are_a_clamp_in_place_after_torchs_step():
    p, g = torch.nn.Parameter(start(torch.float64)), gradients(torch.float64)
    torchs = torch.optim.AdamW([p], lr=0.3, betas=(0.9, 0.98), weight_decay=0.1)
    for gradient in g:
        p.grad = gradient.clone()
        torchs.step()
        with torch.no_grad():
            p[BOUNDS.places] = p[BOUNDS.places].clamp(BOUNDS.low, BOUNDS.high)
    optimizer = Adam(0.9, 0.98, eps_root=0.0, weight_decay=0.1, bounds=BOUNDS)
    found = ours(optimizer, start(torch.float64), [0.3] * STEPS, g)
    torch.testing.assert_close(found, p.detach(), rtol=1e-13, atol=1e-13)
    free = ours(replace(optimizer, bounds=None), start(torch.float64), [0.3] * STEPS, g)
    assert not torch.equal(free, found), "no step went beyond the bounds"


def test_what_is_brought_back_passes_nothing_on_and_what_stands_on_a_bound_does():
    """The convention, that of torch.clamp: the derivative is 1 on a bound, 0 beyond it."""
    bounds, still = Bounds(torch.arange(3), -1.0, 1.0), torch.zeros(3, dtype=torch.float64)
    optimizer, state = Sgd(bounds=bounds), Sgd().init(torch.tensor([0.5, 1.0, 1.5], dtype=torch.float64))
    lam = State(still + 1, (still,))
    pulled = optimizer.vjp(state, still, 0, torch.tensor(0.1, dtype=torch.float64), lam)
    assert pulled.state.theta.tolist() == [1.0, 1.0, 0.0]
    assert pulled.gradient.tolist() == pytest.approx([-0.1, -0.1, 0.0])


def flat(cotangents: UpdateCotangents) -> list[Tensor]:
    assert cotangents.weight_decay is not None
    return [cotangents.gradient, *cotangents.state.tensors, cotangents.lr, cotangents.weight_decay]


def test_clipping_a_gradient_of_zero_has_a_derivative():
    g = torch.zeros(SIZE, dtype=torch.float64)
    for max_norm in (0.5, None):
        assert torch.equal(clip_vjp(g, max_norm, g + 1), g + 1)


@pytest.mark.parametrize("optimizer", SMOOTH, ids=repr)
def test_gradient_is_read_back_from_the_moments(optimizer: Optimizer):
    state = optimizer.init(start(torch.float64))
    for t, g in enumerate(gradients(torch.float64)):
        after = optimizer.update(state, g, t, torch.tensor(0.01, dtype=torch.float64))
        read = optimizer.gradient_from_moments(state, after)
        if optimizer.clip_norm is None:
            torch.testing.assert_close(read, g, rtol=1e-13, atol=1e-13)
        else:
            assert read is None, "a clipped gradient cannot be read back"
        state = after


def test_clipping_leaves_short_gradients_alone():
    g = torch.tensor([3.0, 4.0])
    assert torch.equal(clip_by_norm(g, 6.0), g) and clip_by_norm(g, None) is g
    assert clip_by_norm(g, 1.0).norm().item() == pytest.approx(1.0, rel=1e-6)
