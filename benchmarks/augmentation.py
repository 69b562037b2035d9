"""Training crops: what they cost beside open_clip's own, whether they are its pixels, and what a probe should see.

`python -m benchmarks.augmentation [--quick]`. Microseconds a sample on one thread (`us_*`), medians of passes in which
all sides take turns over the same JPEGs of 256 x 256 to 224 pixels:

* `us_box`: the draws of a batch and its boxes; `us_torchvision_box`: RandomResizedCrop.get_params;
* `us_crop`: box, cut, bicubic, into the batch; `us_open_clip`: open_clip's training transform to pixels, and
  `us_open_clip_tensor` with its normalised tensor as well; `ratio`: `us_crop` / `us_open_clip`;
* `us_decode`, `us_whole`: decoding, and the centre crop of a training without augmentation; `us_kept`: a crop of the
  decoded picture read from a memory map, at `kept_bytes` each, which is what keeping decoded originals would buy.

`mismatched_pixels`, `mismatched_boxes`: against open_clip's transform given the same box, and torchvision's rule given
the same numbers. `exactness`: the metagradient in float64 through a training of crops against naive autograd on
open_clip's. `bits_after_kill`: bytes of tables that differ after SIGKILLs in the reverse sweep and the probes.

`probe_*`: correlation over samples of g by the whole picture, or by the mean of m crops, with the mean of `MANY` other
crops, on square pictures and on ones a third wider than high (`wide`); `noise`: the share of the variance of one crop's
g that is noise of the crop.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from open_clip.transform import image_transform
from PIL import Image
from torchvision.transforms import RandomResizedCrop

from benchmarks._envelope import emit
from catalogs.pools.cutting import lay_out, write_sheet
from mgd_core.engine.probe import Probe
from mgd_core.engine.replay import replay
from mgd_core.plans.plan import binomial, keep_all
from mgd_core.training.learner import Batch
from tasks.catalog.pair_catalog import AugmentationOptions
from tasks.modality.pairs.augmentation import crop_box, cropped, crops_of, training_draws
from tasks.modality.pairs.modality import PairRecipe
from tasks.modality.recipe import Scores
from tasks.modality.registry import open_recipe
from tasks.pool.decoding import decode, resized
from tasks.pool.sheets import TileSheet, open_sheet
from testing.children import CHILDREN
from testing.crops import (
    begin,
    begun,
    cropped_problem,
    cut_by_open_clip,
    open_clip_crop,
    picture_file,
    torchvision_box,
)
from testing.oracles import NaiveRun, relative_error
from testing.small_catalog import curate_plainly, published, small_catalog

CROPS = AugmentationOptions()
SIDE, SIZE = 256, 224
WINDOW = 20
"""Steps that are differentiated for a probe."""
MANY = 32
"""Crops whose mean stands for that of all."""
SHAPES = ((256, 256), (320, 240), (240, 320), (640, 400), (1000, 300), (90, 700), (224, 224), (31, 40), (1, 9))
FORMS = (("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "P"), ("PNG", "RGBA"), ("WEBP", "RGB"))
ONLY = ('subsets = ["everything", "random", "loss_filter", "own_clip_filter", "mgd", "oracle"]', 'subsets = ["mgd"]')


def speed(samples: int, passes: int) -> dict[str, float]:
    """Microseconds a sample of every part, in turns."""
    files = [picture_file(SIDE, SIDE, seed) for seed in range(samples)]
    images = [decode(data).image for data in files]
    draws = training_draws(samples, 0, 0, 0)
    pixels = image_transform(SIZE, is_train=True).transforms[:2]
    whole = image_transform(SIZE, is_train=True)
    out = np.empty((samples, 3, SIZE, SIZE), np.uint8)
    with tempfile.NamedTemporaryFile() as kept:
        np.stack([np.asarray(image) for image in images]).tofile(kept.name)
        mapped = np.memmap(kept.name, np.uint8, "r", shape=(samples, SIDE, SIDE, 3))

        def crop(of: Callable[[int], Image.Image]) -> None:
            for i in range(samples):
                out[i] = cropped(of(i), crop_box(draws[i], SIDE, SIDE, CROPS), SIZE)

        def open_clips() -> None:
            for i, image in enumerate(images):
                out[i] = np.asarray(pixels[1](pixels[0](image))).transpose(2, 0, 1)

        work: dict[str, Callable[[], object]] = {
            "us_box": lambda: [crop_box(one, SIDE, SIDE, CROPS) for one in training_draws(samples, 0, 0, 1)],
            "us_torchvision_box": lambda: [
                RandomResizedCrop.get_params(image, CROPS.scale, CROPS.ratio) for image in images
            ],
            "us_crop": lambda: crop(images.__getitem__),
            "us_open_clip": open_clips,
            "us_open_clip_tensor": lambda: [whole(image) for image in images],
            "us_decode": lambda: [decode(data) for data in files],
            "us_whole": lambda: [resized(image, SIZE) for image in images],
            "us_kept": lambda: crop(lambda i: Image.fromarray(mapped[i])),
            "us_decoded_and_cropped": lambda: crops_of(files, draws, SIZE, CROPS),
        }
        seconds: dict[str, list[float]] = {name: [] for name in work}
        for number in range(passes + 1):
            for name, part in work.items():
                began = time.thread_time()
                part()
                if number:  # the first warms up
                    seconds[name].append(time.thread_time() - began)
    found = {name: 1e6 * median(taken) / samples for name, taken in seconds.items()}
    turns = zip(seconds["us_crop"], seconds["us_open_clip"], strict=True)
    return {**found, "ratio": median(ours / theirs for ours, theirs in turns), "kept_bytes": float(SIDE * SIDE * 3)}


def mismatches(draws_each: int) -> dict[str, int]:
    """Pixels and boxes that are not open_clip's and torchvision's."""
    pixels = boxes = compared = 0
    for number, (width, height) in enumerate(SHAPES):
        for form, mode in FORMS:
            data = picture_file(width, height, number, form, mode)
            image, draws = decode(data).image, training_draws(draws_each, number, 0, 0)
            for one, crop in zip(draws, crops_of([data], draws, SIZE, CROPS), strict=True):
                box = crop_box(one, width, height, CROPS)
                pixels += int((crop != open_clip_crop(image, box, SIZE)).sum())
                boxes += box != torchvision_box(one, width, height, CROPS.scale, CROPS.ratio)
                compared += 1
    return {"compared": compared, "mismatched_pixels": pixels, "mismatched_boxes": boxes}


def exactness(place: Path) -> float:
    """Relative error of the path metagradient of all samples, binomial plan of two slots, float64."""
    on = ("[descent]", "[augmentation]\nscale = [0.3, 0.9]\n[descent]")
    with open_recipe(begun(place, on, ("batch = 32", "batch = 12\neps_root = 1e-4"))) as recipe:
        assert isinstance(recipe, PairRecipe)
        problem, start = cropped_problem(recipe), 2
        expected = NaiveRun(cut_by_open_clip(recipe, problem), start).gradient().example
        plan = binomial(start, problem.learner.steps, 2)
        found = replay(problem.learner, problem.initial, problem.phi_and_gradient, plan, len(recipe))
        return relative_error(found.example, expected)


def kill(place: Path) -> dict[str, int]:
    """A round killed in the reverse sweep and in its probes, beside one that was left alone."""
    on = ("[descent]", "[augmentation]\nscale = [0.3, 0.9]\nprobe_crops = 2\n[descent]")
    changes = (on, ONLY, ("rounds = 2", "checkpoint_steps = 1\nrounds = 1"))
    expected = published(curate_plainly(small_catalog(place / "whole", *changes), place / "whole" / "home"))
    catalog, home = small_catalog(place / "killed", *changes), place / "killed" / "home"
    kills = 0
    for milestone in ("work/round-000/states/reverse.safetensors", "work/round-000/probe-shards-00001-tar-*.json"):
        child = CHILDREN.Process(target=curate_plainly, args=(catalog, home))
        child.start()
        while child.is_alive() and not list(home.glob(f"runs/*/{milestone}")):
            time.sleep(0.01)
        kills += child.is_alive()
        child.kill()
        child.join()
    found = published(curate_plainly(catalog, home))
    differing = sum(found.get(name) != data for name, data in expected.items()) + len(found.keys() - expected.keys())
    return {"kills": kills, "bits_after_kill": differing}


def probe_views(place: Path, steps: int, wide: bool) -> dict[str, float]:
    """How well g by the whole picture, and by m crops, foretells the mean over crops."""
    on = ("[descent]", f"[augmentation]\nprobe_crops = {MANY + 4}\n[descent]")
    window = ("window_start = 4\nprobe_steps = [4, 6]", f"window_start = {steps - WINDOW}")
    path = small_catalog(place, on, ("steps = 8", f"steps = {steps}"), window)
    if wide:
        widen(open_sheet(place / "sheet"), place / "sheet")
    with open_recipe(begin(path)) as recipe:
        learner, state = recipe.learner()
        step, ids, target = steps - WINDOW, np.arange(len(recipe)), recipe.targets(learner).target.target
        (point,) = replay(learner, state, target, keep_all(step, steps), len(recipe), [step]).probes
        probe = Probe(learner, point)

        def scores(batches: Iterable[Batch]) -> Scores:
            return np.concatenate([probe.scores(b.rows, b.ids)[1].double().numpy() for b in batches])

        crops = scores(recipe.candidates(ids, 0, step)).reshape(len(ids), -1)
        by = {"whole": scores(recipe.batches([ids])), **{f"{m}": crops[:, :m].mean(1) for m in (1, 2, 4)}}
    mean = crops[:, 4:].mean(1)
    found = {f"probe_{name}": float(np.corrcoef(g, mean)[0, 1]) for name, g in by.items()}
    return {**found, "probe_noise": float(crops.var(1, ddof=1).mean() / crops.var())}


def widen(sheet: TileSheet, place: Path) -> None:
    """The sheet with tiles a third wider: what is added shows the side of another picture."""
    added = sheet.tiles.shape[2] // 3
    tiles = np.concatenate([np.roll(sheet.tiles, 1, 0)[:, :, -added:], sheet.tiles], 2)
    picture = lay_out(tiles, 16)
    meta = {**sheet.meta, "tile_width": tiles.shape[2], "tiles_per_row": 16}
    write_sheet(place, Image.fromarray(picture[:, :, 0]), sheet.table, meta)


def main() -> None:
    """Measure, print a table, and the figures as one line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer pictures, passes, kills' rounds and steps")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    figures: dict[str, Any] = speed(*((40, 5) if quick else (300, 15))) | mismatches(3 if quick else 40)
    with tempfile.TemporaryDirectory() as scratch:
        figures |= {"exactness": exactness(Path(scratch) / "exact")} | kill(Path(scratch) / "kill")
        for shape in ("square", "wide"):
            views = probe_views(Path(scratch) / shape, 60 if quick else 400, shape == "wide")
            figures |= {f"{name}_{shape}": value for name, value in views.items()}
    for name, value in figures.items():
        print(f"{name:<24} {value:>14.4g}")
    emit("augmentation", figures)


if __name__ == "__main__":
    main()
