"""The engine for a training loop written in PyTorch: a module, an optimizer of ``torch.optim`` and a DataLoader.

:func:`metagradient` is all of it; what it makes of the optimizer and of the loader is in
mgd_core.adapters.adapted_optimizers and mgd_core.adapters.adapted_batches. Losses that couple the rows of a batch
(contrastive ones) are an :class:`mgd_core.autodiff.objective.Objective` of their own, with
:func:`mgd_core.engine.replay.replay`.

About ``eps_root``, which is added under the root of Adam: m / (sqrt(v + eps_root) + eps). PyTorch has none, and with 0
the training is PyTorch's. But where gradients are small the move then follows their sign rather than their size: d move
/ dg reaches lr / eps, and the metagradient, though exact, holds for tiny changes only. For a gradient to act on, train
with eps_root = 1e-8 or more; the trained model is then a slightly different one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from mgd_core.adapters.adapted_batches import LoaderBatches
from mgd_core.adapters.adapted_optimizers import Adapted, RefusedOptimizer, adapted
from mgd_core.autodiff.derivatives import target_at
from mgd_core.autodiff.layout import ParameterLayout, Params
from mgd_core.autodiff.objective import Features, PerExample, Rows
from mgd_core.autodiff.refusals import RefusedModel
from mgd_core.engine.metagradient import Metagradient
from mgd_core.engine.replay import replay
from mgd_core.engine.training import Progress
from mgd_core.plans.plan import binomial
from mgd_core.training.determinism import ambient_rng
from mgd_core.training.learner import Learner

FEW = 4  # rows

Losses = Callable[[Any, Any], Tensor]
"""Of the model and a batch as ``collate_fn`` made it, one loss for each example (b,)."""
Measured = Callable[[Any], Tensor]
"""Of the model, what is differentiated: a scalar, or (Q,) for Q targets at once."""


@dataclass
class TrainedMetagradient(Metagradient):
    """A metagradient, and the trained parameters by name (``model.load_state_dict(g.parameters, strict=False)``)."""

    parameters: dict[str, Tensor] = field(default_factory=dict)


def metagradient(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    losses: Losses,
    target: Measured,
    loader: DataLoader[Any],
    epochs: int,
    slots: int,
    *,
    scheduler: LRScheduler | None = None,
    clip_norm: float | None = None,
    eps_root: float = 0.0,
    seed: int | None = None,
    chunk: int | None = None,
    on: Progress | None = None,
) -> TrainedMetagradient:
    """Train ``model`` and differentiate ``target`` of it through all steps, by every example's weight and every rate.

    It is this training, and the arguments are left as they were, generators included::

        for _ in range(epochs):
            for batch in loader:
                optimizer.zero_grad()
                losses(model, batch).mean().backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm)  # where one is given
                optimizer.step()
                scheduler.step()  # where there is one: after every step, not every epoch

    ``.example`` (len(dataset),) is d target / d weight, summed over an example's visits; ``.learning_rate`` (steps,)
    that by each step's rate (of parameter groups: the sum of the derivatives by their own rates); ``.phi`` the target;
    ``.parameters`` what was trained. ``slots``: states kept in memory at once, what does not fit is computed again.
    ``chunk``: rows run at once. ``seed``: sets torch's, numpy's and Python's ambient generators for the reading of each
    step, for datasets that augment at random.

    ``eps_root`` is added under the root of Adam; for a gradient to act on, 1e-8 or more (see the module).

    Raises:
        RefusedOptimizer: a class, option or scheduler whose steps the engine cannot take.
        RefusedData: items or their order are not the same each time, or a batch is not made of rows.
        RefusedModel: dropout, batch norm, losses that are not one per example, and whatever else has no exact
            metagradient.
        UserError: as :func:`mgd_core.engine.replay.replay`.
    """
    trained = (p.detach() for group in optimizer.param_groups for p in group["params"] if p.requires_grad)
    like = next(trained, torch.zeros(()))
    batches = LoaderBatches(loader, epochs, like, seed)
    how = adapted(model, optimizer, scheduler, len(batches.order), eps_root, clip_norm)
    objective = AdaptedLosses(model, losses, batches)
    learner = Learner(objective, how.layout, how.optimizer, how.rates, batches, chunk)
    _check_used(objective, how, batches)
    initial, plan = how.optimizer.init(how.theta), binomial(0, learner.steps, slots)
    with _losses_are_told():
        found = replay(learner, initial, TargetOf(model, how.layout, target), plan, batches.size, on=on)
    return TrainedMetagradient(**vars(found), parameters=how.layout.unflatten(found.final.theta))


@contextmanager
def _losses_are_told() -> Iterator[None]:
    """What a refusal of `encode` means to who has never heard of it."""
    try:
        yield
    except RefusedModel as error:
        error.add_note(
            "metagradient() calls your losses as the engine's `encode`: on any rows of a batch, as if no example's "
            "loss depended on another. Where it does (contrastive losses), write an Objective and call "
            "mgd_core.engine.replay."
        )
        raise


class AdaptedLosses(PerExample):
    """``losses`` of a module."""

    def __init__(self, model: nn.Module, losses: Losses, batches: LoaderBatches) -> None:
        self.model, self._function, self._as_collated = model, losses, batches.as_collated

    def encode(self, params: Params, rows: Rows) -> Features:
        """Losses (n,)."""
        found = called(self.model, params, self._function, self._as_collated(rows))
        if not isinstance(found, Tensor) or found.shape != rows[0].shape[:1]:
            got = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else f"type {type(found).__name__}"
            raise RefusedModel(
                f"losses gives a result of {got} for {len(rows[0])} examples; it needs one loss for each of them, a "
                "tensor (b,): with torch's functions reduction='none', without a mean."
            )
        return (found,)


@dataclass(frozen=True)
class TargetOf:
    """A function of the module as the engine's target: of flat parameters, with its gradient."""

    model: nn.Module
    layout: ParameterLayout
    function: Measured

    def __call__(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """phi and its gradient (P,); (Q,) and (Q, P) of Q targets."""
        return target_at(self.layout, theta, self._phi)

    def _phi(self, params: Params) -> Tensor:
        phi = called(self.model, params, self.function)
        if not isinstance(phi, Tensor) or phi.ndim > 1 or not phi.requires_grad:
            raise RefusedModel(
                "target needs to give a scalar tensor, or (Q,) for Q targets, made of the model it is called with "
                "(no detach, no .item(), no torch.no_grad())."
            )
        return phi


def called(model: nn.Module, params: Params, function: Callable[..., Any], *arguments: Any) -> Any:
    """``function(model, *arguments)`` with ``params`` in the place of the module's own."""
    named = {f"model.{name}": x for name, x in params.items()}
    return functional_call(_Call(model, function), named, arguments)


class _Call(nn.Module):
    def __init__(self, model: nn.Module, function: Callable[..., Any]) -> None:
        super().__init__()
        self.model, self.function = model, function

    def forward(self, *arguments: Any) -> Any:
        return self.function(self.model, *arguments)


def _check_used(objective: AdaptedLosses, how: Adapted, batches: LoaderBatches) -> None:
    """PyTorch passes over a parameter without a gradient, where the engine would decay it."""
    params = {name: x.detach().requires_grad_(True) for name, x in how.layout.unflatten(how.theta).items()}
    with torch.enable_grad(), ambient_rng():
        (found,) = objective.encode(params, tuple(x[:FEW] for x in batches(0).rows))
        if not found.requires_grad:
            return  # refused by the engine, with its reasons
        gradients = torch.autograd.grad(found.sum(), list(params.values()), allow_unused=True)
    idle = [name for name, g in zip(params, gradients, strict=True) if g is None and name in how.decayed]
    if idle:
        raise RefusedOptimizer(
            f"parameter '{idle[0]}' gets no gradient from the losses ({len(idle)} such in all). PyTorch leaves it as "
            "it is, the engine would apply weight decay: requires_grad_(False), or take it out of the optimizer."
        )
