"""Losses against F.cross_entropy, and a candidate's loss against the batch that it joined."""

import pytest
import torch
import torch.autograd.forward_ad as fwd
import torch.nn.functional as F
from torch import Tensor

from mgd_core.autodiff.objective import cross_entropy, info_nce, info_nce_joining, log_sum_exp, unit_rows


def pair(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    image, text = (unit_rows(torch.randn(n, 6, generator=draw, dtype=torch.float64)) for _ in range(2))
    return image, text


SCALE = torch.tensor(12.0, dtype=torch.float64)


def expected_info_nce(image: Tensor, text: Tensor) -> Tensor:
    logits, own = SCALE * image @ text.T, torch.arange(len(image))
    return (F.cross_entropy(logits, own, reduction="none") + F.cross_entropy(logits.T, own, reduction="none")) / 2


def test_cross_entropy():
    logits = 5 * torch.randn(9, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.arange(9) % 4
    expected = F.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(cross_entropy(logits, labels), expected, rtol=1e-13, atol=1e-14)


def test_info_nce():
    torch.testing.assert_close(info_nce(*pair(8), SCALE), expected_info_nce(*pair(8)), rtol=1e-13, atol=1e-14)


def test_log_sum_exp_is_stable_and_differentiable_twice():
    x = torch.tensor([[1e3, 1e3 - 2.0], [-1e3, 5.0]], dtype=torch.float64, requires_grad=True)
    v = torch.tensor([[1.0, -2.0], [0.5, 3.0]], dtype=torch.float64)
    with fwd.dual_level():
        value, tangent = fwd.unpack_dual(log_sum_exp(fwd.make_dual(x, v), 1))
    torch.testing.assert_close(value, torch.logsumexp(x, 1))
    (found,) = torch.autograd.grad(tangent.sum(), x)
    p = torch.softmax(x.detach(), 1)
    torch.testing.assert_close(found, p * (v - (p * v).sum(1, keepdim=True)))


def test_joining_is_the_loss_of_one_more_pair():
    image, text = pair(8)
    others = pair(5, seed=1)
    found = info_nce_joining(image, text, others, SCALE, torch.ones(8, 5, dtype=torch.bool))
    for i in range(8):
        joined = (torch.cat([others[0], image[i : i + 1]]), torch.cat([others[1], text[i : i + 1]]))
        torch.testing.assert_close(found[i], expected_info_nce(*joined)[-1], rtol=1e-13, atol=1e-14)


def test_a_candidate_is_no_negative_of_itself():
    image, text = pair(5)
    found = info_nce_joining(image, text, (image, text), SCALE, ~torch.eye(5, dtype=torch.bool))
    torch.testing.assert_close(found, info_nce(image, text, SCALE), rtol=1e-13, atol=1e-14)


def test_joining_does_not_depend_on_the_other_candidates():
    image, text = pair(8)
    others, apart = pair(5, seed=1), torch.ones(8, 5, dtype=torch.bool)
    together = info_nce_joining(image, text, others, SCALE, apart)
    alone = info_nce_joining(image[3:4], text[3:4], others, SCALE, apart[3:4])
    assert together[3].item() == pytest.approx(alone.item(), rel=1e-14)
