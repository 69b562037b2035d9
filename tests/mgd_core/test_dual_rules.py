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


@pytest.mark.parametrize("call", [F.layer_norm, torch.layer_norm], ids=["functional", "torch"])
def test_layer_norm_in_its_other_forms(call: Function):
    """PyTorch's own rule is silently wrong here, so none of them may fall back to it."""
    x, w, b = 2 * normal(3, 4, 2), 1 + normal(4, 2, seed=1), normal(4, 2, seed=2)
    check(lambda x: call(x, (2,)), x)
    check(lambda x: call(x, (4, 2)), x)
    check(lambda x, w: call(x, (4, 2), w), x, w)
    check(lambda x, w, b: call(x, (4, 2), w, b, eps=1e-2), x, w, b)


def test_pytorchs_own_layer_norm_rule_is_still_wrong():
    """When this fails, PyTorch has repaired it: reconsider the rule (its speed remains a reason)."""
    x, v, c = normal(3, 8).requires_grad_(), normal(3, 8, seed=1), normal(3, 8, seed=2)
    with fwd.dual_level():
        tangent = fwd.unpack_dual(F.layer_norm(fwd.make_dual(x, v), (8,))).tangent
    (found,) = torch.autograd.grad((c * tangent).sum(), x)
    (first,) = torch.autograd.grad((c * F.layer_norm(x, (8,))).sum(), x, create_graph=True)
    (expected,) = torch.autograd.grad((first * v).sum(), x)
    assert (found - expected).norm() > 0.1 * expected.norm()


def test_group_norm_needs_no_rule():
    x, w, b = normal(3, 4, 5), 1 + normal(4, seed=1), normal(4, seed=2)
    for groups in (1, 2, 4):
        check(lambda x, w, b, groups=groups: F.group_norm(x, groups, w, b), x, w, b)


OTHERS: dict[str, Function] = {
    "silu": F.silu,
    "quick gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "tanh": torch.tanh,
    "normalize": lambda x: F.normalize(x, dim=-1),
    "rms norm": lambda x: F.rms_norm(x, (5,)),
    "conv2d": lambda x: F.conv2d(x, x[:, :, :2, :2] ** 2),
    "average pool": lambda x: F.avg_pool2d(x * x, 2),
    "einsum": lambda x: torch.einsum("bchw,bchv->bwv", x, x),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_models_use_without_a_rule(name: str):
    check(OTHERS[name], normal(3, 3, 5, 5))


def test_norms_over_batch_or_instance_are_refused():
    x = normal(3, 4, 5)
    with dual_rules():
        with pytest.raises(ValueError, match="LayerNorm or GroupNorm"):
            F.batch_norm(x, None, None, training=True)
        with pytest.raises(ValueError, match="GroupNorm with one channel a group"):
            F.instance_norm(x)


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
