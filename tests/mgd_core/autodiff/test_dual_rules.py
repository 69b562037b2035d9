"""Every dual rule against PyTorch in float64: value, tangent, and the reverse pass over both."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import pytest
import torch
import torch.autograd.forward_ad as fwd
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from mgd_core.autodiff.dual_functions import laid_out
from mgd_core.autodiff.dual_rules import double_rules, dual_rules

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


CONVOLUTIONS = {
    "plain": {},
    "strided": {"stride": 2, "padding": 1},
    "depthwise": {"groups": 4, "padding": (1, 1)},
    "dilated groups": {"groups": 2, "dilation": 2, "padding": (2, 0)},
    "same": {"padding": "same"},
}


def images(count: int = 3, size: int = 5, last: bool = False) -> Tensor:
    x = normal(count, 4, size, size)
    return x.permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format).permute(0, 3, 1, 2) if last else x


@pytest.mark.parametrize("settings", CONVOLUTIONS)
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("last", [True, False])
def test_convolution(settings: str, biased: bool, last: bool):
    kw = CONVOLUTIONS[settings]
    weights = (normal(8, 4 // kw.get("groups", 1), 3, 3, seed=1), *((normal(8, seed=2),) if biased else ()))

    def f(x: Tensor, *ws: Tensor) -> Tensor:
        return F.conv2d(x, *ws, **kw)

    check(f, images(last=last), *weights)
    check(f, images(last=last), *weights, constant=(0,))
    check(f, images(last=last), *weights, constant=tuple(range(1, len(weights) + 1)))
    check_double(f, images(last=last), *weights)
    check_double(f, images(last=last), *weights, constant=(0,))


@pytest.mark.parametrize("size", [1, 2, 5])
def test_convolution_of_few_pixels_keeps_their_layout(size: int):
    """Strides are what oneDNN goes by; at one pixel a tangent's would differ from the value's without a word."""
    x, w = images(size=size, last=True), normal(4, 1, 7, 7, seed=1)
    assert x.stride(1) == 1
    kw = {"padding": 3, "groups": 4}
    check(lambda x, w: F.conv2d(x, w, **kw), x, w)
    check_double(lambda x, w: F.conv2d(x, w, **kw), x, w)
    assert laid_out(normal(3, 4, size, size), x).stride() == x.stride()
    assert torch.equal(laid_out(images(size=size), x), images(size=size))


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_twice(approximate: str):
    check_double(lambda x: F.gelu(x, approximate=approximate), 3 * normal(6, 7))


def check_double(f: Function, *inputs: Tensor, constant: tuple[int, ...] = ()) -> None:
    """Compare a double backward under its rules with plain PyTorch's, one direction at a time and several at once."""
    moving = [i for i in range(len(inputs)) if i not in constant]
    results = []
    for rules in (double_rules(), nullcontext()):
        xs = [x.clone().requires_grad_(i in moving) for i, x in enumerate(inputs)]
        leaves = [xs[i] for i in moving]
        with rules:
            y = f(*xs)
        c = normal(*y.shape, seed=20).requires_grad_()
        first = torch.autograd.grad(y, leaves, c, create_graph=True)
        u = [normal(3, *x.shape, seed=30 + i) for i, x in enumerate(leaves)]
        wanted = [c, *leaves]
        kw = {"retain_graph": True, "allow_unused": True}
        together = torch.autograd.grad(first, wanted, u, is_grads_batched=True, **kw)
        single = torch.autograd.grad(first, wanted, [x[1] for x in u], **kw)
        assert [x is None for x in together] == [x is None for x in single]
        assert_all_close([x[1] for x in together if x is not None], [x for x in single if x is not None])
        results.append([y, *first, *(x for x in together if x is not None and x.any())])
    assert_all_close(results[0], results[1])


def assert_all_close(found: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


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


def test_weights_made_of_parameters_have_tangents_that_move():
    """As in a low-rank update or a weight norm: the tangent of the weight depends on the parameters too."""
    x, a, b = normal(4, 3), normal(5, 2, seed=1), normal(2, 3, seed=2)
    check(lambda x, a, b: F.linear(x, a @ b), x, a, b)
    check(lambda x, a, b: F.linear(x, a @ b, (a * a).sum(1)), x, a, b, constant=(0,))
    check(lambda x, w: F.layer_norm(x, (3,), w**2, w**3), x, normal(3, seed=1))
    pixels, w = normal(2, 3, 4, 4), normal(5, 3, 2, 2, seed=1)
    check(lambda x, w: F.conv2d(x, w / w.norm(), (w * w).sum((1, 2, 3))), pixels, w)
    check(lambda x, w: F.conv2d(x, w / w.norm(), (w * w).sum((1, 2, 3))), pixels, w, constant=(0,))


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
