"""bergson's metagradient (EleutherAI/bergson 2.5.1, MIT) of one of our problems, through its Trainer.

bergson trains causal language models; its Trainer takes any module whose forward returns a scalar loss, and any stream
of batches with a vector of weights. Settings are those of its own command line (in-place updates, checkpoints removed
when used). It saves states before steps on disk (``save_mode``: all, about every sqrt(T)th, or at halves of what is
left) and keeps replayed ones in memory while the machine has any.
"""

from __future__ import annotations

import copy
import math
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.peers.methods import Outcome, torchopt_adam
from testing.oracles import Problem

MODES = ("sqrt", "log", "all")


class Kept(NamedTuple):
    """States that bergson holds at once, the working one left out: on disk, in memory, together; and its advances."""

    disk: int
    memory: int
    states: int
    advances: int


def bergson(problem: Problem, mode: str, parts: int = 1, rows_counted: bool = True) -> Outcome:
    """Train and go backward with ``save_mode=mode``, each batch in ``parts`` micro-batches.

    ``rows_counted``: give each batch the mask from which bergson reads how much a micro-batch weighs. Without it every
    micro-batch counts like a whole one.
    """
    import torchopt
    from bergson.magic.trainer import BackwardState, Trainer

    module = _Loss(problem)
    trainer, state = Trainer.initialize(module, torchopt_adam(problem))
    stream = _Stream(problem, rows_counted)
    shared = {"inplace": True, "save_mode": mode, "grad_accum_steps": parts}
    with _scratch() as folder, _counted(trainer, folder) as count:
        stream.requires_grad = False
        state = trainer.train(state, stream, save_dir=folder, **shared).detach_()
        count.first_sweep()
        params = {name: p.detach().requires_grad_(True) for name, p in state.params.items()}
        phi = problem.target({name.removeprefix("model."): p for name, p in params.items()})
        gradients = dict(zip(params, torch.autograd.grad(phi, tuple(params.values())), strict=True))
        moments = (x for x in torchopt.pytree.tree_leaves(state.opt_state) if torch.is_tensor(x))
        zeros = [torch.zeros_like(x) for x in moments if x.is_floating_point()]
        stream.requires_grad = True
        start = BackwardState(gradients, zeros, torch.zeros_like(stream.weights))
        found = trainer.backward(folder, stream, start, state, **shared)
    gradient = found.weight_grads.detach()
    spent = (count.advances, count.states, count.most_in_memory, count.on_disk, count.disk_bytes)
    return Outcome(gradient, phi.item(), *spent)


class _Loss(nn.Module):
    """The problem's batch loss as a module: bergson swaps its parameters and calls it with a batch's entries."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.model = copy.deepcopy(problem.learner.objective.model)  # type: ignore[attr-defined]
        self.names, self.losses = problem.learner.layout.names, problem.losses

    def forward(self, input_ids: Tensor, other: Tensor, example_weight: Tensor, **mask: Tensor) -> Tensor:
        """Weighted mean of the example losses. ``input_ids``, ``other``: the two columns of the rows."""
        named = dict(self.model.named_parameters())
        losses = self.losses({name: named[name] for name in self.names}, (input_ids, other))
        return (example_weight * losses).sum() / len(losses)


class _Stream:
    """What bergson reads of its DataStream. ``weights`` (pool size,) are added to those that the batches have."""

    def __init__(self, problem: Problem, rows_counted: bool) -> None:
        self.learner, self.rows_counted = problem.learner, rows_counted
        self.weights = nn.Parameter(problem.initial.theta.new_zeros(problem.pool_size))
        self.device = self.weights.device

    @property
    def requires_grad(self) -> bool:
        return self.weights.requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.weights.requires_grad = value

    def __len__(self) -> int:
        return self.learner.steps

    def __getitem__(self, t: int) -> dict[str, Tensor]:
        batch = self.learner.batches(t)
        weights = batch.weights + self.weights[batch.ids]
        found = {"input_ids": batch.rows[0], "other": batch.rows[1], "example_weight": weights}
        if self.rows_counted:
            found["shift_loss_mask"] = torch.ones(len(batch.ids), 1)
        return found


class _Count:
    """Steps without a graph and states held at once, counted while bergson runs."""

    def __init__(self, folder: str) -> None:
        self.folder, self.advances = folder, 0
        self.in_memory, self.most_in_memory = 0, 0
        self.states, self.on_disk, self.disk_bytes = 0, 0, 0

    def first_sweep(self) -> None:
        """Take stock of the disk when the training has ended."""
        self.states = self.on_disk = len(os.listdir(self.folder))
        self.disk_bytes = sum(f.stat().st_size for f in Path(self.folder).rglob("*") if f.is_file())

    def kept(self, state: Any) -> None:
        """A replayed state was copied to memory. The checkpoint before the last step stays on disk unused: not ours."""
        self.in_memory += 1
        self.most_in_memory = max(self.most_in_memory, self.in_memory)
        self.states = max(self.states, self.in_memory + len(os.listdir(self.folder)) - 1)
        weakref.finalize(state, self._freed)

    def _freed(self) -> None:
        self.in_memory -= 1


@contextmanager
def _counted(trainer: Any, folder: str) -> Iterator[_Count]:
    from bergson.magic.trainer import TrainerState

    count, step, to = _Count(folder), trainer.step, TrainerState.to

    def counted_step(*arguments: Any, **named: Any) -> Any:
        count.advances += not named.get("trace")
        return step(*arguments, **named)

    def counted_to(self: Any, device: Any) -> Any:
        state = to(self, device)
        count.kept(state)
        return state

    trainer.step, TrainerState.to = counted_step, counted_to
    try:
        yield count
    finally:
        TrainerState.to = to


@contextmanager
def _scratch() -> Iterator[str]:
    folder = tempfile.mkdtemp(prefix="mgd-peers-")
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def kept(mode: str, steps: int) -> Kept:
    """What bergson's schedule holds and advances for a training of ``steps`` steps: its rule, played through."""
    saved, at = [], 0
    while at < steps:
        saved.append(at)
        at = _next_save(mode, at, steps)
    disk, memory, states, advances = set(saved), set[int](), len(saved), steps
    most_in_memory = 0
    for needed in reversed(range(steps)):
        at = max(disk | memory)
        advances += needed - at
        if at == needed:
            disk.discard(at)
            memory.discard(at)
            continue
        made = at
        while (made := made + max(1, (needed - made) // 2) if mode == "log" else made + 1) < needed:
            memory.add(made)
        most_in_memory, states = max(most_in_memory, len(memory)), max(states, len(disk) + len(memory))
    return Kept(len(saved), most_in_memory, states, advances)


def _next_save(mode: str, at: int, steps: int) -> int:
    if mode == "all":
        return at + 1
    if mode == "log":
        return at + max(1, (steps - at) // 2)
    stride = math.isqrt(steps)
    return at + (1 if at >= steps - stride else stride)
