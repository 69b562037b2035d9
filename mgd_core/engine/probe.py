"""Probing candidates: g_i = <gamma_k, grad l_i(theta_k)>, the derivative of phi by eps where eps l_i joins step k.

One forward-mode pass over the candidates, no backward and no per-example gradients (Engstrom et al. 2025, arXiv
2503.13751, Algorithm 1: weights z enter at step k, and z = 0). In a contrastive loss l_i is the loss candidate i would
have as the one more pair of step k's own batch: the negatives are the same for every candidate, so g_i does not depend
on which candidates are scored together, in which order, or how the pool is sharded.
"""

from __future__ import annotations

from torch import Tensor

from mgd_core.autodiff.derivatives import DualFeatures, candidate_tangents, encode_dual
from mgd_core.autodiff.directions import candidates_along, encode_along
from mgd_core.autodiff.objective import Rows
from mgd_core.engine.examination import probe_way_of
from mgd_core.engine.replay import ProbePoint
from mgd_core.errors import UserError
from mgd_core.training.learner import Batch, Learner


class ProbeError(UserError, ValueError):
    """A probe point that candidates cannot be scored at."""


class Probe:
    """Scores candidates at one probe point. ``reference`` is the batch that was trained on at that step.

    Tangents are taken in forward mode, or by double backward for models that forward mode is not exact for
    (mgd_core.engine.examination).

    Raises:
        ProbeError: the point is of several targets.
    """

    def __init__(self, learner: Learner, point: ProbePoint, reference: Batch | None = None) -> None:
        if point.gamma.ndim != 1:
            raise ProbeError(
                f"the probe point of step {point.step} is of {len(point.gamma)} targets (gamma: "
                f"{tuple(point.gamma.shape)}), and a probe scores by one. Make one for each target q: "
                "Probe(learner, ProbePoint(point.step, point.theta, point.gamma[q]))."
            )
        self.learner, self.point = learner, point
        self.reference = learner.batches(point.step) if reference is None else reference
        forward = probe_way_of(learner, point.theta, self.reference) == "forward"
        self._encoded, self._tangents = (
            (encode_dual, candidate_tangents) if forward else (encode_along, candidates_along)
        )
        self.features = self._encode(self.reference.rows)

    def _encode(self, rows: Rows) -> DualFeatures:
        learner, point = self.learner, self.point
        return self._encoded(learner.objective, learner.layout, point.theta, point.gamma, rows, learner.chunk)

    def scores(self, rows: Rows, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Losses l_i (n,) in nats and metagradients g_i (n,): negative where more of candidate i lowers phi.

        ``ids`` (n,): positions of the candidates in the pool, to tell a candidate from itself in the batch.
        """
        learner, point = self.learner, self.point
        others = ids[:, None] != self.reference.ids[None, :]
        return self._tangents(
            learner.objective, learner.layout, point.theta, point.gamma, self._encode(rows), self.features, others
        )
