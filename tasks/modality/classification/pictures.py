"""Labelled pictures of a tile sheet, as the tensors that a classifier is trained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tasks.catalog.files import CatalogError
from tasks.catalog.study_options import DataOptions
from tasks.files.artefacts import digest
from tasks.pool.sheets import TileSheet, open_sheet

MEAN, SPREAD = 0.4, 0.3  # of pixels in [0, 1]: between Fashion-MNIST (.29, .35) and CIFAR-10 (.47, .25)


@dataclass(frozen=True)
class Pictures:
    """A split: uids (n,), pixels (n, channels, side, side) in units of SPREAD about MEAN, classes (n,) int64."""

    uids: list[str]
    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.uids)


def load_pictures(options: DataOptions) -> tuple[list[str], Pictures, Pictures, Pictures]:
    """Class names in the order of their numbers, and the splits train, target and test.

    Raises:
        CatalogError: a column is not there, or a split has no picture left.
    """
    sheet = open_sheet(options.source)
    for column in (options.labels, options.where):
        if column is not None and column not in sheet.columns:
            raise CatalogError(f"{options.source}: no column '{column}'; the sheet has {', '.join(sheet.columns)}")
    classes = sorted(set(sheet.rows(options.train)[options.labels].to_pylist()))
    limits = {"train": options.examples, "target": options.target_examples, "test": options.test_examples}
    splits = [_split(sheet, options, getattr(options, part), limit, classes) for part, limit in limits.items()]
    return classes, *splits  # type: ignore[return-value]


def _split(sheet: TileSheet, options: DataOptions, split: str, limit: int | None, classes: list[str]) -> Pictures:
    rows = sheet.rows(split)
    keep = np.arange(rows.num_rows)
    if options.where is not None:
        keep = np.flatnonzero([x is not False for x in rows[options.where].to_pylist()])
    keep = keep[:limit]
    if not len(keep):
        raise CatalogError(f"{options.source}: split '{split}' has no picture left where {options.where} is true")
    labels = rows[options.labels].take(keep).to_pylist()
    foreign = sorted({str(label) for label in labels} - set(classes))
    if foreign:
        raise CatalogError(f"{options.source}: split '{split}' has classes that the training lacks: {foreign}")
    images = torch.from_numpy(sheet.images(split)[keep].astype(np.float32) / 255).permute(0, 3, 1, 2)
    if options.side is not None and options.side != images.shape[-1]:
        images = F.adaptive_avg_pool2d(images, options.side)
    shifted = (images.contiguous() - MEAN) / SPREAD
    uids = [str(uid) for uid in rows["uid"].take(keep).to_pylist()]
    return Pictures(uids, shifted, torch.tensor([classes.index(label) for label in labels]))


def digest_of(classes: list[str], *splits: Pictures) -> str:
    """Digest of all that a study shows its models."""
    tensors = [x.contiguous().numpy().tobytes() for split in splits for x in (split.pixels, split.labels)]
    return digest([classes, *(split.uids for split in splits), *(digest(x) for x in tensors)])
