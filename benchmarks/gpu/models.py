"""The trainings that benchmarks.gpu measures: an open_clip CLIP with random weights on synthetic pairs.

With a CUDA device ViT-B/32 as open_clip defines it, with the full vocabulary of 49,408 tokens and captions of 77; else
a small model. Images are random uint8 pixels and captions random tokens between CLIP's first and last: times and bytes
do not depend on them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from mgd_core.autodiff.layout import ParameterLayout
from mgd_core.autodiff.precision import FLOAT32, Precision
from mgd_core.models.clip import ClipObjective, build_clip, initial_parameters
from mgd_core.training.learner import Batch, Learner
from mgd_core.training.optimizers import Adam, State
from mgd_core.training.schedules import constant

SMALL_TEXT = {"context_length": 16, "vocab_size": 512, "width": 64, "heads": 2, "layers": 2}
SMALL = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 64, "layers": 2, "head_width": 32},
    "text_cfg": SMALL_TEXT,
}
STEPS = 8


@dataclass(frozen=True)
class Scale:
    """What is measured: model, batch sizes (ascending), chunk sizes (ascending), and timed repeats."""

    model: str
    batches: tuple[int, ...]
    chunks: tuple[int, ...]
    repeats: int


def scale(device: torch.device, quick: bool) -> Scale:
    """The issue of the device and of the time there is."""
    if device.type == "cuda":
        return Scale("ViT-B-32", (1024,), (64, 128), 1) if quick else _FULL
    return Scale("small", (32, 64), (16, 32), 2) if quick else Scale("small", (128, 256, 512), (32, 64, 128), 3)


_FULL = Scale("ViT-B-32", (1024, 4096), (64, 128, 256, 512), 2)


@dataclass(frozen=True)
class Training:
    """A learner in mid-training: two states one step apart, and an adjoint of the latter."""

    learner: Learner
    rows: tuple[Tensor, Tensor]
    state: State
    after: State
    adjoint: State

    def learner_for(self, batch: int, chunk: int | None, mode: Precision = FLOAT32) -> Learner:
        """The learner on the first ``batch`` pairs, the same in every step."""
        device = self.state.theta.device
        rows = tuple(x[:batch] for x in self.rows)
        fixed = Batch(rows, torch.arange(batch, device=device), torch.ones(batch, device=device))
        objective = mode.around(self.learner.objective)
        return replace(self.learner, objective=objective, chunk=chunk, batches=lambda t: fixed)


@cache
def training(model: str, pairs: int, device: torch.device, layers: int | None = None) -> Training:
    """A model by name, cut to ``layers`` layers a tower if asked, and ``pairs`` pairs on the device."""
    config = model_config(model)
    for tower in ("vision_cfg", "text_cfg"):
        config[tower] = {**config[tower], **({"layers": layers} if layers else {})}
    clip = build_clip(config["embed_dim"], config["vision_cfg"], config["text_cfg"], seed=0).to(device)
    learner, theta = _learner(clip)
    rows = _pairs(pairs, config, device)
    few = Training(learner, rows, *[learner.optimizer.init(theta)] * 3).learner_for(min(32, pairs), None)
    state, _ = few.step(learner.optimizer.init(theta), 0)
    after, _ = few.step(state, 1)
    draw = torch.Generator(device).manual_seed(2)
    direction = torch.randn(theta.shape, generator=draw, device=device) / len(theta) ** 0.5
    return Training(learner, rows, state, after, State(direction, tuple(torch.zeros_like(m) for m in after.moments)))


def model_config(model: str) -> dict[str, Any]:
    """The small model, or one of those that open_clip defines."""
    if model == "small":
        return dict(SMALL)
    import open_clip

    return dict(open_clip.get_model_config(model))


def _learner(clip: nn.Module) -> tuple[Learner, Tensor]:
    layout = ParameterLayout.of(clip)
    theta = initial_parameters(clip, layout)
    optimizer = Adam(b2=0.98, eps=1e-6, weight_decay=0.2, decay_mask=layout.matrix_mask(theta))
    return Learner(ClipObjective(clip), layout, optimizer, constant(STEPS, 5e-4), _no_batches), theta


def _no_batches(t: int) -> Batch:
    raise AssertionError("batches come from learner_for")


def _pairs(n: int, config: dict[str, Any], device: torch.device) -> tuple[Tensor, Tensor]:
    """Images (n, 3, S, S) uint8 and tokens (n, L): first, between one and L - 2 others, last (the largest), zeros."""
    draw = torch.Generator(device).manual_seed(1)
    text, size = config["text_cfg"], config["vision_cfg"]["image_size"]
    length, vocabulary = text["context_length"], text["vocab_size"]
    images = torch.randint(256, (n, 3, size, size), generator=draw, device=device, dtype=torch.uint8)
    tokens = torch.randint(1, vocabulary - 2, (n, length), generator=draw, device=device)
    ends = torch.randint(2, length, (n, 1), generator=draw, device=device)
    place = torch.arange(length, device=device)
    tokens[:, 0] = vocabulary - 2
    tokens = torch.where(place == ends, vocabulary - 1, tokens).masked_fill(place > ends, 0)
    return images, tokens
