"""Whether a model is a function of its inputs: it draws nothing, and changes nothing that it keeps.

Draws are seen in the ambient generators (torch's, numpy's, Python's), which move with every number that is taken from
them, whatever function takes it; changes in the values of buffers and parameters. Both are undone before a refusal.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from mgd_core.objective import Objective
from mgd_core.refusals import RefusedModel, modules_of

ATTEMPTS = 8
"""Runs that must all draw before a model is refused: the generators are the process's, so that another of its threads
(an HTTP client's back-off, a library's jitter) may draw during one of them; a model that draws does so in each."""


def check_repeatable(objective: Objective, theta: Tensor, run: Callable[[], None]) -> None:
    """Refuse an ``objective`` that draws at random, or changes its buffers or ``theta`` (P,), when it is ``run``.

    Raises:
        RefusedModel: names the layer and what to do.
    """
    kept = _Kept(objective, theta)
    if all(_draws(theta, run) for _ in range(ATTEMPTS)):
        raise RefusedModel(
            f"{_drawing_layer(objective, theta, run)} draws at random: a replayed step would differ from the first, "
            "and the metagradient would be of neither. Set dropout and the like to 0, or the layer to eval mode; noise "
            "that is wanted can be drawn beforehand and be a column of the rows."
        )
    changed = kept.restored()
    if changed:
        raise RefusedModel(
            f"{changed} changes while the model runs (a running mean, a power iteration, a counter): a step is no "
            "function of its state, and a replay would differ. Freeze it (eval mode), or make it a parameter."
        )


def seen_precision(theta: Tensor, run: Callable[[], None]) -> float:
    """Distance from 1 to the next number in the coarsest arithmetic that ``run`` uses on ``theta``'s device."""
    with _Coarsest(theta) as seen:
        run()
    return seen.eps


class _Coarsest(TorchFunctionMode):
    def __init__(self, theta: Tensor) -> None:
        super().__init__()
        rounded = theta.dtype == torch.float32 and (
            torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32
            if theta.device.type == "cuda"
            else torch.get_float32_matmul_precision() == "medium"
        )
        self.eps = 2.0**-10 if rounded else torch.finfo(theta.dtype).eps

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for x in result if isinstance(result, tuple | list) else (result,):
            if isinstance(x, Tensor) and x.is_floating_point() and x.numel() > 1:
                self.eps = max(self.eps, torch.finfo(x.dtype).eps)
        return result


def _drawn(theta: Tensor) -> tuple[Any, ...]:
    """States of the ambient generators, comparable."""
    keys = np.random.get_state(legacy=False)["state"]
    states = [torch.get_rng_state()]
    if theta.device.type != "cpu":
        states.append(torch.get_device_module(theta.device.type).get_rng_state(theta.device))
    return (*(x.cpu().numpy().tobytes() for x in states), random.getstate(), keys["key"].tobytes(), keys["pos"])


def _draws(theta: Tensor, run: Callable[[], None]) -> bool:
    before = _drawn(theta)
    run()
    return _drawn(theta) != before


def _drawing_layer(objective: Objective, theta: Tensor, run: Callable[[], None]) -> str:
    """The innermost layer that draws first."""
    found: list[nn.Module] = []
    entered: list[tuple[Any, ...]] = []

    def enter(module: nn.Module, inputs: Any) -> None:
        entered.append(_drawn(theta))

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        if _drawn(theta) != entered.pop():
            found.append(module)

    handles = register_module_forward_pre_hook(enter), register_module_forward_hook(leave)
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    names = {id(m): name for model in modules_of(objective) for name, m in model.named_modules()}
    if not found:
        return "the objective"
    return f"layer '{names.get(id(found[0]), '?')}' ({type(found[0]).__name__})"


class _Kept:
    """What a model keeps besides its parameters' values, and theta, as they were."""

    def __init__(self, objective: Objective, theta: Tensor) -> None:
        self.theta, self.first = theta, theta.clone()
        self.buffers = [(label, module, key, x, x.clone()) for label, module, key, x in _buffers(objective)]

    def restored(self) -> str:
        """Everything put back; the name of what had changed, or nothing."""
        changed = []
        for label, module, key, buffer, first in self.buffers:
            now = module._buffers.get(key)
            if now is None or now.shape != first.shape or not _equal(now, first):
                changed.append(f"buffer '{label}' ({type(module).__name__})")
                module._buffers[key] = buffer
                with torch.no_grad():
                    buffer.copy_(first)
        if not _equal(self.theta, self.first):
            self.theta.copy_(self.first)
            changed.append("a parameter")
        return changed[0] if changed else ""


def _buffers(objective: Objective) -> Iterator[tuple[str, nn.Module, str, Tensor]]:
    for model in modules_of(objective):
        for path, module in model.named_modules():
            for key, buffer in module._buffers.items():
                if buffer is not None:
                    yield f"{path}.{key}".lstrip("."), module, key, buffer


def _equal(a: Tensor, b: Tensor) -> bool:
    return bool(((a == b) | ((a != a) & (b != b))).all())
