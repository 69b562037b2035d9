"""The demo's CLIP on the first pairs of its embedded pool: a small training of the real kind, in any precision."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mgd_core.autodiff.layout import ParameterLayout
from mgd_core.autodiff.precision import Precision
from mgd_core.models.clip import ClipObjective, build_clip, initial_parameters
from mgd_core.models.zeroshot import ZeroShotTask
from mgd_core.training.learner import Batch, Learner
from mgd_core.training.optimizers import Adam, State
from mgd_core.training.order import DataOrder
from mgd_core.training.schedules import warmup_cosine
from tasks.modality.pairs.vocabulary import used_vocabulary
from tasks.pool.sheets import open_sheet

CATALOGS = Path(__file__).parents[1] / "catalogs"
TEMPLATES = ("a photo of a {}", "a picture of a {}")


@dataclass(frozen=True)
class Size:
    """Pairs of the pool and of the target, and the training, which is differentiated from step ``start`` on."""

    pool: int = 300
    target: int = 150
    steps: int = 40
    batch: int = 48
    warmup: int = 8
    start: int = 8

    @property
    def probe_step(self) -> int:
        """Where candidates join."""
        return max(self.start, self.steps // 4)


QUICK = Size(pool=64, target=24, steps=6, batch=16, warmup=2, start=2)


@dataclass(frozen=True)
class Data:
    """Images (n, 3, S, S) uint8 and tokens (n, L) of the pool; images, labels and class tokens of the target."""

    images: Tensor
    tokens: Tensor
    target: tuple[Tensor, Tensor, Tensor]
    vocabulary: int


def build(
    data: Data, size: Size, device: torch.device, mode: Precision, dtype: torch.dtype
) -> tuple[Learner, State, ZeroShotTask]:
    """The demo's recipe on the data, its first state, and the target, whose loss is always in the state's precision."""
    config = json.loads((CATALOGS / "models" / "fashion.json").read_text())
    text = {**config["text_cfg"], "vocab_size": data.vocabulary}
    model = build_clip(config["embed_dim"], config["vision_cfg"], text, seed=0).to(device, dtype)
    layout = ParameterLayout.of(model)
    theta = initial_parameters(model, layout, dtype)
    optimizer = Adam(b2=0.98, eps=1e-6, weight_decay=0.01, decay_mask=layout.matrix_mask(theta))
    order = DataOrder(np.ones(size.pool, np.int64), size.batch, size.steps, seed=0)

    def batch(t: int) -> Batch:
        ids = torch.from_numpy(order[t])
        rows = (data.images[ids].to(device), data.tokens[ids].to(device))
        return Batch(rows, ids.to(device), torch.ones(size.batch, device=device, dtype=dtype))

    objective, rates = ClipObjective(model), warmup_cosine(size.steps, 1e-3, size.warmup)
    images, labels, classes = (x.to(device) for x in data.target)
    target = ZeroShotTask(objective, layout, images, labels, classes)
    return Learner(mode.around(objective), layout, optimizer, rates, batch), optimizer.init(theta), target


@cache
def pairs(size: Size) -> Data:
    """The first pairs of the embedded pool and the first pictures of its target."""
    sheet = open_sheet(CATALOGS / "pools" / "fashion")
    texts = sheet.rows("pool")["text"].to_pylist()[: size.pool]
    names = sheet.rows("target")["label"].to_pylist()
    classes = sorted(set(names))
    prompts = [template.format(name) for name in classes for template in TEMPLATES]
    config = json.loads((CATALOGS / "models" / "fashion.json").read_text())
    vocabulary = used_vocabulary([*texts, *prompts], config["text_cfg"]["context_length"])
    side = config["vision_cfg"]["image_size"]
    images, pictures = (
        torch.from_numpy(np.stack([_resized(tile, side) for tile in sheet.images(split)[:n]]))
        for split, n in (("pool", size.pool), ("target", size.target))
    )
    labels = torch.tensor([classes.index(name) for name in names[: size.target]])
    class_tokens = vocabulary.tokens(prompts).view(len(classes), len(TEMPLATES), -1)
    return Data(images, vocabulary.tokens(texts), (pictures, labels, class_tokens), vocabulary.size)


def _resized(tile: np.ndarray, side: int) -> np.ndarray:
    """A grey tile (h, w, 1) as RGB pixels (3, side, side)."""
    picture = Image.fromarray(tile[..., 0]).convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(picture).transpose(2, 0, 1)
