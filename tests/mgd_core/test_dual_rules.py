"""Every dual rule against PyTorch in float64: value, tangent, and the reverse pass over both."""

from collections.abc import Callable

import pytest
import torch
import torch.autograd.forward_ad as fwd
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from mgd_core.dual_rules import dual_rules

Function = Callable[..., Tensor]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def check(f: Function, *inputs: Tensor, constant: tuple[int, ...] = ()) -> None:
    """Compare f under the rules with plain PyTorch at ``inputs``; those numbered in ``constant`` have no tangent.

    With random cotangents c, d of the value y and the tangent J v, the gradient of <c, y> + <d, J v> is compared. Plain
    PyTorch gets it by double backward, since <d, J v> = <grad <d, y>, v>.
    """
    moving = [i for i in range(len(inputs)) if i not in constant]
    v = [normal(*x.shape, seed=10 + i) for i, x in enumerate(inputs)]
    ours = [x.clone().requires_grad_() for x in inputs]
    with fwd.dual_level(), dual_rules():
        y, tangent = fwd.unpack_dual(f(*(fwd.make_dual(x, v[i]) if i in moving else x for i, x in enumerate(ours))))
    plain = [x.clone().requires_grad_() for x in inputs]
    with sdpa_kernel(SDPBackend.MATH):
        expected = f(*plain)
        c, d = normal(*y.shape, seed=20), normal(*y.shape, seed=21)
        first = torch.autograd.grad((d * expected).sum(), plain, create_graph=True)
        second = sum((first[i] * v[i]).sum() for i in moving)
        reference = torch.autograd.grad((c * expected).sum() + second, plain)
        _, plain_tangent = jvp(lambda *xs: f(*_merged(inputs, moving, xs)), *_pairs(inputs, v, moving))
    found = torch.autograd.grad((c * y).sum() + (d * tangent).sum(), ours)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(tangent, plain_tangent, rtol=1e-11, atol=1e-11)
    for i, (a, b) in enumerate(zip(found, reference, strict=True)):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10, msg=lambda m, i=i: f"input {i}: {m}")


def _merged(inputs: tuple[Tensor, ...], moving: list[int], xs: tuple[Tensor, ...]) -> list[Tensor]:
    by_number = dict(zip(moving, xs, strict=True))
    return [by_number.get(i, x) for i, x in enumerate(inputs)]


def _pairs(inputs: tuple[Tensor, ...], v: list[Tensor], moving: list[int]) -> tuple[tuple[Tensor, ...], ...]:
    return tuple(inputs[i] for i in moving), tuple(v[i] for i in moving)


@pytest.mark.parametrize("dim", [-1, 0, 1])
@pytest.mark.parametrize("softmax", [torch.softmax, F.softmax, Tensor.softmax], ids=["torch", "functional", "method"])
def test_softmax(softmax: Function, dim: int):
    check(lambda x: softmax(x, dim=dim), 3 * normal(4, 5, 6))


@pytest.mark.parametrize("shape", [(5, 8), (2, 3, 8)])
def test_layer_norm(shape: tuple[int, ...]):
    x, w, b = 2 * normal(*shape), 1 + normal(8, seed=1), normal(8, seed=2)
    check(lambda x, w, b: F.layer_norm(x, (8,), w, b, 1e-3), x, w, b)
    check(lambda x, w, b: F.layer_norm(x, (8,), w, b, 1e-3), x, w, b, constant=(1, 2))


def test_layer_norm_without_gain_falls_back_to_pytorch():
    check(lambda x: F.layer_norm(x, (8,)), normal(3, 8))


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu(approximate: str):
    check(lambda x: F.gelu(x, approximate=approximate), 3 * normal(6, 7))


@pytest.mark.parametrize("shape", [(5, 4), (2, 3, 4), (4,)])
@pytest.mark.parametrize("biased", [True, False])
def test_linear(shape: tuple[int, ...], biased: bool):
    rest = (normal(6, 4, seed=1), *((normal(6, seed=2),) if biased else ()))
    check(F.linear, normal(*shape), *rest)
    check(F.linear, normal(*shape), *rest, constant=(0,))
    check(F.linear, normal(*shape), *rest, constant=tuple(range(1, len(rest) + 1)))


MASKS = {
    "none": {},
    "causal": {"is_causal": True},
    "float": {"attn_mask": normal(5, 5, seed=7)},
    "float with -inf": {"attn_mask": torch.full((5, 5), float("-inf"), dtype=torch.float64).triu(1)},
    "bool": {"attn_mask": torch.ones(5, 5, dtype=torch.bool).tril(1)},
    "scaled": {"scale": 0.3},
}


@pytest.mark.parametrize("mask", MASKS)
def test_attention(mask: str):
    q, k, v = (normal(2, 3, 5, 4, seed=s) for s in range(3))
    check(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, **MASKS[mask]), q, k, v)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_multi_head_attention_module(causal: bool, batch_first: bool):
    """As in open_clip's residual blocks: inputs and all weights move."""
    layer = nn.MultiheadAttention(8, 2, batch_first=batch_first).double()
    mask = MASKS["float with -inf"]["attn_mask"] if causal else None
    names = [name for name, _ in layer.named_parameters()]
    weights = [normal(*p.shape, seed=30 + i) for i, p in enumerate(layer.parameters())]

    def call(x: Tensor, *ws: Tensor) -> Tensor:
        kwargs = {"need_weights": False, "attn_mask": mask}
        return functional_call(layer, dict(zip(names, ws, strict=True)), (x, x, x), kwargs)[0]

    check(call, normal(*((3, 5, 8) if batch_first else (5, 3, 8))), *weights)


def test_functions_run_as_ever_outside_a_dual_level():
    x = normal(3, 8)
    with dual_rules():
        assert torch.equal(F.gelu(x), torch.ops.aten.gelu(x))
        assert torch.equal(torch.softmax(x, 1), torch.ops.aten._softmax(x, 1, False))


def test_attention_that_has_no_rule_is_refused():
    q = normal(1, 2, 3, 4)
    layer = nn.MultiheadAttention(4, 2).double()
    x, y = normal(3, 1, 4), normal(3, 1, 4, seed=1)
    with dual_rules():
        with pytest.raises(ValueError, match="set dropout to 0"):
            F.scaled_dot_product_attention(q, q, q, dropout_p=0.1)
        with pytest.raises(ValueError, match="plain self-attention"):
            layer(x, y, y, need_weights=False)
        with pytest.raises(ValueError, match="attention weights as an output"):
            layer(x, x, x)
