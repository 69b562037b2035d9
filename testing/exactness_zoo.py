"""A zoo of layers and models: exact, or refused before the first step by the true reason.

Every case is a training of four steps in float64, whose metagradient (example weights, learning rates, weight decays,
inputs of floating point) is compared with plain autograd through the whole run (testing.oracles.NaiveRun). The
engine runs it in three ways: as so small a problem is run (double backward), as a large one is (reverse over forward),
and in chunks of three rows. It must either agree to 1e-9 or refuse before a step is trained, for the reason that the
case names. ``wrong``: other numbers, another reason, or an error that is not meant for a user. ``refused_late``: an
error after a step was trained.

Layers and language models are in testing.zoo_layers and testing.zoo_models; nothing is downloaded.
"""

from __future__ import annotations

import re
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mgd_core.autodiff import directions
from mgd_core.autodiff.layout import ParameterLayout, Params
from mgd_core.autodiff.objective import Objective, Rows
from mgd_core.engine.metaparameters import Inputs, WeightDecays
from mgd_core.engine.replay import Metagradient, replay
from mgd_core.errors import UserError
from mgd_core.models.classification import ClassificationObjective
from mgd_core.models.clip import initial_parameters
from mgd_core.plans.plan import keep_all
from mgd_core.training.learner import Batch, Learner
from mgd_core.training.optimizers import Adam
from mgd_core.training.schedules import warmup_cosine
from testing.oracles import NaiveGradient, NaiveRun, Problem, with_learner

STEPS, POOL, BATCH, TARGET = 4, 10, 5, 4
BAR = 1e-9
PEAK = 0.01
Ways = tuple[tuple[str, int | None, bool], ...]
WAYS: Ways = (("small", None, True), ("large", None, False), ("chunks", 3, False))
Losses = Callable[[Params, Rows], Tensor]


@dataclass(frozen=True)
class Case:
    """``build``: the problem; an error of its own counts as a refusal. ``reason``: words of the refusal that is right,
    or None where the engine must agree."""

    kind: str
    name: str
    build: Callable[[], Problem]
    reason: str | None = None


@dataclass(frozen=True)
class Outcome:
    """``what``: exact, refused, wrong or refused_late; ``error``: the largest one of all ways."""

    case: Case
    what: str
    error: float
    told: str
    seconds: float


def examine(case: Case, ways: Ways = WAYS, steps: int = STEPS) -> Outcome:
    """Run one case."""
    began = time.perf_counter()
    trained: list[int] = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            error, told = _worst_error(case, trained, ways, steps)
    except Exception as raised:  # whatever it is, the table says it
        what, told, error = _refusal(case, raised, bool(trained)), f"{type(raised).__name__}: {raised}", float("nan")
    else:
        what = "exact" if error <= BAR and case.reason is None else "wrong"
    return Outcome(case, what, error, told, time.perf_counter() - began)


def _refusal(case: Case, raised: Exception, late: bool) -> str:
    if not isinstance(raised, UserError) or case.reason is None or not re.search(case.reason, str(raised)):
        return "wrong"
    return "refused_late" if late else "refused"


def _worst_error(case: Case, trained: list[int], ways: Ways, steps: int) -> tuple[float, str]:
    problem = case.build()
    problem = with_learner(problem, learning_rates=problem.learner.learning_rates[:steps])
    found = {}
    for way, chunk, small in ways:
        with as_if(small):
            found[way] = run(with_learner(problem, chunk=chunk), trained)
    naive = NaiveRun(problem).gradient()
    errors = {way: max(errors_of(m, naive)) for way, m in found.items()}
    worst = max(errors, key=lambda way: errors[way])
    return errors[worst], worst


@contextmanager
def as_if(small: bool) -> Iterator[None]:
    """Choose between the two ways as for a small problem, or as for a large one."""
    kept = dict(directions.DOUBLE_BELOW)
    try:
        if not small:
            directions.DOUBLE_BELOW.clear()
        yield
    finally:
        directions.DOUBLE_BELOW.update(kept)


def run(problem: Problem, trained: list[int]) -> Metagradient:
    """The engine's metagradient; ``trained`` gets the steps it trained."""
    n = problem.pool_size
    columns = {c: x.shape[1:] for c, x in enumerate(problem.pool) if x.is_floating_point()}
    kinds = (WeightDecays(), *(Inputs(c, torch.arange(n), n, tuple(shape)) for c, shape in columns.items()))
    trained.clear()

    def on(what: str, t: int) -> None:
        if what == "step":
            trained.append(t)

    plan = keep_all(0, problem.learner.steps)
    target = problem.phi_and_gradient
    found = replay(problem.learner, problem.initial, target, plan, n, on=on, metaparameters=kinds)
    trained.clear()
    return found


def errors_of(found: Metagradient, naive: NaiveGradient) -> list[float]:
    """Relative errors by kind of metaparameter."""
    pairs = [(found.example, naive.example), (found.learning_rate, naive.learning_rate)]
    pairs.append((found.sums["weight_decay"], naive.weight_decay))
    pairs += [(found.sums[f"inputs.{c}"], g) for c, g in naive.inputs.items()]
    whole = max(g.norm().item() for _, g in pairs)
    return [((a - g).norm() / g.norm().clamp(min=1e-6 * whole)).item() for a, g in pairs]


def assembled(name: str, objective: Objective, model: nn.Module, rows: Rows, losses: Losses) -> Problem:
    """A problem of ``rows`` for POOL examples and TARGET more, which the target is of."""
    layout = ParameterLayout.of(model)
    theta = initial_parameters(model, layout, torch.float64)
    pool, unseen = tuple(x[:POOL] for x in rows), tuple(x[POOL:] for x in rows)

    def batches(t: int) -> Batch:
        draw = torch.Generator().manual_seed(100 + t)
        ids = torch.randperm(POOL, generator=draw)[:BATCH]
        return Batch(tuple(x[ids] for x in pool), ids, 0.5 + torch.rand(BATCH, generator=draw, dtype=torch.float64))

    optimizer = Adam(eps_root=1e-6, weight_decay=0.05)
    learner = Learner(objective, layout, optimizer, warmup_cosine(STEPS, PEAK, 2, PEAK / 10), batches)

    def joining(params: Params, pair: Rows, others: Rows) -> Tensor:
        return losses(params, tuple(torch.cat([x, y]) for x, y in zip(others, pair, strict=True)))[-1]

    def target(params: Params) -> Tensor:
        return losses(params, unseen).mean()

    return Problem(name, learner, optimizer.init(theta), pool, losses, joining, target)


def classified(name: str, build: Callable[[], nn.Module], shape: tuple[int, ...], classes: int = 3) -> Problem:
    """Cross-entropy with soft labels of a model of inputs (n, *shape)."""
    model = seeded(build)
    draw = torch.Generator().manual_seed(6)
    x = torch.randn(POOL + TARGET, *shape, generator=draw, dtype=torch.float64)
    y = torch.randn(POOL + TARGET, classes, generator=draw, dtype=torch.float64).softmax(1)

    def losses(params: Params, rows: Rows) -> Tensor:
        logits = functional_call(model, dict(params), (rows[0],))
        return -(rows[1] * logits.log_softmax(1)).sum(1)

    return assembled(name, ClassificationObjective(model), model, (x, y), losses)


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    """A model whose weights come from one seed, in float64; those of zeros alone are moved, or nothing lies behind."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        model = build().double()
        with torch.no_grad():
            for p in model.parameters():
                if not p.any():
                    p.add_(0.1 * torch.randn_like(p))
    return model


def run_zoo(cases: list[Case]) -> list[Outcome]:
    """All cases, each with a line of its own."""
    outcomes = []
    for case in cases:
        outcomes.append(examine(case))
        show(outcomes[-1])
    return outcomes


def show(outcome: Outcome) -> None:
    """One line of the table."""
    error = "-" if outcome.error != outcome.error else f"{outcome.error:.1e}"
    told = outcome.told if outcome.what == "exact" else " ".join(outcome.told.split())[:110]
    name = f"{outcome.case.kind:<9} {outcome.case.name}"
    print(f"{name:<45} {outcome.what:<13}{error:>9}{outcome.seconds:>7.1f}  {told}", flush=True)


def zoo_figures(outcomes: list[Outcome]) -> dict[str, object]:
    """The JSON figures: zoo, wrong, refused_late; and what they are made of."""
    what = Counter(o.what for o in outcomes)
    return {
        "zoo": len(outcomes),
        "wrong": what["wrong"],
        "refused_late": what["refused_late"],
        "refused": what["refused"],
        "exact": what["exact"],
        "zoo_kinds": dict(Counter(o.case.kind for o in outcomes)),
        "zoo_max_rel_error": max((o.error for o in outcomes if o.what == "exact"), default=0.0),
    }
