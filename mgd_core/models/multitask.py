"""Many tasks as one target: phi = sum_k w_k l_k / u_k, its exact gradient, and that of each task or group of them.

w_k is a task's weight and u_k its unit, say its loss at a reference model, so that no task rules by its scale. Each is
measured at its own inverse temperature; where that is the best one it lies inside phi, and by the envelope theorem the
gradient is the one at fixed temperature.

All tasks are evaluated in one pass over batches: pictures, and then texts, of all tasks in a row, ``rows`` at a time,
whichever task they are of. The gradient takes a second pass, which encodes each batch again and pulls the features'
cotangents back (mgd_core.autodiff.objective). A row belongs to one task, so that the gradients of Q groups of tasks
cost the same second pass, but for batches that several groups share. Memory: features of all rows, one batch's graph,
and the pictures themselves where they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mgd_core.autodiff.layout import ParameterLayout, Params
from mgd_core.autodiff.objective import unit_rows
from mgd_core.models.clip import ClipObjective
from mgd_core.models.picture_tasks import PictureTask
from mgd_core.models.zeroshot import Temperature

PIECE = 1 << 22
"""Columns of gradients that are multiplied at once in float64."""
Encode = Callable[[Params, Tensor], Tensor]
ROWS = 256
"""Rows that are encoded at once; changes results by rounding only."""


class TaskScore(NamedTuple):
    """A task's loss (nats) and what it is measured by: metric, value, and all ``measures`` by metric."""

    loss: float
    metric: str
    value: float
    measures: Mapping[str, float]


class MultiTaskScore(NamedTuple):
    """phi, the weighted mean of the tasks' metrics, and each task by name; there is no one temperature."""

    loss: float
    accuracy: float
    tasks: Mapping[str, TaskScore]
    scale: None = None


class _Column(NamedTuple):
    """Rows of all tasks in a row: of each its own, (n_k, ...), and where they begin and end."""

    parts: list[Tensor]
    edges: list[int]

    @staticmethod
    def of(parts: Sequence[Tensor]) -> _Column:
        edges = [0]
        for part in parts:
            edges.append(edges[-1] + len(part))
        return _Column(list(parts), edges)

    def batches(self, rows: int) -> Iterator[tuple[int, int, list[int]]]:
        """Beginning and end of each batch, and the numbers of the tasks that have rows in it."""
        for start in range(0, self.edges[-1], rows):
            stop = min(start + rows, self.edges[-1])
            own = [k for k in range(len(self.parts)) if self.edges[k] < stop and self.edges[k + 1] > start]
            yield start, stop, own

    def rows(self, start: int, stop: int, own: Sequence[int], device: torch.device) -> Tensor:
        """The rows from ``start`` to before ``stop``."""
        first = [max(0, start - self.edges[k]) for k in own]
        found = [self.parts[k][at : stop - self.edges[k]] for k, at in zip(own, first, strict=True)]
        return torch.cat(found).to(device)


@dataclass(frozen=True)
class MultiTask:
    """``tasks``, ``weights`` and ``units`` by name; units of 1 where none are given."""

    objective: ClipObjective
    layout: ParameterLayout
    tasks: Mapping[str, PictureTask]
    weights: Mapping[str, float]
    temperature: Temperature = "best"
    units: Mapping[str, float] | None = None
    rows: int = ROWS

    def target(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """phi(theta) and its gradient (P,)."""
        phi, gradient = self.targets(theta, [tuple(self.tasks)])
        return phi[0], gradient[0]

    def targets(self, theta: Tensor, groups: Sequence[Sequence[str]]) -> tuple[Tensor, Tensor]:
        """The shares of phi (Q,) of groups of tasks, no task in two of them, and their gradients (Q, P)."""
        owner = {name: q for q, group in enumerate(groups) for name in group}
        assert sum(len(group) for group in groups) == len(owner), "a task is in two groups"
        leaf = theta.detach().requires_grad_(True)
        columns, features = self._columns, [f.requires_grad_(True) for f in self._features(theta)]
        with torch.enable_grad():
            losses = self._losses(self.layout.unflatten(leaf), features)
            shares = {name: self._share(name, loss) for name, (loss, _) in losses.items()}
            phis = [sum((shares[name] for name in group), theta.new_zeros(())) for group in groups]
            cotangents = torch.autograd.grad(torch.stack(phis).sum(), features, retain_graph=True)
            direct = [torch.autograd.grad(one, leaf, retain_graph=True, allow_unused=True)[0] for one in phis]
        gradients = torch.stack([torch.zeros_like(theta) if one is None else one for one in direct])
        owners = [owner.get(name, -1) for name in self.tasks]
        for encode, column, cotangent in zip(self._encoders, columns, cotangents, strict=True):
            sizes = torch.tensor([len(part) for part in column.parts])
            of_rows = torch.tensor(owners).repeat_interleave(sizes).to(theta.device)
            for start, stop, own in column.batches(self.rows):
                found = sorted({owners[k] for k in own} - {-1})
                if not found:
                    continue
                with torch.enable_grad():
                    encoded = encode(self.layout.unflatten(leaf), column.rows(start, stop, own, theta.device))
                for q in found:
                    part = cotangent[start:stop] * (of_rows[start:stop] == q)[:, None]
                    gradients[q] += torch.autograd.grad(encoded, leaf, part, retain_graph=q != found[-1])[0]
        return torch.stack(phis).detach(), gradients

    def losses(self, theta: Tensor) -> dict[str, float]:
        """Each task's loss, nats."""
        return {name: one.loss for name, one in self.score(theta).tasks.items()}

    @torch.no_grad()
    def score(self, theta: Tensor) -> MultiTaskScore:
        """phi, and every task by itself."""
        found = self._losses(self.layout.unflatten(theta), self._features(theta))
        phi = sum((self._share(name, loss) for name, (loss, _) in found.items()), theta.new_zeros(()))
        measured = {name: task.measures(found[name][1]) for name, task in self.tasks.items()}
        scores = {
            name: TaskScore(found[name][0].item(), task.metric, measured[name][task.metric], measured[name])
            for name, task in self.tasks.items()
        }
        mean = sum(self.weights[name] * one.value for name, one in scores.items()) / sum(self.weights.values())
        return MultiTaskScore(phi.item(), mean, scores)

    def metrics(self, theta: Tensor) -> dict[str, float]:
        """The score by the names of a table: of a task by itself all that is measured, of more phi and the mean."""
        found = self.score(theta)
        if len(self.tasks) > 1:
            return {"acc1": found.accuracy, "loss": found.loss}
        (only,) = found.tasks.values()
        return {**only.measures, "loss": only.loss}

    @torch.no_grad()
    def correct(self, theta: Tensor) -> Tensor:
        """Whether the nearest of each picture is right (n,), bool, task after task."""
        found = self._losses(self.layout.unflatten(theta), self._features(theta))
        return torch.cat([task.correct(found[name][1]) for name, task in self.tasks.items()])

    @torch.no_grad()
    def described(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Unit features of all pictures, and of what each is, both (n, d); of a picture that is nothing, zeros."""
        images, texts = self._features(theta)
        tasks = list(self.tasks.values())
        heads = [task.heads(own) for task, own in zip(tasks, self._parted(texts, 1), strict=True)]
        found = [unit_rows(task.right.to(own) @ own) for task, own in zip(tasks, heads, strict=True)]
        return images, torch.cat(found)

    @property
    def size(self) -> int:
        """Pictures of all tasks."""
        return sum(len(task.images) for task in self.tasks.values())

    def _share(self, name: str, loss: Tensor) -> Tensor:
        return self.weights[name] / (self.units[name] if self.units else 1.0) * loss

    @property
    def _columns(self) -> tuple[_Column, _Column]:
        tasks = self.tasks.values()
        return _Column.of([task.images for task in tasks]), _Column.of([task.tokens for task in tasks])

    @property
    def _encoders(self) -> tuple[Encode, Encode]:
        return self.objective.encode_images, self.objective.encode_texts

    @torch.no_grad()
    def _features(self, theta: Tensor) -> list[Tensor]:
        """Unit features of all pictures and of all texts."""
        params = self.layout.unflatten(theta.detach())
        return [
            torch.cat([encode(params, column.rows(*batch, theta.device)) for batch in column.batches(self.rows)])
            for encode, column in zip(self._encoders, self._columns, strict=True)
        ]

    def _parted(self, features: Tensor, column: int) -> tuple[Tensor, ...]:
        """Features of a column's rows, task by task."""
        return features.split([len(part) for part in self._columns[column].parts])

    def _losses(self, params: Params, features: Sequence[Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
        """Loss and cosines of each task."""
        found = {}
        own = zip(self.tasks.items(), self._parted(features[0], 0), self._parted(features[1], 1), strict=True)
        for (name, task), own_images, own_texts in own:
            cosines = own_images @ task.heads(own_texts).T
            if self.temperature == "best":
                scale: Tensor | float = task.best_scale(cosines)
            else:
                scale = self.objective.scale(params) if self.temperature == "model" else 1.0 / float(self.temperature)
            found[name] = task.loss(cosines, scale), cosines
        return found


def independent(gradients: Tensor, tolerance: float | None = None) -> tuple[list[int], Tensor]:
    """Rows of ``gradients`` (Q, P) that the others follow from, r of them, and coefficients (Q, r): every row is their
    product with those, to ``tolerance`` of its own length (None: what rounding leaves).

    A reverse sweep is linear in its cotangents, so r of them give the metagradients of all Q. Pivoted Cholesky of the
    products of rows, in float64.
    """
    tolerance = max(64 * torch.finfo(gradients.dtype).eps, 1e-7) if tolerance is None else tolerance
    products = torch.zeros(len(gradients), len(gradients), dtype=torch.float64)
    for piece in gradients.split(PIECE, dim=1):
        products += (piece.double() @ piece.double().T).cpu()
    own, rest, chosen = products.diagonal(), products.clone(), list[int]()
    while len(chosen) < len(gradients):
        left = torch.where(own > 0, rest.diagonal() / own.clamp(min=torch.finfo(torch.float64).tiny), 0)
        best = int(left.argmax())
        if left[best] <= tolerance**2:
            break
        chosen.append(best)
        rest = rest - rest[:, best : best + 1] @ rest[best : best + 1] / rest[best, best]
        rest[best] = rest[:, best] = 0
    chosen.sort()
    coefficients = torch.zeros(len(gradients), len(chosen), dtype=torch.float64)
    if chosen:
        coefficients = torch.linalg.solve(products[chosen][:, chosen], products[chosen]).T.clone()
        coefficients[chosen] = torch.eye(len(chosen), dtype=torch.float64)
    return chosen, coefficients.to(gradients)
