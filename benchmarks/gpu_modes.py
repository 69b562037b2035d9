"""Precisions of the arithmetic: float32, TF32, and bfloat16 in the encoders.

The state, the moments, the features' coupling and every sum over steps stay in the state's precision in all of them.
``tf32`` is a global switch of PyTorch; the bfloat16 modes are objectives around an objective, so that a training step,
a reverse step and a probe meet the same arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from mgd_core.layout import Params
from mgd_core.objective import Features, Objective, Rows


class Lowered(Objective):
    """An objective whose ``encode`` may compute in less precision; features come back in that of the parameters."""

    def __init__(self, objective: Objective) -> None:
        self.objective = objective

    def losses(self, params: Params, features: Features) -> Tensor:
        """Those of the objective."""
        return self.objective.losses(params, features)

    def candidate_losses(self, params: Params, candidates: Features, reference: Features, others: Tensor) -> Tensor:
        """Those of the objective."""
        return self.objective.candidate_losses(params, candidates, reference, others)


class Autocast(Lowered):
    """``encode`` under ``torch.autocast`` to bfloat16: products in bfloat16, norms and exponentials in float32."""

    def encode(self, params: Params, rows: Rows) -> Features:
        """Features of ``rows`` in the precision of ``params``."""
        like = next(iter(params.values()))
        # A cast that is kept from another pass would carry that pass's graph and tangents.
        with torch.autocast(like.device.type, torch.bfloat16, cache_enabled=False):
            features = self.objective.encode(params, rows)
        return tuple(f.to(like.dtype) for f in features)


class LowParameters(Lowered):
    """``encode`` with all parameters rounded to bfloat16, and everything after them."""

    def encode(self, params: Params, rows: Rows) -> Features:
        """Features of ``rows`` in the precision of ``params``."""
        like = next(iter(params.values()))
        features = self.objective.encode({name: p.bfloat16() for name, p in params.items()}, rows)
        return tuple(f.to(like.dtype) for f in features)


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
class Mode:
    """A precision by name: what is put around the objective, and whether float32 products are in TF32."""

    name: str
    around: Callable[[Objective], Objective] = lambda objective: objective
    tf32: bool = False

    def switched(self) -> AbstractContextManager[None]:
        """The block in which the mode holds."""
        return products(self.tf32)


FLOAT32 = Mode("float32")
TF32 = Mode("tf32", tf32=True)
AUTOCAST = Mode("bfloat16 autocast", Autocast)
LOW_PARAMETERS = Mode("bfloat16 parameters", LowParameters)
