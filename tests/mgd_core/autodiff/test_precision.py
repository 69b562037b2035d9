"""bfloat16 in the encoders: close to float32 by every way the engine takes derivatives, with its state in float32."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mgd_core.autodiff.derivatives import curvature_product, value_and_gradient
from mgd_core.autodiff.directions import curvature_products
from mgd_core.autodiff.precision import BFLOAT16, FLOAT32, PRECISIONS, TF32, Precision
from mgd_core.engine.probe import Probe
from mgd_core.engine.replay import replay
from mgd_core.plans.plan import keep_all
from mgd_core.training.learner import Learner
from testing.embedded_clip import QUICK, build, pairs

CLOSE = 0.1  # bfloat16 has 8 bits; a product of a few layers loses some of them


def learner_in(precision: Precision) -> tuple[Learner, Tensor]:
    learner, initial, _ = build(pairs(QUICK), QUICK, torch.device("cpu"), precision, torch.float32)
    return learner, initial.theta


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("chunk", [None, 5])
def test_the_three_derivatives_are_close_to_float32(chunk: int | None) -> None:
    (own, theta), (low, _) = learner_in(FLOAT32), learner_in(BFLOAT16)
    batch, v = own.batches(0), torch.randn(len(theta), generator=torch.Generator().manual_seed(1))
    at = (own.layout, theta)
    given = (batch.rows, batch.weights, chunk)
    g, g_low = (value_and_gradient(one.objective, *at, *given)[1] for one in (own, low))
    assert 0 < relative(g_low, g) < CLOSE
    exact = curvature_product(own.objective, *at, v, *given)
    single, many = (
        curvature_product(low.objective, *at, v, *given),
        curvature_products(low.objective, *at, torch.stack([v, -v]), *given),
    )
    for theta_part, weights in ((single.theta, single.weights), (many.theta[0], many.weights[0])):
        assert theta_part.dtype == torch.float32
        assert 0 < relative(theta_part, exact.theta) < CLOSE
        assert 0 < relative(weights, exact.weights) < CLOSE


def test_a_training_keeps_its_state_in_float32_and_its_metagradient_in_order() -> None:
    def g_in(precision: Precision) -> tuple[Tensor, Tensor]:
        learner, initial, target = build(pairs(QUICK), QUICK, torch.device("cpu"), precision, torch.float32)
        plan = keep_all(QUICK.start, QUICK.steps)
        found = replay(learner, initial, target.target, plan, QUICK.pool, [QUICK.probe_step])
        assert {t.dtype for t in found.final.tensors} == {torch.float32}
        batch = learner.batches(0)
        return found.example, Probe(learner, found.probes[0]).scores(batch.rows, batch.ids)[1]

    for found, reference in zip(g_in(BFLOAT16), g_in(FLOAT32), strict=True):
        ranks = torch.stack([x.argsort().argsort().double() for x in (found, reference)])
        assert torch.corrcoef(ranks)[0, 1] > 0.95 and not torch.equal(found, reference)


def test_switches_are_as_before_afterwards() -> None:
    def switches() -> tuple[bool, str]:
        return torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()

    before = switches()
    for precision in PRECISIONS.values():
        with precision.switched():
            assert switches() == ((True, "high") if precision is TF32 else (False, "highest"))
    assert switches() == before
