"""A tiny curation towards three tasks: classes of a sheet, a retrieval set and a multilabel set."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tasks.files.package_data import CATALOGS
from tasks.pool.sheets import open_sheet
from testing.eval_set_files import npy, png, write_set
from testing.small_catalog import CATALOG, small_catalog

WEIGHTS = {"clothes": 1.0, "captions": 2.0, "labels": 0.5}
TASKS = """
[targets]
parts = { target = 0.5, heldout = 0.3, test = 0.2 }
per_task = "every"
[targets.tasks.labels]
source = "wds_labels_test"
weight = 0.5
[targets.tasks.captions]
source = "wds_captions_test"
weight = 2.0
[targets.tasks.clothes]
source = "sheet"
classes = "label"
"""
ONE_TARGET = CATALOG[CATALOG.index("[targets.target]") : CATALOG.index("[model]")]
SUBSETS = 'subsets = ["everything", "random", "loss_filter", "own_clip_filter", "mgd", "oracle"]'
PICTURES = 40
"""Of each set, from other places of the sheet's pool than the training pairs."""


def small_tasks(directory: Path, *changes: tuple[str, str]) -> Path:
    """Write sheet, sets, model and catalog into ``directory``; ``changes`` as in `small_catalog`. Returns its path."""
    sheet = open_sheet(CATALOGS / "pools" / "fashion")
    images, names = sheet.images("test"), sheet.rows("test")["label"].to_pylist()
    classes = sorted(set(names))
    first, second = range(1000, 1000 + PICTURES), range(1000 + PICTURES, 1000 + 2 * PICTURES)
    captioned = [
        {"png": png(_rgb(images[i])), "txt": f"a photo of a {names[i]}\nthe {names[i]}".encode()} for i in first
    ]
    kinds = {"upper": {"coat", "pullover", "shirt", "top", "t-shirt", "dress"}, "worn on feet": {"boot", "sandal"}}
    labelled = [
        {"png": png(_rgb(images[i])), "npy": npy([int(names[i] in own) for own in kinds.values()] + [int(i % 3 == 0)])}
        for i in second
    ]
    write_set(directory / "wds_captions_test", captioned, kind="retrieval")
    write_set(directory / "wds_labels_test", labelled, [*kinds, classes[0]], kind="multilabel")
    fewer = (SUBSETS, 'subsets = ["everything", "mgd"]')
    return small_catalog(directory, (ONE_TARGET, TASKS), fewer, *changes)


def _rgb(tile: np.ndarray) -> np.ndarray:
    return np.repeat(tile, 3, axis=2) if tile.shape[2] == 1 else tile
