"""Layers of the zoo: each between an affine map and a linear head, so that all its derivatives matter.

The last list holds what was wrong or told too late once: padding rows of tied embeddings, ``no_grad``, norms whose
input is still, linear algebra, chance, state, masks, checkpoints, and rows that are coupled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from testing.exactness_zoo import Case, classified

SEQ, VEC, IMG, VOL = (5, 8), (8,), (4, 8, 8), (2, 4, 4, 4)
Call = Callable[[Tensor], Any]


class Wrapped(nn.Module):
    """x -> head(flat(layer(affine(x)))); ``layer`` may be a function of one tensor."""

    def __init__(self, layer: Any, shape: tuple[int, ...], stem: bool = True) -> None:
        super().__init__()
        self.gain = nn.Parameter(1 + 0.1 * torch.randn(shape)) if stem else None
        self.shift = nn.Parameter(0.1 * torch.randn(shape)) if stem else None
        self.layer = layer
        with torch.no_grad():
            width = self._features(torch.randn(2, *shape)).shape[1]
        self.head = nn.Linear(width, 3)

    def _features(self, x: Tensor) -> Tensor:
        if self.gain is not None and self.shift is not None:
            x = x * self.gain + self.shift
        out = self.layer(x)
        while isinstance(out, tuple):
            out = out[0]
        return out.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, 3)."""
        return self.head(self._features(x))


class Function(nn.Module):
    """A function of x and of parameters of given shapes."""

    def __init__(self, f: Callable[..., Any], *shapes: tuple[int, ...]) -> None:
        super().__init__()
        self.f = f
        self.weights = nn.ParameterList([nn.Parameter(0.4 * torch.randn(s)) for s in shapes])

    def forward(self, x: Tensor) -> Any:
        """f(x, *weights)."""
        return self.f(x, *self.weights)


def layer(
    name: str, make: Callable[[], Any], shape: tuple[int, ...], reason: str | None = None, stem: bool = True
) -> Case:
    """A case of a layer."""
    return Case("layer", name, lambda: classified(name, lambda: Wrapped(make(), shape, stem), shape), reason)


def attention(f: Callable[..., Any] = lambda m, x: m(x, x, x)[0], **options: Any) -> Callable[[], nn.Module]:
    """A multi-head attention of torch, called by ``f``."""

    class Attend(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.MultiheadAttention(8, 2, batch_first=True, **options)

        def forward(self, x: Tensor) -> Any:
            return f(self.inner, x)

    return Attend


def direct_attention(mask: Tensor, **named: Any) -> Callable[[], nn.Module]:
    """``F.multi_head_attention_forward`` itself, with ``mask``."""

    def call(x: Tensor, w: Tensor, b: Tensor, out: Tensor, last: Tensor) -> Tensor:
        t = x.transpose(0, 1)
        fitting = mask if mask.dtype == torch.bool else mask.to(x.dtype)
        fitting = fitting.repeat(x.shape[0], 1, 1) if mask.ndim == 3 else fitting
        arguments = (t, t, t, 8, 2, w, b, None, None, False, 0.0, out, last)
        given = {"need_weights": False, "attn_mask": fitting, **named}
        return F.multi_head_attention_forward(*arguments, **given)[0].transpose(0, 1)

    return lambda: Function(call, (24, 8), (24,), (8, 8), (8,))


UPPER = torch.ones(5, 5, dtype=torch.bool).triu(1)

MODULES: list[tuple[str, Callable[[], Any], tuple[int, ...]]] = [
    *((f"{a.__name__}", a, SEQ) for a in (nn.ReLU, nn.ReLU6, nn.ELU, nn.CELU, nn.SELU, nn.SiLU, nn.Mish, nn.GELU)),
    *((f"{a.__name__}", a, SEQ) for a in (nn.Tanh, nn.Sigmoid, nn.Softplus, nn.Softsign, nn.LogSigmoid, nn.PReLU)),
    *((f"{a.__name__}", a, SEQ) for a in (nn.Hardtanh, nn.Hardswish, nn.LeakyReLU, nn.Tanhshrink)),
    *((f"{a.__name__}", a, SEQ) for a in (nn.Softshrink, nn.Hardshrink)),
    ("GELU tanh", lambda: nn.GELU("tanh"), SEQ),
    ("GLU", nn.GLU, SEQ),
    ("Softmax", lambda: nn.Softmax(-1), SEQ),
    ("Softmin", lambda: nn.Softmin(-1), SEQ),
    ("LogSoftmax", lambda: nn.LogSoftmax(-1), SEQ),
    ("Softmax2d", nn.Softmax2d, IMG),
    ("Linear", lambda: nn.Linear(8, 6), SEQ),
    ("Bilinear", lambda: Doubled(nn.Bilinear(8, 8, 4)), SEQ),
    ("Conv1d", lambda: nn.Conv1d(5, 6, 3), SEQ),
    ("Conv2d", lambda: nn.Conv2d(4, 6, 3, 2, 1), IMG),
    ("Conv2d same", lambda: nn.Conv2d(4, 6, 3, padding="same"), IMG),
    ("Conv2d reflect", lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), IMG),
    ("Conv2d depthwise", lambda: nn.Conv2d(4, 8, 3, groups=4), IMG),
    ("Conv3d", lambda: nn.Conv3d(2, 3, 2), VOL),
    ("ConvTranspose2d", lambda: nn.ConvTranspose2d(4, 3, 2, 2), IMG),
    ("LayerNorm", lambda: nn.LayerNorm(8), SEQ),
    ("LayerNorm two dims", lambda: nn.LayerNorm((5, 8)), SEQ),
    ("RMSNorm", lambda: nn.RMSNorm(8), SEQ),
    ("GroupNorm", lambda: nn.GroupNorm(2, 4), IMG),
    ("LocalResponseNorm", lambda: nn.LocalResponseNorm(2), IMG),
    ("AvgPool2d", lambda: nn.AvgPool2d(2), IMG),
    ("MaxPool2d", lambda: nn.MaxPool2d(2), IMG),
    ("MaxPool1d", lambda: nn.MaxPool1d(2), SEQ),
    ("AdaptiveAvgPool2d", lambda: nn.AdaptiveAvgPool2d(3), IMG),
    ("AdaptiveMaxPool2d", lambda: nn.AdaptiveMaxPool2d(3), IMG),
    ("LPPool2d", lambda: nn.LPPool2d(2, 2), IMG),
    ("PixelShuffle", lambda: nn.PixelShuffle(2), IMG),
    ("Upsample nearest", lambda: nn.Upsample(scale_factor=2), IMG),
    ("Upsample bilinear", lambda: nn.Upsample(scale_factor=2, mode="bilinear"), IMG),
    ("Upsample bicubic", lambda: nn.Upsample(scale_factor=2, mode="bicubic"), IMG),
    ("Unfold", lambda: nn.Unfold(2), IMG),
    ("ZeroPad2d", lambda: nn.ZeroPad2d(1), IMG),
    ("ReflectionPad2d", lambda: nn.ReflectionPad2d(1), IMG),
    ("GRU", lambda: nn.GRU(8, 6, batch_first=True), SEQ),
    ("LSTM", lambda: nn.LSTM(8, 6, batch_first=True), SEQ),
    ("RNN", lambda: nn.RNN(8, 6, batch_first=True), SEQ),
    ("TransformerEncoderLayer", lambda: nn.TransformerEncoderLayer(8, 2, 12, 0.0, batch_first=True), SEQ),
    ("attention without weights", attention(lambda m, x: m(x, x, x, need_weights=False)[0]), SEQ),
    ("attention with weights", attention(), SEQ),
    ("attention bias_kv", attention(add_bias_kv=True), SEQ),
    ("attention zero_attn", attention(lambda m, x: m(x, x, x, need_weights=False)[0], add_zero_attn=True), SEQ),
    ("cross-attention", attention(lambda m, x: m(x[:, :2], x, x, need_weights=False)[0]), SEQ),
    (
        "attention padded",
        attention(lambda m, x: m(x, x, x, key_padding_mask=(x[:, :, 0] > 1) & UPPER[0], need_weights=False)[0]),
        SEQ,
    ),
    ("attention bool mask", attention(lambda m, x: m(x, x, x, need_weights=False, attn_mask=UPPER)[0]), SEQ),
    ("linear low-rank", lambda: Function(lambda x, a, b: F.linear(x, a @ b), (6, 2), (2, 8)), SEQ),
    ("rotary", lambda: Function(lambda x, w: torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (4, 2)))
     * torch.exp(1j * w)), (4,)), SEQ),
    ("einsum", lambda: Function(lambda x, w: torch.einsum("nld,de,nme->nlm", x, w, x), (8, 8)), SEQ),
    ("cumsum", lambda: Function(lambda x: x.cumsum(1)), SEQ),
    ("cumprod", lambda: Function(lambda x: x.cumprod(1)), SEQ),
    ("sort", lambda: Function(lambda x: x.sort(-1)[0]), SEQ),
    ("topk", lambda: Function(lambda x: x.topk(3, -1)[0]), SEQ),
    ("cosine similarity", lambda: Function(lambda x: F.cosine_similarity(x[:, :1], x, dim=-1)), SEQ),
    ("norm", lambda: Function(lambda x: x.norm(dim=-1)), SEQ),
    ("var", lambda: Function(lambda x: x.var(-1)), SEQ),
    ("logsumexp", lambda: Function(lambda x: x.logsumexp(-1)), SEQ),
    ("weight norm", lambda: nn.utils.parametrizations.weight_norm(nn.Linear(8, 6)), SEQ),
    ("orthogonal", lambda: nn.utils.parametrizations.orthogonal(nn.Linear(8, 8), orthogonal_map="cayley"), SEQ),
    ("fft", lambda: Function(lambda x: torch.fft.rfft(x, dim=1).abs().square()), SEQ),
    ("mixture of experts", lambda: Function(lambda x, g, w: (
        (x @ g).softmax(-1).unsqueeze(-1) * torch.einsum("nld,edf->nlef", x, w)).sum(2), (8, 3), (3, 8, 4)), SEQ),
]  # fmt: skip


class Doubled(nn.Module):
    """A layer of two inputs, given the same one twice."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """inner(x, x)."""
        out: Tensor = self.inner(x, x)
        return out


def index(x: Tensor) -> Tensor:
    """Whole numbers (n, 5) of 0 to 3."""
    return (x[..., 0] * 2).long().clamp(-1, 2) + 1


def own_targets(x: Tensor, w: Tensor) -> Tensor:
    """A layer that uses its own output under ``no_grad``: as soft targets do."""
    y = x @ w
    with torch.no_grad():
        fixed = (x @ w).softmax(-1)
    return y.softmax(-1) * fixed


def square_of(x: Tensor, w: Tensor) -> Tensor:
    """Well-conditioned square matrices (n, 4, 4)."""
    y = (x @ w)[:, :4, :4]
    return y @ y.transpose(1, 2) + 2 * torch.eye(4, dtype=x.dtype)


def saved(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A non-reentrant checkpoint around ``function``."""
    return lambda *arguments: checkpoint(function, *arguments, use_reentrant=False)


class Counting(nn.Module):
    """Divides by a count that it keeps, as a running statistic."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        """x / count."""
        self.seen += 1
        return x / self.seen


STANDARD = torch.zeros(5, 5).masked_fill(UPPER, float("-inf")).double()
G, C, R = "draws at random|drops activations at random", "couples the rows", "changes while the model runs"
DEFECTS: list[Case] = [
    layer("D1 embedding padding_idx", lambda: Function(
        lambda x, w: F.embedding(index(x), w, padding_idx=0) @ w.T, (4, 6)), SEQ, stem=False),
    layer("D1 embedding padding_idx -1", lambda: Function(
        lambda x, w: F.embedding(index(x), w, padding_idx=-1) @ w.T, (4, 6)), SEQ, stem=False),
    layer("D1 torch.embedding padding", lambda: Function(
        lambda x, w: torch.embedding(w, index(x), 0) @ w.T, (4, 6)), SEQ, stem=False),
    layer("D1 embedding", lambda: Function(lambda x, w: F.embedding(index(x), w) @ w.T, (4, 6)), SEQ, stem=False),
    layer("D1 embedding_bag", lambda: Function(
        lambda x, w: F.embedding_bag(index(x), w, padding_idx=0) @ w.T, (4, 6)), SEQ, "embedding_bag", stem=False),
    layer("D1 scale_grad_by_freq", lambda: Function(
        lambda x, w: F.embedding(index(x), w, scale_grad_by_freq=True), (4, 6)), SEQ, "scale_grad_by_freq"),
    layer("D1 max_norm", lambda: Function(
        lambda x, w: F.embedding(index(x), w, max_norm=1.0), (4, 6)), SEQ, "max_norm"),
    layer("D1 max_norm of a bag", lambda: Function(
        lambda x, w: F.embedding_bag(index(x), w, max_norm=1.0), (4, 6)), SEQ, "max_norm"),
    layer("D2 own targets under no_grad", lambda: Function(own_targets, (8, 6)), SEQ),
    layer("D3 LayerNorm of still input", lambda: nn.Sequential(nn.LayerNorm(8), nn.Tanh()), SEQ, stem=False),
    layer("D3 GroupNorm of still input", lambda: nn.Sequential(nn.GroupNorm(2, 4), nn.Tanh()), IMG, stem=False),
    layer("D3 RMSNorm of still input", lambda: nn.Sequential(nn.RMSNorm(8), nn.Tanh()), SEQ, stem=False),
    layer("D4 linalg.solve", lambda: Function(
        lambda x, w: torch.linalg.solve(square_of(x, w), x[:, :4]), (8, 8)), SEQ),
    layer("D4 linalg.det", lambda: Function(lambda x, w: torch.linalg.det(square_of(x, w))[:, None], (8, 8)), SEQ),
    layer("D4 slogdet", lambda: Function(lambda x, w: torch.slogdet(square_of(x, w))[1][:, None], (8, 8)), SEQ),
    layer("D4 logdet", lambda: Function(lambda x, w: torch.logdet(square_of(x, w))[:, None], (8, 8)), SEQ),
    layer("D4 linalg.inv", lambda: Function(lambda x, w: torch.linalg.inv(square_of(x, w)), (8, 8)), SEQ),
    layer("D4 cholesky", lambda: Function(lambda x, w: torch.linalg.cholesky(square_of(x, w)), (8, 8)), SEQ),
    layer("D4 native_layer_norm", lambda: Function(
        lambda x, w, b: torch.native_layer_norm(x, (8,), w, b, 1e-5)[0], (8,), (8,)), SEQ),
    layer("D4 torch.instance_norm", lambda: Function(
        lambda x: torch.instance_norm(x, None, None, None, None, True, 0.1, 1e-5, False)), SEQ, "instance norm"),
    layer("D4 torch.batch_norm", lambda: Function(
        lambda x: torch.batch_norm(x, None, None, None, None, True, 0.1, 1e-5, False)), SEQ, "couples the rows"),
    layer("D4 native_batch_norm", lambda: Function(
        lambda x: torch.native_batch_norm(x, None, None, None, None, True, 0.1, 1e-5)[0]), SEQ, "couples the rows"),
    layer("BatchNorm1d", lambda: nn.BatchNorm1d(5), SEQ, "couples the rows"),
    layer("BatchNorm1d without statistics", lambda: nn.BatchNorm1d(5, track_running_stats=False), SEQ, "couples the"),
    layer("BatchNorm1d frozen", lambda: nn.BatchNorm1d(5).eval(), SEQ),
    layer("InstanceNorm1d", lambda: nn.InstanceNorm1d(5), SEQ, "GroupNorm with one channel a group"),
    layer("D5 Dropout", lambda: nn.Dropout(0.2), SEQ, "drops activations at random"),
    layer("D5 AlphaDropout", lambda: nn.AlphaDropout(0.2), SEQ, "drops activations at random"),
    layer("D5 F.dropout", lambda: Function(lambda x: F.dropout(x, 0.2)), SEQ, "draws at random"),
    layer("D5 RReLU", lambda: nn.RReLU(), SEQ, "draws at random"),
    layer("D5 gumbel softmax", lambda: Function(lambda x: F.gumbel_softmax(x)), SEQ, "draws at random"),
    layer("D5 noise", lambda: Function(lambda x: x + 0.1 * torch.randn_like(x)), SEQ, "draws at random"),
    layer("D5 FractionalMaxPool2d", lambda: nn.FractionalMaxPool2d(2, 3), IMG, "draws at random"),
    layer("D5 attention dropout", attention(dropout=0.1), SEQ, "drops activations at random"),
    layer("D5 sdpa dropout", lambda: Function(
        lambda x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.1)), SEQ, "drops at random"),
    layer("D5 dropout in eval mode", lambda: nn.Dropout(0.2).eval(), SEQ),
    layer("D5 counting buffer", Counting, SEQ, R),
    layer("D5 spectral_norm", lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(8, 6)), SEQ, R),
    layer("D6 bool mask", direct_attention(UPPER), SEQ),
    layer("D6 float mask", direct_attention(STANDARD), SEQ),
    layer("D6 causal hint", direct_attention(STANDARD, is_causal=True), SEQ),
    layer("D7 mask of three dimensions", direct_attention(UPPER.expand(2, 5, 5)), SEQ),
    layer("D7 sdpa mask closing a query", lambda: Function(
        lambda x: F.scaled_dot_product_attention(x, x, x, attn_mask=~UPPER.T)), SEQ),
    layer("D7 softmax dtype", lambda: Function(lambda x: F.softmax(x.float(), -1, dtype=torch.float64)), SEQ),
    layer("D7 softmax dtype of torch", lambda: Function(lambda x: torch.softmax(x, -1, dtype=torch.float64)), SEQ),
    layer("D7 keyword input", lambda: Function(
        lambda x, w: F.gelu(input=F.linear(input=F.softmax(input=x, dim=-1), weight=w)), (6, 8)), SEQ),
    layer("D7 keywords of norms", lambda: Function(
        lambda x, w: torch.layer_norm(input=x, normalized_shape=(8,), weight=w), (8,)), SEQ),
    layer("D7 keywords of convolution", lambda: Function(
        lambda x, w: F.conv2d(input=x, weight=w, stride=(2,), padding=(1,)), (3, 4, 3, 3)), IMG),
    layer("D7 cross_entropy inside", lambda: Function(lambda x, w: F.cross_entropy(
        (x @ w).transpose(1, 2), (x[..., 0] > 0).long(), reduction="none"), (8, 3)), SEQ),
    layer("D7 kl_div inside", lambda: Function(lambda x, w: F.kl_div(
        (x @ w).log_softmax(-1), x[..., :3].softmax(-1), reduction="none"), (8, 3)), SEQ),
    layer("D7 weight_norm of old", lambda: nn.utils.weight_norm(nn.Linear(8, 6)), SEQ),
    layer("D7 grid_sample", lambda: Function(lambda x, w: F.grid_sample(
        x, w.tanh().expand(len(x), 3, 3, 2), align_corners=False), (1, 3, 3, 2)), IMG),
    layer("D7 checkpoint", lambda: Function(saved(lambda x, w: (x @ w).tanh()), (8, 6)), SEQ),
    layer("D8 checkpoint reentrant", lambda: Function(
        lambda x, w: checkpoint(lambda y: (y @ w).tanh(), x, use_reentrant=True), (8, 6)), SEQ, "use_reentrant"),
    layer("D9 weight standardisation", lambda: Function(lambda x, w: F.conv2d(x, F.batch_norm(
        w.flatten(1)[None], None, None, training=True, momentum=0.0).view_as(w)), (6, 4, 3, 3)), IMG),
    layer("coupled mean", lambda: Function(lambda x: x - x.mean(0)), SEQ, C),
    layer("coupled weakly", lambda: Function(lambda x: x + 1e-4 * x.roll(1, 0)), SEQ, C),
    layer("coupled norm", lambda: Function(lambda x: x / x.norm()), SEQ, C),
    layer("Hardsigmoid", nn.Hardsigmoid, SEQ, "hardsigmoid"),
    layer("cdist", lambda: Function(lambda x, w: torch.cdist(x, w), (3, 8)), SEQ, "cdist"),
    layer("detached", lambda: Function(lambda x, w: (x @ w.detach()) * w.sum(), (8, 6)), SEQ),
    layer("rounding", lambda: Function(lambda x: x.round() + x), SEQ),
]  # fmt: skip


def cases() -> list[Case]:
    """All layers."""
    return [*(layer(*one) for one in MODULES), *DEFECTS]


def few() -> list[Case]:
    """A subset for the test suite: a layer in four, and all that was wrong once."""
    return [*(layer(*one) for one in MODULES[::4]), *DEFECTS]
