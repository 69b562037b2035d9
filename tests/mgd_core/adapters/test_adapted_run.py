"""metagradient(): PyTorch's own training, differentiated; against autograd through torch.optim's formulas by hand."""

import math
import random
import re
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call
from torch.optim import SGD, Adam, AdamW
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR, ReduceLROnPlateau, SequentialLR, StepLR
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, TensorDataset

from mgd_core import metagradient
from mgd_core.adapters.adapted_batches import RefusedData
from mgd_core.adapters.adapted_optimizers import RefusedOptimizer
from mgd_core.autodiff.refusals import RefusedModel
from mgd_core.errors import UserError

N, WIDTH, CLASSES, EPOCHS = 22, 5, 3, 3
README = Path(__file__).resolve().parents[3] / "README.md"


def numbers(n=N, seed=0):
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(n, WIDTH, generator=draw, dtype=torch.float64)
    return x, torch.randint(CLASSES, (n,), generator=draw)


def net(activation=nn.Tanh, *more):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(WIDTH, 6), activation(), *more, nn.Linear(6, CLASSES)).double()


def loader(dataset=None, **options):
    options = {"batch_size": 4, "shuffle": True, "generator": torch.Generator().manual_seed(2), **options}
    return DataLoader(TensorDataset(*numbers()) if dataset is None else dataset, **options)


def losses(model, batch):
    x, y = batch
    return F.cross_entropy(model(x), y, reduction="none")


def target(model):
    x, y = numbers(9, seed=5)
    return F.cross_entropy(model(x), y)


def two_groups(model, **second):
    return [{"params": model[2].parameters()}, {"params": model[0].parameters(), **second}]


def warm(optimizer):
    return LambdaLR(optimizer, lambda t: min(1.0, t / 4))  # from 0


def apart(optimizer):
    return LambdaLR(optimizer, [lambda t: min(1.0, t / 4), lambda t: 0.9**t])


def in_turn(optimizer):
    parts = [warm(optimizer), StepLR(optimizer, 3, gamma=0.5)]
    return SequentialLR(optimizer, parts, milestones=[6])


def one_cycle(optimizer):
    return OneCycleLR(optimizer, 0.02, total_steps=EPOCHS * 6, cycle_momentum=False)


CASES = {
    "adamw": (lambda m: AdamW(m.parameters(), lr=0.01), None, {}),
    "adamw in chunks": (lambda m: AdamW(m.parameters(), lr=0.01, betas=(0.8, 0.95)), None, {"chunk": 3}),
    "adamw warmed up": (lambda m: AdamW(m.parameters(), lr=0.01), warm, {}),
    "adamw, schedules in turn": (lambda m: AdamW(m.parameters(), lr=0.01), in_turn, {}),
    "adamw, one cycle, rates in tensors": (
        lambda m: AdamW(m.parameters(), lr=torch.tensor(0.01).double()),
        one_cycle,
        {},
    ),
    "adam, coupled decay": (lambda m: Adam(m.parameters(), lr=0.01, weight_decay=0.1), None, {}),
    "adam, eps_root": (lambda m: Adam(m.parameters(), lr=0.01), None, {"eps_root": 1e-6}),
    "adamw, groups without decay": (
        lambda m: AdamW(two_groups(m, weight_decay=0.0), lr=0.01),
        warm,
        {"clip_norm": 0.3},
    ),
    "adamw, groups apart in all": (
        lambda m: AdamW(two_groups(m, lr=0.003, weight_decay=0.3, betas=(0.5, 0.9), eps=1e-4), lr=0.01),
        apart,
        {"chunk": 2},
    ),
    "adamw, groups alike": (lambda m: AdamW(two_groups(m), lr=0.01), None, {}),
    "sgd": (lambda m: SGD(m.parameters(), lr=0.1), None, {}),
    "sgd, nesterov and decay": (
        lambda m: SGD(m.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
        warm,
        {"clip_norm": 0.4},
    ),
    "sgd, groups": (lambda m: SGD(two_groups(m, lr=0.02, momentum=0.5), lr=0.1, momentum=0.9), apart, {}),
}


def trained(model, optimizer, scheduler, batches, clip_norm=None):
    """PyTorch's own loop; the rates (steps, groups) that it used."""
    rates = []
    for _ in range(EPOCHS):
        for batch in batches:
            rates.append([float(group["lr"]) for group in optimizer.param_groups])
            optimizer.zero_grad()
            losses(model, batch).mean().backward()
            if clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
    return torch.tensor(rates, dtype=torch.float64)


def root(v):
    """sqrt, with the derivative 0 where v is 0: there m and g are 0 too, and the move's derivative is that by m."""
    return torch.where(v > 0, torch.where(v > 0, v, 1.0).sqrt(), 0.0)


def step(group, p, g, held, t, lr, eps_root):
    """torch.optim's formulas, by hand."""
    decay = group["weight_decay"]
    if "betas" not in group:
        g = g + decay * p
        buffer = g if held is None else group["momentum"] * held + g
        return p - lr * (g + group["momentum"] * buffer if group["nesterov"] else buffer), buffer
    b1, b2 = group["betas"]
    p, g = (p * (1 - lr * decay), g) if group["decoupled_weight_decay"] else (p, g + decay * p)
    m, v = (torch.zeros_like(p), torch.zeros_like(p)) if held is None else held
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
    size = root(v / (1 - b2 ** (t + 1)) + eps_root) + group["eps"]
    return p - lr * (m / (1 - b1 ** (t + 1))) / size, (m, v)


def naive(model, optimizer, rates, order, dataset, clip_norm=None, eps_root=0.0, **_):
    """phi and its gradients by weights and rates: all steps in one graph."""
    weights = torch.ones(len(dataset), dtype=torch.float64, requires_grad=True)
    rates = rates.clone().requires_grad_(True)
    of = {id(p): number for number, group in enumerate(optimizer.param_groups) for p in group["params"]}
    where = {name: of[id(p)] for name, p in model.named_parameters()}
    params = {name: p.detach().clone().requires_grad_(True) for name, p in model.named_parameters()}
    held = dict.fromkeys(params)
    for t, ids in enumerate(order):
        x, y = (torch.stack(column) for column in zip(*(dataset[i] for i in ids), strict=True))
        each = F.cross_entropy(functional_call(model, params, (x,)), y, reduction="none")
        found = torch.autograd.grad((weights[ids] * each).mean(), list(params.values()), create_graph=True)
        if clip_norm is not None:
            norm = torch.cat([g.flatten() for g in found]).norm()
            found = [g * (clip_norm / (norm + 1e-6)).clamp(max=1.0) for g in found]
        for (name, p), g in zip(list(params.items()), found, strict=True):
            group = optimizer.param_groups[where[name]]
            params[name], held[name] = step(group, p, g, held[name], t, rates[t, where[name]], eps_root)
    x, y = numbers(9, seed=5)
    phi = F.cross_entropy(functional_call(model, params, (x,)), y)
    by_weight, by_rate = torch.autograd.grad(phi, (weights, rates))
    return phi.detach(), by_weight, by_rate.sum(1), params


def order_of(batches, dataset):
    """Positions as the loader's own iteration shows them."""
    rows = [row.tolist() for row in dataset.tensors[0]]
    return [[rows.index(row.tolist()) for row in x] for _ in range(EPOCHS) for x, _ in batches]


def off(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("case", CASES)
def test_it_is_autograd_through_pytorchs_own_training(case):
    make, schedule, options = CASES[case]
    model, dataset = net(), TensorDataset(*numbers())
    optimizer = make(model)
    scheduler = schedule and schedule(optimizer)
    found = metagradient(
        model, optimizer, losses, target, loader(dataset), EPOCHS, slots=4, scheduler=scheduler, **options
    )
    rates = trained(model, optimizer, scheduler, loader(dataset), options.get("clip_norm"))
    fresh = net()
    again = make(fresh)
    phi, by_weight, by_rate, params = naive(fresh, again, rates, order_of(loader(dataset), dataset), dataset, **options)
    if "eps_root" not in options:
        assert max(off(found.parameters[name], p.detach()) for name, p in model.named_parameters()) < 1e-12
    assert max(off(found.parameters[name], p.detach()) for name, p in params.items()) < 1e-12
    assert off(found.phi, phi) < 1e-12
    assert found.example.shape == (N,) and off(found.example, by_weight) < 1e-12
    assert found.learning_rate.shape == (EPOCHS * math.ceil(N / 4),) and off(found.learning_rate, by_rate) < 1e-12


def test_where_no_gradient_ever_came_the_derivative_exists_without_eps_root():
    x, y = numbers()
    x[:, 0] = 0  # a pixel that is always black
    dataset, model = TensorDataset(x, y), net()
    optimizer = AdamW(model.parameters(), lr=0.01)
    found = metagradient(model, optimizer, losses, target, loader(dataset), EPOCHS, slots=4)
    rates = torch.full((EPOCHS * 6, 1), 0.01, dtype=torch.float64)
    _, by_weight, by_rate, _ = naive(model, optimizer, rates, order_of(loader(dataset), dataset), dataset)
    assert off(found.example, by_weight) < 1e-12 and off(found.learning_rate, by_rate) < 1e-12


def test_everything_is_left_as_it_was_so_a_second_call_gives_the_same():
    model, batches = net(), loader()
    optimizer = AdamW(model.parameters(), lr=0.01)
    scheduler = warm(optimizer)
    before = [p.detach().clone() for p in model.parameters()], batches.generator.get_state(), torch.get_rng_state()
    rates = [group["lr"] for group in optimizer.param_groups]
    first, second = (
        metagradient(model, optimizer, losses, target, batches, 1, 2, scheduler=scheduler) for _ in range(2)
    )
    assert torch.equal(first.example, second.example) and first.example.norm() > 0
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before[0], strict=True))
    assert torch.equal(batches.generator.get_state(), before[1]) and torch.equal(torch.get_rng_state(), before[2])
    assert [group["lr"] for group in optimizer.param_groups] == rates and scheduler.last_epoch == 0
    assert not optimizer.state and all(p.grad is None for p in model.parameters())


def test_a_sampler_may_give_numbers_of_any_kind():
    def found(positions):
        model = net()
        optimizer = AdamW(model.parameters(), lr=0.01)
        batches = loader(shuffle=False, sampler=positions)
        return metagradient(model, optimizer, losses, target, batches, 1, slots=3).example

    plain = found(list(range(3, 12)))
    assert torch.equal(found(torch.arange(3, 12)), plain) and torch.equal(found(np.arange(3, 12)), plain)
    assert plain[3:12].all() and not plain[:3].any() and not plain[12:].any()


def test_several_targets_go_in_one_sweep():
    model = net()
    optimizer = AdamW(model.parameters(), lr=0.01)
    both = metagradient(
        model, optimizer, losses, lambda m: torch.stack([target(m), 2 * target(m)]), loader(), 1, slots=3
    )
    one = metagradient(model, optimizer, losses, target, loader(), 1, slots=3)
    assert both.phi.shape == (2,) and both.example.shape == (2, N)
    assert off(both.example[0], one.example) < 1e-12 and off(both.example[1], 2 * one.example) < 1e-12


def test_frozen_parameters_and_those_outside_the_optimizer_stay():
    model = net()
    model[0].bias.requires_grad_(False)
    optimizer = AdamW([model[0].weight, model[0].bias, model[2].weight], lr=0.01)
    found = metagradient(model, optimizer, losses, target, loader(), 1, slots=3)
    assert set(found.parameters) == {"0.weight", "2.weight"}


Pair = namedtuple("Pair", "x y")


@pytest.mark.parametrize("shape", ["mapping", "named tuple", "nested"])
def test_a_batch_has_the_shape_that_collate_fn_gives_it(shape):
    x, y = numbers()
    made = {"mapping": lambda i: {"x": x[i], "y": y[i]}, "named tuple": lambda i: Pair(x[i], y[i])}
    made["nested"] = lambda i: [{"x": x[i]}, (y[i],)]
    taken = {"mapping": lambda b: (b["x"], b["y"]), "named tuple": lambda b: (b.x, b.y)}
    taken["nested"] = lambda b: (b[0]["x"], b[1][0])
    model = net()
    optimizer = AdamW(model.parameters(), lr=0.01)
    found = metagradient(
        model,
        optimizer,
        lambda m, batch: losses(m, taken[shape](batch)),
        target,
        loader([made[shape](i) for i in range(N)]),
        1,
        slots=3,
    )
    plain = metagradient(model, optimizer, losses, target, loader(), 1, slots=3)
    assert torch.equal(found.example, plain.example)


class Drawing(Dataset):
    """Noise from every ambient generator on each item."""

    def __init__(self, x, y):
        self.x, self.y, self.asked = x, y, []

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        x = self.x[i] + 0.1 * torch.randn(WIDTH) + 0.1 * random.random()
        self.asked.append((i, x))
        return x, self.y[i]


def test_augmentation_with_a_seed_comes_again_and_differs_between_epochs():
    model, dataset = net(), Drawing(*numbers())
    optimizer = AdamW(model.parameters(), lr=0.01)
    first, second, other = (
        metagradient(model, optimizer, losses, target, loader(dataset), 2, slots=2, seed=s) for s in (3, 3, 4)
    )
    assert torch.equal(first.example, second.example) and not torch.equal(first.example, other.example)
    assert len({tuple(x.tolist()) for i, x in dataset.asked if i == 0}) == 4  # two epochs of two seeds


class Endless(IterableDataset):
    def __iter__(self):
        return iter(zip(*numbers(), strict=True))


class Stateful(Dataset):
    """A generator of its own, which no ambient seed reaches."""

    def __init__(self):
        self.draw = torch.Generator().manual_seed(0)

    def __len__(self):
        return N

    def __getitem__(self, i):
        return torch.randn(WIDTH, generator=self.draw, dtype=torch.float64), 0


class Mine(AdamW):
    """A step of one's own."""


def one_per_text(items):
    return {"x": torch.stack([x for x, _ in items]), "text": ["a"] * len(items)}


def dropping(items):
    return torch.stack([x for x, _ in items[1:]]), torch.stack([y for _, y in items[1:]])


LOADERS = {
    "IterableDataset": (lambda: DataLoader(Endless(), batch_size=4), {}),
    "generator=torch.Generator": (lambda: loader(generator=None), {}),
    "generator=torch.Generator()": (
        lambda: loader(shuffle=False, sampler=RandomSampler(range(N)), generator=None),
        {},
    ),
    "Give seed=": (lambda: loader(Drawing(*numbers())), {}),
    "anew in each __getitem__": (lambda: loader(Stateful()), {"seed": 1}),
    "batch_size=None": (lambda: DataLoader(TensorDataset(*numbers()), batch_size=None), {}),
    "no batch": (lambda: loader(batch_size=N + 1, drop_last=True), {}),
    "is of type str": (lambda: loader(collate_fn=one_per_text), {}),
    "one row for each example": (lambda: loader(collate_fn=dropping), {}),
    "asks for 'a' at step 0": (lambda: loader(shuffle=False, sampler=["a"], generator=None), {}),
    "asks for 99 at step 0": (lambda: loader(shuffle=False, sampler=[99], generator=None), {}),
}


@pytest.mark.parametrize("told", LOADERS)
def test_a_loader_that_cannot_be_read_again_is_refused(told):
    make, options = LOADERS[told]
    model = net()
    with pytest.raises(RefusedData, match=re.escape(told)):
        metagradient(model, AdamW(model.parameters()), losses, target, make(), 1, 2, **options)


def stepped(model):
    optimizer = AdamW(model.parameters())
    losses(model, numbers()).mean().backward()
    optimizer.step()
    return optimizer


def hooked(model):
    model[0].weight.register_hook(lambda g: g.clamp(-1, 1))
    return AdamW(model.parameters())


def mixed(model):
    model[2].float()
    return AdamW(model.parameters())


OPTIMIZERS = {
    "RMSprop is none of": lambda m: torch.optim.RMSprop(m.parameters()),
    "Mine is none of": lambda m: Mine(m.parameters()),
    "amsgrad=True": lambda m: AdamW(m.parameters(), amsgrad=True),
    "group 1 has amsgrad=True": lambda m: AdamW(two_groups(m, amsgrad=True)),
    "maximize=True": lambda m: SGD(m.parameters(), maximize=True),
    "dampening=0.5": lambda m: SGD(m.parameters(), momentum=0.9, dampening=0.5),
    "taken steps already": stepped,
    "hooks": hooked,
    "one floating-point dtype": mixed,
    "none of the model's": lambda m: AdamW(net().parameters()),
    "nothing to train": lambda m: AdamW(m.requires_grad_(False).parameters()),
}


@pytest.mark.parametrize("told", OPTIMIZERS)
def test_an_optimizer_whose_steps_the_engine_cannot_take_is_refused(told):
    model = net()
    with pytest.raises(RefusedOptimizer, match=re.escape(told)):
        metagradient(model, OPTIMIZERS[told](model), losses, target, loader(), 1, 2)


def test_an_option_of_a_later_pytorch_is_refused_rather_than_passed_over():
    model = net()
    optimizer = AdamW(model.parameters())
    optimizer.defaults["cautious"] = optimizer.param_groups[0]["cautious"] = True
    with pytest.raises(RefusedOptimizer, match="cautious=True"):
        metagradient(model, optimizer, losses, target, loader(), 1, 2)


SCHEDULERS = {
    "ReduceLROnPlateau does not fix": ReduceLROnPlateau,
    "cycle_momentum=False": lambda o: OneCycleLR(o, 0.02, total_steps=30),
    "no rate for step 5 of 6": lambda o: OneCycleLR(o, 0.02, total_steps=4, cycle_momentum=False),
    "another optimizer": lambda o: warm(AdamW(net().parameters())),
}


@pytest.mark.parametrize("told", SCHEDULERS)
def test_a_scheduler_that_is_no_function_of_the_step_is_refused(told):
    model = net()
    optimizer = AdamW(model.parameters())
    with pytest.raises(RefusedOptimizer, match=re.escape(told)):
        metagradient(model, optimizer, losses, target, loader(), 1, 2, scheduler=SCHEDULERS[told](optimizer))


MODELS = {
    "drops activations at random": lambda: net(nn.Tanh, nn.Dropout(0.1)),
    "couples the rows of a batch": lambda: net(nn.Tanh, nn.BatchNorm1d(6)),
}


@pytest.mark.parametrize("told", MODELS)
def test_dropout_and_batch_norm_are_refused_before_the_first_step(told):
    model = MODELS[told]()
    with pytest.raises(RefusedModel, match=told):
        metagradient(model, AdamW(model.parameters()), losses, target, loader(), 1, 2)


def contrastive(model, batch):
    z = model(batch[0])
    return F.cross_entropy(z @ z.T, torch.arange(len(z)), reduction="none")


FUNCTIONS = {
    "reduction='none'": (lambda m, b: losses(m, b).mean(), target),
    "couples the rows of a batch": (contrastive, target),
    "has no derivative": (lambda m, b: losses(m, b).detach(), target),
    "target needs to give": (losses, lambda m: target(m).item()),
}


@pytest.mark.parametrize("told", FUNCTIONS)
def test_losses_and_targets_of_another_shape_are_refused(told):
    model = net()
    with pytest.raises(RefusedModel, match=told) as caught:
        metagradient(model, AdamW(model.parameters()), *FUNCTIONS[told], loader(), 1, 2)
    if told.startswith("couples"):
        assert "write an Objective" in "".join(caught.value.__notes__)


def test_a_parameter_that_decay_would_move_and_pytorch_does_not_is_refused():
    model = net()
    model.add_module("unused", nn.Linear(2, 2).double())
    model.forward = lambda x: model[2](model[1](model[0](x)))
    with pytest.raises(RefusedOptimizer, match=r"'unused\.weight' gets no gradient"):
        metagradient(model, AdamW(model.parameters()), losses, target, loader(), 1, 2)
    metagradient(model, Adam(model.parameters()), losses, target, loader(), 1, 2)  # without decay they are alike


def test_every_refusal_is_the_users_to_mend():
    assert all(issubclass(kind, UserError) for kind in (RefusedData, RefusedOptimizer, RefusedModel))


def test_the_readmes_example_runs():
    (block,) = [b for b in re.findall(r"```python\n(.*?)```", README.read_text(), re.S) if "metagradient" in b]
    x, y = numbers()
    names = {
        "train_set": TensorDataset(x.float(), y),
        "x_val": x[:5].float(),
        "y_val": y[:5],
        "Net": lambda: net().float(),
    }
    exec(block, names)
    assert names["g"].example.shape == (N,) and names["g"].learning_rate.ndim == 1
    assert len(block.splitlines()) < 25
