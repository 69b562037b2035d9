"""Optimizers and schedulers of ``torch.optim`` as the engine's: a step as a pure function, a rate for every step.

What an option means is read from a table; an option that is not in it is refused, so that a newer PyTorch cannot add
one that would be passed over. Parameter groups may differ in every option that one optimizer can carry, and in their
rates (mgd_core.adapters.optimizer_groups).
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from mgd_core.adapters.optimizer_groups import Grouped
from mgd_core.autodiff.layout import ParameterLayout
from mgd_core.training.optimizers import Adam, Optimizer, OptimizerError, Sgd, State, UpdateCotangents

IGNORED = {"foreach", "fused", "capturable", "differentiable"}  # how a step is run, not what it computes
OFF = {"amsgrad": False, "maximize": False, "dampening": 0}  # carried as long as they are off


class RefusedOptimizer(OptimizerError):
    """An optimizer or a scheduler of PyTorch whose steps the engine cannot take."""


class Adapted(NamedTuple):
    """A model's first state, and how its steps are taken."""

    layout: ParameterLayout
    theta: Tensor  # (P,)
    optimizer: Optimizer
    rates: Tensor  # (steps,), float64
    decayed: frozenset[str]  # names of the parameters with weight decay


@dataclass(frozen=True)
class TorchAdam(Adam):
    """Adam whose derivative exists with ``eps_root = 0`` too, as ``torch.optim`` has it.

    Where no gradient ever came (a pixel that is always 0, a word not seen yet) the second moment v is 0, and the chain
    rule gives 0 times infinity. There the move is m / (sqrt(v) + eps) with m of the size of g and v of its square, so
    its derivative is that by m alone; a v too small to change any number takes the place of 0.
    """

    def vjp(self, state: State, g: Tensor, t: int, lr: Tensor, adjoint: State) -> UpdateCotangents:
        if self.eps_root == 0:
            m, v = state.moments
            state = State(state.theta, (m, v.clamp(min=1024 * torch.finfo(v.dtype).tiny)))
        return super().vjp(state, g, t, lr, adjoint)


def adapted(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: LRScheduler | None,
    steps: int,
    eps_root: float = 0.0,
    clip_norm: float | None = None,
) -> Adapted:
    """The engine's view of ``optimizer``, whose first step is still to come.

    Raises:
        RefusedOptimizer: its class, an option, its state, or the scheduler is none that the engine can follow.
    """
    make = _maker(optimizer, eps_root)
    names = {id(p): name for name, p in model.named_parameters()}
    groups = [[p for p in group["params"] if p.requires_grad] for group in optimizer.param_groups]
    _check_parameters(groups, names)
    engines = tuple(make(group) for group in optimizer.param_groups)
    rates = rates_of(optimizer, scheduler, steps)
    used = [k for k, group in enumerate(groups) if group]
    flat = [p for group in groups for p in group]
    layout = ParameterLayout(tuple(names[id(p)] for p in flat), tuple(p.shape for p in flat))
    theta = torch.cat([p.detach().reshape(-1) for p in flat])
    first, apart = rates[:, used[0]].clone(), rates[:, used] - rates[:, used[:1]]
    if all(engines[k] == engines[used[0]] for k in used) and not apart.any():
        whole: Optimizer = replace(engines[used[0]], clip_norm=clip_norm)
    else:
        sizes = tuple(sum(p.numel() for p in groups[k]) for k in used)
        whole = Grouped(tuple(engines[k] for k in used), sizes, apart, clip_norm)
    decayed = {names[id(p)] for k in used for p in groups[k] if optimizer.param_groups[k]["weight_decay"] != 0}
    return Adapted(layout, theta, whole, first, frozenset(decayed))


def rates_of(optimizer: torch.optim.Optimizer, scheduler: LRScheduler | None, steps: int) -> Tensor:
    """Learning rates (steps, groups), float64, of ``scheduler`` stepped after every step; both are left as they are.

    Raises:
        RefusedOptimizer: the scheduler asks for the course of the training, changes more than rates, or ends too soon.
    """
    if scheduler is None:
        return torch.tensor([[float(group["lr"]) for group in optimizer.param_groups]] * steps, dtype=torch.float64)
    if not isinstance(scheduler, LRScheduler) or isinstance(scheduler, ReduceLROnPlateau):
        raise RefusedOptimizer(
            f"{type(scheduler).__name__} does not fix the rate of every step before the training: it is no function of "
            "the step alone. Give a scheduler such as LambdaLR, OneCycleLR or CosineAnnealingLR."
        )
    if scheduler.optimizer is not optimizer:
        raise RefusedOptimizer(f"this {type(scheduler).__name__} schedules another optimizer than the one given.")
    shared = {id(p): p for group in optimizer.param_groups for p in group["params"]}  # or the copy would hold a model
    follower = copy.deepcopy(scheduler, shared)
    groups, rates = follower.optimizer.param_groups, []
    before = _options(optimizer)
    for t in range(steps):
        if t:
            _step(follower, t, steps)
        rates.append([float(group["lr"]) for group in groups])
        if _options(follower.optimizer) != before:
            raise RefusedOptimizer(
                f"{type(scheduler).__name__} changes more than the learning rate from step to step, which the engine "
                "does not follow. OneCycleLR and CyclicLR: cycle_momentum=False."
            )
    return torch.tensor(rates, dtype=torch.float64)


def _step(scheduler: LRScheduler, t: int, steps: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the optimizer was not stepped
        try:
            scheduler.step()
        except ValueError as error:
            raise RefusedOptimizer(
                f"{type(scheduler).__name__} has no rate for step {t} of {steps}: {error}. It is stepped after every "
                "training step, epochs x batches in all."
            ) from error


def _options(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    return [{k: group[k] for k in optimizer.defaults if k != "lr"} for group in optimizer.param_groups]


def _maker(optimizer: torch.optim.Optimizer, eps_root: float) -> Callable[[Mapping[str, Any]], Adam | Sgd]:
    """How a group's options become an optimizer of ours."""

    def adam(group: Mapping[str, Any]) -> Adam:
        (b1, b2), decay = map(float, group["betas"]), float(group["weight_decay"])
        return TorchAdam(b1, b2, float(group["eps"]), eps_root, decay, bool(group["decoupled_weight_decay"]))

    def sgd(group: Mapping[str, Any]) -> Sgd:
        return Sgd(float(group["momentum"]), bool(group["nesterov"]), float(group["weight_decay"]))

    adams = {"lr", "betas", "eps", "weight_decay", "decoupled_weight_decay"}
    makers: dict[type, tuple[Any, set[str]]] = {
        torch.optim.AdamW: (adam, adams),
        torch.optim.Adam: (adam, adams),
        torch.optim.SGD: (sgd, {"lr", "momentum", "nesterov", "weight_decay"}),
    }
    if type(optimizer) not in makers:
        raise RefusedOptimizer(
            f"{type(optimizer).__module__}.{type(optimizer).__name__} is none of torch.optim's AdamW, Adam and SGD, "
            "whose derivatives the engine has. Use one of them, or write yours as a "
            "mgd_core.training.optimizers.Optimizer and "
            "call mgd_core.engine.replay."
        )
    make, carried = makers[type(optimizer)]
    _check_options(optimizer, carried)
    return make


def _check_options(optimizer: torch.optim.Optimizer, carried: set[str]) -> None:
    kind = type(optimizer).__name__
    for number, group in enumerate(optimizer.param_groups):
        for key in optimizer.defaults:
            if key in carried or key in IGNORED or (key in OFF and group[key] == OFF[key]):
                continue
            off = f" Set it to {OFF[key]}." if key in OFF else " It is unknown to the engine."
            raise RefusedOptimizer(
                f"{kind}'s parameter group {number} has {key}={group[key]!r}, which the engine does not carry.{off}"
            )
    if any(optimizer.state.values()):
        raise RefusedOptimizer(
            f"this {kind} has taken steps already, and the engine begins with empty moments. Make a new optimizer over "
            "the model's parameters; what was trained before counts as its first state."
        )
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    hooks = [getattr(p, f"_{at}_hooks", None) for p in parameters for at in ("backward", "post_accumulate_grad")]
    if any(hooks) or any(getattr(optimizer, f"_optimizer_step_{at}_hooks", None) for at in ("pre", "post")):
        raise RefusedOptimizer(
            f"this {kind} or its parameters have hooks, which the engine does not run. Clip gradients with clip_norm=."
        )


def _check_parameters(groups: list[list[Tensor]], names: dict[int, str]) -> None:
    flat = [p for group in groups for p in group]
    if not flat:
        raise RefusedOptimizer("the optimizer has no parameter that requires a gradient: there is nothing to train.")
    strange = [p for p in flat if id(p) not in names]
    if strange:
        shapes = ", ".join(str(tuple(p.shape)) for p in strange[:3])
        raise RefusedOptimizer(
            f"{len(strange)} parameters of the optimizer (shapes {shapes}) are none of the model's: give the model "
            "that it trains, all of it as one module."
        )
    kinds = {(p.dtype, p.device) for p in flat}
    if len(kinds) > 1 or not flat[0].is_floating_point():
        told = ", ".join(sorted(f"{dtype} on {device}" for dtype, device in kinds))
        raise RefusedOptimizer(f"parameters are of {told}: one floating-point dtype on one device is needed.")
