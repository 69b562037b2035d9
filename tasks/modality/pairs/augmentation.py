"""Training crops of pictures: open_clip's RandomResizedCrop, as a pure function of seed, round, step and position.

A step of a replay must see the pixels that the first pass saw, whoever reads them and in which order. So position i of
step t's batch has draws of its own, row i of a counter-based stream (Philox) keyed by (seed, round, t), and its box is
a function of these draws and of the picture's size alone: torchvision's rule (`RandomResizedCrop.get_params`), up to
ten attempts, then a centre crop. The box is cut from the picture as it is stored, decoded by the pool's own rule
(`tasks.pool.decoding`), and scaled by Pillow's bicubic filter, to the pixel what open_clip's training transform makes
of the same box. Nothing can be kept decoded at the model's size, so a training decodes whatever it visits.

A candidate of a probe stands in no batch. Its weight multiplies the loss that it would have in step k, which is random
by the crop; a training that draws crops descends on the mean, so what its g estimates is the mean over crops of
<gamma_k, grad l_i>. ``probe_crops`` = m takes the mean of m draws that belong to the sample's uid, the round and the
step, not to the shard or the batch that it is scored in: unbiased, for m passes, and its noise is averaged out over
steps and rounds. 0 takes the view of evaluation, shorter side scaled and centre cropped: no noise, but another picture
where the sides are unequal (crops squeeze what the centre crop cuts off), and that error stays.

Cutting and scaling a picture of 256 pixels to 224 costs three quarters of open_clip's own transform, and 1.7 times the
decoding of its JPEG; the box a hundredth of that (benchmarks/results/augmentation.md). Decoded originals are not kept:
they would save a third of it, for 192 KiB a picture.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import exp, log, sqrt

import numpy as np
import numpy.typing as npt
from PIL import Image

from mgd_core.training.order import generator
from mgd_core.training.streams import CROPS, PROBE_CROPS
from tasks.catalog.pair_catalog import AugmentationOptions
from tasks.modality.pairs.pairs import Images
from tasks.pool.decoding import decode
from tasks.tables.uids import Bytes16

ATTEMPTS, NUMBERS = 10, 4
"""Attempts at a box, as torchvision makes them, and numbers that one takes: area, ratio, top, left."""
Box = tuple[int, int, int, int]
"""Left, top, width and height, pixels."""
Draws = npt.NDArray[np.float64]
"""Of one crop (attempts, numbers), in [0, 1)."""


def training_draws(n: int, seed: int, round: int, step: int) -> Draws:
    """Draws (n, attempts, numbers) of a batch's positions; those of a position do not depend on ``n``."""
    return generator(seed, CROPS, round, step).random((n, ATTEMPTS, NUMBERS))


def probe_draws(uids: Bytes16, crops: int, seed: int, round: int, step: int) -> Draws:
    """Draws (n * crops, attempts, numbers) of candidates, each one's crops in a row; of one, a function of its uid."""
    streams = [int.from_bytes(bytes(uid).ljust(16, b"\0"), "big") for uid in uids]
    found = [generator(seed, PROBE_CROPS, round, step, one).random((crops, ATTEMPTS, NUMBERS)) for one in streams]
    return np.concatenate([np.zeros((0, ATTEMPTS, NUMBERS)), *found])


def crop_box(draws: Draws, width: int, height: int, options: AugmentationOptions) -> Box:
    """The part of a picture that a crop shows: its area a share of the picture's, uniform in ``scale``, its width over
    its height log-uniform in ``ratio``, anywhere; where no attempt fits, the largest centre part of a permitted
    ratio."""
    (least, most), (narrow, wide) = options.scale, options.ratio
    for area, ratio, top, left in draws.tolist():
        pixels = width * height * (least + (most - least) * area)
        aspect = exp(log(narrow) + (log(wide) - log(narrow)) * ratio)
        w, h = round(sqrt(pixels * aspect)), round(sqrt(pixels / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(left * (width - w + 1)), int(top * (height - h + 1)), w, h
    w = min(width, max(1, round(height * wide)))
    h = min(height, max(1, round(width / narrow)))
    return (width - w) // 2, (height - h) // 2, w, h


def cropped(image: Image.Image, box: Box, size: int) -> npt.NDArray[np.uint8]:
    """Pixels (3, size, size) of a part of an RGB picture, its sides scaled each by its own factor (bicubic)."""
    left, top, width, height = box
    # Cut first: scaling by `resize(box=)` would let pixels beyond the part bleed into its edges.
    part = image.crop((left, top, left + width, top + height)).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(part).transpose(2, 0, 1)


def crops_of(found: Iterable[bytes], draws: Draws, size: int, options: AugmentationOptions) -> Images:
    """Crops (len(draws), 3, size, size) of encoded pictures, of each as many in a row as there are draws for it."""
    files = list(found)
    images, each = np.empty((len(draws), 3, size, size), np.uint8), len(draws) // max(1, len(files))
    for i, data in enumerate(files):
        image = decode(data).image
        for at in range(i * each, (i + 1) * each):
            images[at] = cropped(image, crop_box(draws[at], *image.size, options), size)
    return images
