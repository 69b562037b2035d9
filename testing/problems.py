"""Small trainings for the oracles, in float64: classifiers, two towers, an open_clip CLIP, and a language model.

Each is made to be smooth and well conditioned, so that a comparison at 1e-12 says something about the engine: smooth
activations, weights of a batch spread over [0.5, 1.5], a warm-up, and a learning rate at which the loss falls steadily.
Batches of 7 of 24 examples, so that every example is visited several times and chunks of 3 do not divide the batch.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.func import functional_call

from mgd_core.autodiff.layout import ParameterLayout, Params
from mgd_core.autodiff.objective import Features, Objective, Rows, cross_entropy, info_nce, info_nce_joining, unit_rows
from mgd_core.models.causal_lm import NOT_PREDICTED, CausalLmObjective
from mgd_core.models.classification import ClassificationObjective
from mgd_core.models.clip import CLIP_MEAN, CLIP_STD, ClipObjective, build_clip, initial_parameters
from mgd_core.models.model_folders import CausalLmOptions, LoraOptions, build_causal_lm
from mgd_core.models.resnets import ResNet9, ResNetOptions
from mgd_core.models.transformers import SmallViT, TransformerOptions
from mgd_core.training.learner import Batch, Learner
from mgd_core.training.optimizers import Optimizer
from mgd_core.training.schedules import warmup_cosine
from testing.language_models import LanguageObjective, SmallGPT
from testing.oracles import Problem

POOL, BATCH, TARGET = 24, 7, 9
VIT = {"image_size": 8, "patch_size": 4, "width": 16, "layers": 2, "head_width": 8, "mlp_ratio": 2.0}
CONVNEXT = {
    "timm_model_name": "test_convnext",
    "timm_model_pretrained": False,
    "timm_pool": "avg",
    "timm_proj": "linear",
    "image_size": 32,
}
INIT = 0.4  # standard deviation of the language model's weights
TEXT = {"context_length": 5, "vocab_size": 20, "width": 16, "heads": 2, "layers": 1}


class Classifier(Objective):
    """An MLP with cross-entropy. Rows: (n, 6) and labels (n,). Features are the losses themselves."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def encode(self, params: Params, rows: Rows) -> Features:
        """Losses (n,)."""
        return (cross_entropy(functional_call(self.model, dict(params), (rows[0],)), rows[1]),)

    def losses(self, params: Params, features: Features) -> Tensor:
        """The features."""
        return features[0]

    def candidate_losses(self, params: Params, candidates: Features, reference: Features, others: Tensor) -> Tensor:
        """A loss of its own, whatever it joins."""
        return candidates[0]


class TwoTowers(Objective):
    """Two MLPs with InfoNCE and a learned scale. Rows: (n, 6) and (n, 4)."""

    def __init__(self, model: nn.ModuleDict) -> None:
        self.model = model

    def encode(self, params: Params, rows: Rows) -> Features:
        """Unit features of both sides, each (n, 5)."""
        sides = zip(("left", "right"), rows, strict=True)
        return tuple(unit_rows(_tower(self.model, params, side, x)) for side, x in sides)

    def losses(self, params: Params, features: Features) -> Tensor:
        """InfoNCE (n,)."""
        left, right = features
        return info_nce(left, right, params["scale.log"].exp())

    def candidate_losses(self, params: Params, candidates: Features, reference: Features, others: Tensor) -> Tensor:
        """InfoNCE (n,) of each candidate beside the reference."""
        (left, right), (lefts, rights) = candidates, reference
        return info_nce_joining(left, right, (lefts, rights), params["scale.log"].exp(), others)


def _tower(model: nn.ModuleDict, params: Params, side: str, x: Tensor) -> Tensor:
    own = {name.removeprefix(f"{side}."): p for name, p in params.items() if name.startswith(f"{side}.")}
    return functional_call(model[side], own, (x,))


class _Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.tensor(1.5))


def classifier(optimizer: Optimizer, steps: int = 40, peak: float = 0.02) -> Problem:
    """Weighted cross-entropy: losses that do not couple."""
    model = _seeded(lambda: nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 3)))
    draw = torch.Generator().manual_seed(1)
    x, y = _normal(draw, POOL + TARGET, 6), torch.randint(3, (POOL + TARGET,), generator=draw)

    def losses(params: Params, rows: Rows) -> Tensor:
        return F.cross_entropy(functional_call(model, dict(params), (rows[0],)), rows[1], reduction="none")

    return _problem(
        "cross-entropy MLP", Classifier(model), model, (x, y), losses, optimizer, steps, peak, coupled=False
    )


def two_towers(optimizer: Optimizer, steps: int = 40, peak: float = 0.02) -> Problem:
    """Weighted InfoNCE with learned scale over two MLPs."""

    def build() -> nn.ModuleDict:
        left = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 5))
        right = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 5))
        return nn.ModuleDict({"left": left, "right": right, "scale": _Scale()})

    model = _seeded(build)
    assert isinstance(model, nn.ModuleDict)
    draw = torch.Generator().manual_seed(2)
    pool = _normal(draw, POOL + TARGET, 6), _normal(draw, POOL + TARGET, 4)

    def losses(params: Params, rows: Rows) -> Tensor:
        left, right = (_tower(model, params, side, x) for side, x in zip(("left", "right"), rows, strict=True))
        return plain_info_nce(left, right, params["scale.log"].exp())

    return _problem("InfoNCE two MLPs", TwoTowers(model), model, pool, losses, optimizer, steps, peak)


def clip(
    optimizer: Optimizer, steps: int = 40, peak: float = 0.003, vision: dict[str, Any] = VIT, **text: Any
) -> Problem:
    """Weighted InfoNCE of an open_clip CLIP with its learned scale."""
    model = build_clip(8, vision, {**TEXT, **text}, seed=5).double()
    draw = torch.Generator().manual_seed(3)
    size = vision["image_size"]
    images = torch.randint(256, (POOL + TARGET, 3, size, size), generator=draw, dtype=torch.uint8)
    tokens = torch.randint(1, TEXT["vocab_size"] - 1, (POOL + TARGET, TEXT["context_length"]), generator=draw)
    tokens[:, -1] = TEXT["vocab_size"] - 1  # open_clip reads the text at its largest token, the end of text

    def losses(params: Params, rows: Rows) -> Tensor:
        pixels = (rows[0].double() / 255 - CLIP_MEAN) / CLIP_STD
        image, text, scale = functional_call(model, dict(params), (pixels, rows[1]))[:3]
        return plain_info_nce(image, text, scale.clamp(max=100))

    name = "InfoNCE CLIP " + ("ConvNeXt" if "timm_model_name" in vision else "ViT")
    return _problem(name, ClipObjective(model), model, (images, tokens), losses, optimizer, steps, peak)


def pictured(build: Callable[[], nn.Module], name: str, optimizer: Optimizer, steps: int, peak: float) -> Problem:
    """Cross-entropy of a model of pictures (n, 2, 8, 8) with soft labels: both columns can be metaparameters."""
    model = _seeded(build)
    draw = torch.Generator().manual_seed(6)
    x, y = _normal(draw, POOL + TARGET, 2, 8, 8), _normal(draw, POOL + TARGET, 3).softmax(1)

    def losses(params: Params, rows: Rows) -> Tensor:
        return F.cross_entropy(functional_call(model, dict(params), (rows[0],)), rows[1], reduction="none")

    return _problem(name, ClassificationObjective(model), model, (x, y), losses, optimizer, steps, peak, coupled=False)


def resnet(optimizer: Optimizer, steps: int = 40, peak: float = 0.01, **options: Any) -> Problem:
    """A ResNet-9 with soft labels."""
    how = ResNetOptions(classes=3, channels=2, width=2, groups=2, **options)
    return pictured(lambda: ResNet9(how), "soft ResNet-9", optimizer, steps, peak)


def vit(optimizer: Optimizer, steps: int = 40, peak: float = 0.01) -> Problem:
    """A small ViT with soft labels."""
    how = TransformerOptions(width=8, heads=2, layers=1, mlp_ratio=2)
    return pictured(lambda: SmallViT(how, 8, 4, channels=2, classes=3), "soft ViT", optimizer, steps, peak)


def gpt(optimizer: Optimizer, steps: int = 40, peak: float = 0.01) -> Problem:
    """A small GPT with QK-norm and an output embedding of its own; the weight of each token can be a metaparameter."""
    how = TransformerOptions(width=8, heads=2, layers=1, mlp_ratio=2)
    model = _seeded(lambda: SmallGPT(how, 11, 6))
    draw = torch.Generator().manual_seed(7)
    tokens = torch.randint(11, (POOL + TARGET, 7), generator=draw)
    wanted = 0.5 + torch.rand(POOL + TARGET, 6, generator=draw, dtype=torch.float64)

    def losses(params: Params, rows: Rows) -> Tensor:
        logits = functional_call(model, dict(params), (rows[0][:, :-1],))
        each = F.cross_entropy(logits.flatten(0, 1), rows[0][:, 1:].flatten(), reduction="none").view_as(rows[1])
        return (each * rows[1]).sum(1) / rows[1].sum(1)

    objective = LanguageObjective(model)
    return _problem("GPT", objective, model, (tokens, wanted), losses, optimizer, steps, peak, coupled=False)


def tuned(optimizer: Optimizer, steps: int = 40, peak: float = 0.01) -> Problem:
    """LoRA on the last layer of a GPT-NeoX of transformers: hidden states in, completions of different lengths out."""
    with tempfile.TemporaryDirectory() as folder:
        _save_neox(Path(folder))
        options = CausalLmOptions(Path(folder), trained_layers=1, lora=LoraOptions(2, 4))
        model = build_causal_lm(options, seed=4).double()
    draw = torch.Generator().manual_seed(8)
    states, labels = _normal(draw, POOL + TARGET, 6, 8), torch.randint(11, (POOL + TARGET, 6), generator=draw)
    labels[:, :2] = NOT_PREDICTED
    labels[::3, 4:] = NOT_PREDICTED

    def losses(params: Params, rows: Rows) -> Tensor:
        everywhere = torch.arange(6, device=rows[1].device).expand_as(rows[1])
        logits = functional_call(model, dict(params), (rows[0], everywhere))
        each = F.cross_entropy(logits.transpose(1, 2), rows[1], ignore_index=NOT_PREDICTED, reduction="none")
        return each.sum(1) / (rows[1] != NOT_PREDICTED).sum(1)

    objective = CausalLmObjective(model)
    return _problem("LoRA GPT-NeoX", objective, model, (states, labels), losses, optimizer, steps, peak, coupled=False)


def _save_neox(folder: Path) -> None:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    sizes: dict[str, Any] = {
        "hidden_size": 8,
        "intermediate_size": 12,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    sizes |= {"vocab_size": 11, "max_position_embeddings": 16, "bos_token_id": 0, "eos_token_id": 0}
    config = GPTNeoXConfig(**sizes, initializer_range=INIT)  # at 0.02, the usual one, adapters hardly move the loss
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        model = GPTNeoXForCausalLM(config)
    # As save_pretrained would, which writes nothing in processes of a group but the first.
    config.to_json_file(folder / "config.json")
    save_file(
        {name: x.contiguous() for name, x in model.state_dict().items()}, folder / "model.safetensors", {"format": "pt"}
    )


def with_float_pixels(problem: Problem) -> Problem:
    """The same problem with images of whole numbers held as floating point, so that they can be a metaparameter."""
    pool = tuple(x.double() if x.dtype == torch.uint8 else x for x in problem.pool)
    learner = dataclasses.replace(problem.learner, batches=lambda t: _batch(pool, t))
    return dataclasses.replace(problem, learner=learner, pool=pool)


def plain_info_nce(left: Tensor, right: Tensor, scale: Tensor) -> Tensor:
    """Symmetric InfoNCE (n,) of pairs of features of any length, as its paper has it."""
    left, right = (x / x.norm(dim=1, keepdim=True) for x in (left, right))
    logits, own = scale * left @ right.T, torch.arange(len(left), device=left.device)
    return 0.5 * (F.cross_entropy(logits, own, reduction="none") + F.cross_entropy(logits.T, own, reduction="none"))


def _problem(
    name: str,
    objective: Objective,
    model: nn.Module,
    rows: Rows,
    losses: Any,
    optimizer: Optimizer,
    steps: int,
    peak: float,
    coupled: bool = True,
) -> Problem:
    layout = ParameterLayout.of(model)
    theta = initial_parameters(model, layout, torch.float64)
    pool, unseen = tuple(x[:POOL] for x in rows), tuple(x[POOL:] for x in rows)
    rates = warmup_cosine(steps, peak, warmup=min(5, steps), floor=peak / 10)
    learner = Learner(objective, layout, optimizer, rates, lambda t: _batch(pool, t))

    def joining(params: Params, pair: Rows, others: Rows) -> Tensor:
        joined = tuple(torch.cat([x, y]) for x, y in zip(others, pair, strict=True)) if coupled else pair
        return losses(params, joined)[-1]

    def target(params: Params) -> Tensor:
        device = next(iter(params.values())).device
        return losses(params, tuple(x.to(device) for x in unseen)).mean()

    return Problem(name, learner, optimizer.init(theta), pool, losses, joining, target)


def _batch(pool: Rows, t: int) -> Batch:
    draw = torch.Generator().manual_seed(100 + t)
    device = pool[0].device
    ids = torch.randperm(POOL, generator=draw)[:BATCH].to(device)
    weights = 0.5 + torch.rand(BATCH, generator=draw, dtype=torch.float64).to(device)
    return Batch(tuple(x[ids] for x in pool), ids, weights)


def _normal(draw: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=draw, dtype=torch.float64)


def _seeded(build: Any) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        model: nn.Module = build()
    return model.double()
