"""What does the precision of the arithmetic do to the metagradient?

`python -m benchmarks.precision` trains the demo's CLIP (catalogs/models/fashion.json) on a few hundred pairs of its
embedded pool, differentiates the loss of its zero-shot target from the end of the warm-up on (`--start` for
another window), and does so again in float32, in TF32 (with a CUDA device) and with the encoders in bfloat16. The
gradient of a step is computed again, or read back from the moments, (m' - b1 m) / (1 - b1), which loses a few bits.
Every run trains in its own precision, as it would
without the others. For both surrogates, `path` (weights of the visits) and `probe` (joining step k), the g of all
samples is compared with float64: Spearman's rank correlation, the share of equal signs, and the Euclidean error.

Where the engine cannot run a precision, the row says so.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: see benchmarks.reverse_step

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks._envelope import emit
from mgd_core.clip import ClipObjective, build_clip, initial_parameters
from mgd_core.determinism import deterministic
from mgd_core.layout import ParameterLayout
from mgd_core.learner import Batch, Learner
from mgd_core.optimizers import Adam, State
from mgd_core.order import DataOrder
from mgd_core.plans import keep_all
from mgd_core.precision import BFLOAT16, FLOAT32, TF32, Precision
from mgd_core.probe import Probe
from mgd_core.replay import replay
from mgd_core.schedules import warmup_cosine
from mgd_core.zeroshot import ZeroShotTask
from tasks.modality.pairs.vocabulary import used_vocabulary
from tasks.sheets import open_sheet

CATALOGS = Path(__file__).parents[1] / "catalogs"
TEMPLATES = ("a photo of a {}", "a picture of a {}")
THREADS = 2


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


@dataclass(frozen=True)
class Scores:
    """phi of a run, and the g (pool size,) of both surrogates, in float64 on the CPU."""

    phi: float
    path: Tensor
    probe: Tensor


@dataclass(frozen=True)
class Agreement:
    """Of one g with the reference: Spearman's rank correlation, share of equal signs, relative Euclidean error."""

    rank: float
    sign: float
    error: float


@dataclass(frozen=True)
class Row:
    """One precision and one source of the gradient; ``failure`` says why there are no figures."""

    mode: str
    state: str
    from_moments: bool
    seconds: float
    phi: float | None = None
    path: Agreement | None = None
    probe: Agreement | None = None
    failure: str | None = None


def main() -> None:
    """Print a table and the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer steps and pairs: under 45 s")
    parser.add_argument("--start", type=int, help="first step that is differentiated")
    options = parser.parse_args()
    size = QUICK if options.quick else Size()
    size = size if options.start is None else dataclasses.replace(size, start=options.start)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(
        f"{size.pool} pairs, batch {size.batch}, {size.steps} steps, window from step {size.start}, "
        f"probe at step {size.probe_step}, on {device}"
    )
    print(f"{'precision':<22}{'gradient':<13}{'phi':>9}{'path rank':>11}{'sign':>7}{'error':>9}", end="")
    print(f"{'probe rank':>12}{'sign':>7}{'error':>9}{'s':>7}")
    with deterministic(THREADS):
        reference = scores(size, device, FLOAT32, torch.float64, False)
        rows = [measured(size, device, mode, dtype, moments, reference) for mode, dtype, moments in runs(device)]
    emit("precision", figures(rows, size, device))


def runs(device: torch.device) -> list[tuple[Precision, torch.dtype, bool]]:
    """Precision, type of the state, and whether the gradient is read back from the moments."""
    both = [FLOAT32, *[TF32] * (device.type == "cuda"), BFLOAT16]
    single = [(mode, torch.float32, moments) for mode in both for moments in (False, True)]
    return [(FLOAT32, torch.float64, True), *single]


def measured(
    size: Size, device: torch.device, mode: Precision, dtype: torch.dtype, from_moments: bool, reference: Scores
) -> Row:
    """One line of the table."""
    began, state = time.perf_counter(), str(dtype).removeprefix("torch.")
    name = state if mode is FLOAT32 else mode.name
    try:
        found = scores(size, device, mode, dtype, from_moments)
        path, probe = agreement(found.path, reference.path), agreement(found.probe, reference.probe)
        row = Row(name, state, from_moments, time.perf_counter() - began, found.phi, path, probe)
    except RuntimeError as error:
        failure = f"{type(error).__name__}: {error}"
        row = Row(name, state, from_moments, time.perf_counter() - began, failure=failure)
    show(row)
    return row


def show(row: Row) -> None:
    """A line of the table."""
    head = f"{row.mode:<22}{'from moments' if row.from_moments else 'again':<13}"
    if row.path is None or row.probe is None:
        print(f"{head}  failed: {row.failure}", flush=True)
        return
    path, probe = (f"{x.rank:.6f}{x.sign:>7.3f}{x.error:>9.1e}" for x in (row.path, row.probe))
    print(f"{head}{row.phi:>9.5f}{path:>27}{probe:>28}{row.seconds:>7.1f}", flush=True)


def figures(rows: list[Row], size: Size, device: torch.device) -> dict[str, object]:
    """The JSON figures."""
    ran = {f"{row.mode}{', from moments' * row.from_moments}": row for row in rows}
    return {
        "device": str(device),
        "size": dataclasses.asdict(size),
        "rank_path": {name: row.path and row.path.rank for name, row in ran.items()},
        "rank_probe": {name: row.probe and row.probe.rank for name, row in ran.items()},
        "sign_path": {name: row.path and row.path.sign for name, row in ran.items()},
        "sign_probe": {name: row.probe and row.probe.sign for name, row in ran.items()},
        "failures": {name: row.failure for name, row in ran.items() if row.failure},
        "rows": [dataclasses.asdict(row) for row in rows],
    }


def scores(size: Size, device: torch.device, mode: Precision, dtype: torch.dtype, from_moments: bool) -> Scores:
    """Train, differentiate and probe in one precision."""
    data = pairs(size)
    with mode.switched():
        learner, initial, target = build(data, size, device, mode, dtype)
        plan, k = keep_all(size.start, size.steps), size.probe_step
        found = replay(learner, initial, target.target, plan, size.pool, [k], from_moments)
        rows = (data.images.to(device), data.tokens.to(device))
        _, g = Probe(learner, found.probes[0]).scores(rows, torch.arange(size.pool, device=device))
    return Scores(found.phi.item(), found.example.double().cpu(), g.double().cpu())


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


def agreement(found: Tensor, reference: Tensor) -> Agreement:
    """Of two vectors (n,)."""
    a, b = (x.argsort().argsort().double() for x in (found, reference))
    rank = torch.corrcoef(torch.stack([a, b]))[0, 1].item()
    sign = (found.sign() == reference.sign()).double().mean().item()
    return Agreement(rank, sign, ((found - reference).norm() / reference.norm()).item())


if __name__ == "__main__":
    main()
