"""Bytes that each of W ranks sends in a step, by formula: what mgd_core.ranks will count.

With P parameters of e bytes, S = ceil(P / W) of them a slice; b rows in a batch, ceil(b / W) of them at most on a rank,
each with features of f bytes; Q targets. A gather sends what a rank has to W - 1 others, an exchange each of them its
part, and W - 1 stands before everything:

    a training step:  8 + ceil(b / W) (f + e) + 2 S e                              rows; theta; the gradient
    a reverse step:   Q (16 + ceil(b / W) (2 f + e) + 2 S e + e) + S e + 8         rows, gamma and H gamma; theta

With clipping the gradient of a reverse step is computed again, and three norms and a product of Q are summed over
ranks in it, as one norm is in a training step. Not counted: the target, once, and the sums, once, at the end.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Traffic:
    """``parameters``: P; ``batch``: b; ``feature_bytes``: f; ``element``: e; ``targets``: Q."""

    ranks: int
    parameters: int
    batch: int
    feature_bytes: int
    element: int = 4
    targets: int = 1
    clipped: bool = False

    @property
    def step(self) -> int:
        """Bytes that a rank sends in a training step."""
        return (self.ranks - 1) * (self._gradient + self._slice + (8 if self.clipped else 0))

    @property
    def reverse(self) -> int:
        """Bytes that a rank sends in a reverse step."""
        each = 16 + self._rows * (2 * self.feature_bytes + self.element) + 2 * self._slice + self.element
        again = self._gradient + 16 + self.targets * self.element if self.clipped else 0
        return (self.ranks - 1) * (self.targets * each + self._slice + 8 + again)

    @property
    def _gradient(self) -> int:
        return 8 + self._rows * (self.feature_bytes + self.element) + self._slice

    @property
    def _rows(self) -> int:
        return -(-self.batch // self.ranks)

    @property
    def _slice(self) -> int:
        return -(-self.parameters // self.ranks) * self.element
