"""Classification, retrieval and labels on a small CLIP, and phi over them written a second time: loops and plain
PyTorch, each task at the temperature that a bisection on its own autograd finds. What tests and benchmarks share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from mgd_core.autodiff.layout import Params
from mgd_core.models.clip import CLIP_MEAN, CLIP_STD, ClipObjective
from mgd_core.models.multitask import MultiTask
from mgd_core.models.picture_tasks import ClassTask, LabelsTask, PictureTask, RetrievalTask
from mgd_core.models.zeroshot import Temperature
from mgd_core.training.optimizers import Optimizer
from testing import problems
from testing.oracles import Problem

Loss = Callable[[Tensor | float], Tensor]
"""Of an inverse temperature, nats."""
WEIGHTS = {"digits": 1.0, "classes": 0.7, "captions": 2.0, "labels": 0.3}
UNITS = {"digits": 1.3, "classes": 1.1, "captions": 2.2, "labels": 1.7}
DIGITS = torch.arange(6) % 3
OWNERS = torch.tensor([0, 0, 1, 2, 2, 2, 3, 4, 5])
LABELS = torch.tensor([0, 1, 2, 2, 2, 1, 0])
TRUTH = torch.tensor([[1, 0, 1, 0], [0, 1, 1, 0], [1, 1, 0, 0], [0, 0, 1, 0], [1, 0, 1, 0]]).bool()
"""The last class has no picture, and asks nothing."""


def many(problem: Problem, temperature: Temperature = "best", rows: int = 4) -> MultiTask:
    """Four tasks on a problem's pictures and tokens, in batches that run across them."""
    images, tokens = problem.pool
    objective = problem.learner.objective
    assert isinstance(objective, ClipObjective)
    tasks: dict[str, PictureTask] = {
        "digits": ClassTask.of(images[:6], tokens[:6], DIGITS, 2),
        "classes": ClassTask.of(images[6:13], tokens[6:10], LABELS, metric="mean_per_class_recall"),
        "captions": RetrievalTask.of(images[13:19], tokens[10:19], OWNERS),
        "labels": LabelsTask.of(images[19:24], tokens[16:24], TRUTH, 2),
    }
    return MultiTask(objective, problem.learner.layout, tasks, WEIGHTS, temperature, UNITS, rows)


def naive_phi(problem: Problem, tasks: MultiTask, name: str | None = None) -> Callable[[Params], Tensor]:
    """phi (of one task its share) of named parameters, by other means than `MultiTask`."""
    objective = tasks.objective
    model = objective.model

    def features(params: Params, images: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        n = max(len(images), len(tokens))
        padded = [torch.cat([x, x[:1].expand(n - len(x), *x.shape[1:])]) for x in (images, tokens)]
        pixels = (padded[0].to(next(iter(params.values())).dtype) / 255 - CLIP_MEAN) / CLIP_STD
        image, text, scale = functional_call(model, dict(params), (pixels, padded[1]))[:3]
        return image[: len(images)], text[: len(tokens)], scale

    def phi(params: Params) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for key, task in tasks.tasks.items():
            if name not in (None, key):
                continue
            image, text, scale = features(params, task.images, task.tokens)
            loss = PLAIN[type(task)](task, image, text)
            if tasks.temperature == "best":
                at: Tensor | float = bisected(PLAIN[type(task)](task, image.detach(), text.detach()))
            else:
                at = scale.clamp(max=100) if tasks.temperature == "model" else 1 / float(tasks.temperature)
            total = total + tasks.weights[key] / (tasks.units or UNITS)[key] * loss(at)
        return total

    return phi


@dataclasses.dataclass(frozen=True)
class ManyTasks(Problem):
    """A problem whose target is a sum of tasks: the engine is given `MultiTask`, the oracle its naive form."""

    tasks: MultiTask

    def phi_and_gradient(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Of `MultiTask`."""
        return self.tasks.target(theta)


def many_tasks(optimizer: Optimizer, steps: int = 40, peak: float = 0.003) -> ManyTasks:
    """Four tasks on the small CLIP."""
    problem = problems.clip(optimizer, steps=steps, peak=peak)
    tasks = many(problem)
    plain = with_target(problem, naive_phi(problem, tasks))
    return ManyTasks(**{**vars(plain), "name": "many tasks, CLIP ViT", "tasks": tasks})


def with_target(problem: Problem, phi: Callable[[Params], Tensor]) -> Problem:
    """The problem with another target."""

    def target(params: Params) -> Tensor:
        with sdpa_kernel(SDPBackend.MATH):
            return phi(params)

    return dataclasses.replace(problem, target=target)


def bisected(loss: Loss) -> float:
    """The inverse temperature of the least loss, by the sign of its derivative."""
    low, high = 1e-3, 1e3
    for _ in range(70):
        at = torch.tensor((low * high) ** 0.5, dtype=torch.float64, requires_grad=True)
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(loss(at), at)
        low, high = (at.item(), high) if slope < 0 else (low, at.item())
    return (low * high) ** 0.5


def _heads(task: ClassTask | LabelsTask, text: Tensor) -> Tensor:
    return torch.stack([F.normalize(own.mean(0), dim=0) for own in text.split(task.per_column)])


def _classes(task: ClassTask, image: Tensor, text: Tensor) -> Loss:
    heads = _heads(task, text)

    def loss(scale: Tensor | float) -> Tensor:
        logits = scale * image @ heads.T
        if task.metric == "acc1":
            return F.cross_entropy(logits, DIGITS)
        own = [F.cross_entropy(logits[c == LABELS], LABELS[c == LABELS]) for c in LABELS.unique()]
        return torch.stack(own).mean()

    return loss


def _captions(task: RetrievalTask, image: Tensor, text: Tensor) -> Loss:
    def loss(scale: Tensor | float) -> Tensor:
        logits = scale * image @ text.T
        terms = []
        for i in range(len(image)):
            own, others = torch.where(OWNERS.eq(i))[0], torch.where(OWNERS.ne(i))[0]
            each = [F.cross_entropy(torch.cat([logits[i, j : j + 1], logits[i, others]])[None], ZERO) for j in own]
            each_back = [F.cross_entropy(logits[:, j][None], torch.tensor([i])) for j in own]
            terms.append(0.5 * torch.stack(each).mean() + 0.5 * torch.stack(each_back).mean())
        return torch.stack(terms).mean()

    return loss


def _labels(task: LabelsTask, image: Tensor, text: Tensor) -> Loss:
    heads = _heads(task, text)

    def loss(scale: Tensor | float) -> Tensor:
        logits = scale * heads @ image.T
        terms = []
        for c in range(len(heads)):
            own, others = (torch.where(mask)[0] for mask in (TRUTH[:, c], ~TRUTH[:, c]))
            if len(own) and len(others):
                each = [F.cross_entropy(torch.cat([logits[c, j : j + 1], logits[c, others]])[None], ZERO) for j in own]
                terms.append(torch.stack(each).mean())
        return torch.stack(terms).mean()

    return loss


ZERO = torch.tensor([0])
PLAIN: dict[type[PictureTask], Callable[..., Loss]] = {
    ClassTask: _classes,
    RetrievalTask: _captions,
    LabelsTask: _labels,
}
