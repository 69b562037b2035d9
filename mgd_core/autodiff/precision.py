"""Precision of the arithmetic: float32, TF32, or the encoders' products in bfloat16.

The parameters, the moments, the coupling of the features, the target, the adjoint and every sum over steps stay in the
state's own precision in all of them. TF32 is a global switch of PyTorch for the products of float32 on a GPU; bfloat16
is an objective around an objective, so that a training step, a reverse step and a probe meet the same arithmetic. The
metagradient is then that of the training without its roundings. What each does to it is measured in
benchmarks/results/precision.md: with bfloat16 the order of the examples changes visibly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from mgd_core.autodiff.layout import Params
from mgd_core.autodiff.objective import Features, Objective, Rows


class Autocast(Objective):
    """An objective that encodes under ``torch.autocast`` to bfloat16; features come back in the parameters' type."""

    def __init__(self, objective: Objective) -> None:
        self.objective = objective

    def encode(self, params: Params, rows: Rows) -> Features:
        """Features of ``rows``, from products in bfloat16 and norms and exponentials in float32."""
        like = next(iter(params.values()))
        # A cast that is kept from another pass would carry that pass's graph and tangents.
        with torch.autocast(like.device.type, torch.bfloat16, cache_enabled=False):
            features = self.objective.encode(params, rows)
        return tuple(f.to(like.dtype) for f in features)

    def couple(self, params: Params, features: Features, weights: Tensor) -> Tensor:
        """That of the objective."""
        return self.objective.couple(params, features, weights)

    def losses(self, params: Params, features: Features) -> Tensor:
        """Those of the objective."""
        return self.objective.losses(params, features)

    def candidate_losses(self, params: Params, candidates: Features, reference: Features, others: Tensor) -> Tensor:
        """Those of the objective."""
        return self.objective.candidate_losses(params, candidates, reference, others)


@contextmanager
def products(tf32: bool) -> Iterator[None]:
    """Matrix products and convolutions of float32 on a GPU in TF32, or not; as before on exit.

    PyTorch's own default is float32 for the former and TF32 for the latter.
    """
    cudnn, matrices = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    torch.backends.cudnn.allow_tf32 = tf32
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = cudnn
        torch.set_float32_matmul_precision(matrices)


@dataclass(frozen=True)
class Precision:
    """A precision by name: what is put around the objective, and whether float32 products are in TF32."""

    name: str
    around: Callable[[Objective], Objective] = lambda objective: objective
    tf32: bool = False

    def switched(self) -> AbstractContextManager[None]:
        """The block in which the precision holds."""
        return products(self.tf32)


FLOAT32 = Precision("float32")
TF32 = Precision("tf32", tf32=True)
BFLOAT16 = Precision("bfloat16", Autocast)
PRECISIONS = {one.name: one for one in (FLOAT32, TF32, BFLOAT16)}
