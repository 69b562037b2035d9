"""Evaluation sets in clip_benchmark's form under DataComp's names, of the embedded pools' held-out pictures.

Eight are of some size, and targets: five classifications (two of them by mean recall of the classes, one with a folder
`train`), two retrievals, and one of several labels a picture (which is none of DataComp's tasks). The other tasks of
DataComp get a few pictures each in a folder of their own, so that its averages over 38 can be had: their scores mean
nothing.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.rehearsal.pool import SIDE, pictured
from tasks.evaluation.datacomp import tasks
from tasks.evaluation.eval_sets import FAIRNESS, folder_names
from tasks.evaluation.fairness import QUESTIONS
from tasks.files.package_data import CATALOGS
from tasks.pool.sheets import TileSheet, open_sheet
from testing.eval_set_files import npy, write_set

TEMPLATES = ("a photo of a {c}", "a picture of a {c}", "a drawing of a {c}")
MULTILABEL = "wds_voc2007_multilabel_test"
TRAINED = "vtab/caltech101"
"""The one that has a folder `train`."""
RETRIEVAL = ("retrieval/flickr_1k_test_image_text_retrieval", "retrieval/mscoco_2014_5k_test_image_text_retrieval")
FEW = 12
"""Pictures of a set of the others."""
ANSWERS = {"race": 3, "gender": 2, "age": 3, "toxic": 20}
"""Classes of each question that is asked of faces."""


def write_sets(directory: Path, rest: Path, size: int) -> list[Path]:
    """Write the eight with ``size`` pictures each (fewer where there are not as many) and, into ``rest``, the others;
    returns the eight."""
    clothes, emoji = (open_sheet(CATALOGS / "pools" / name) for name in ("fashion", "emoji"))
    folder = {key: name for name, key in folder_names().items()}
    made = []
    for key, sheet, split, column, at in (
        ("imagenet1k", clothes, "test", "label", 0),
        ("imagenetv2", clothes, "target", "label", 0),
        (TRAINED, clothes, "heldout", "label", 0),
        ("vtab/cifar100", emoji, "test", "subgroup", 0),
        ("vtab/flowers", emoji, "test", "group", size),
    ):
        made.append(_classification(directory / folder[key], *_labelled(sheet, split, column, at, size)))
    _classification(directory / folder[TRAINED], *_labelled(clothes, "target", "label", size, size), "train")
    for key, split, at in zip(RETRIEVAL, ("test", "target"), (2 * size, 0), strict=True):
        rows, tiles = _part(emoji, split, at, size)
        samples = [
            {"png": _png(tile), "txt": f"{row['text']}\na drawing of {row['text']}".encode()}
            for row, tile in zip(rows, tiles, strict=True)
        ]
        made.append(write_set(directory / folder[key], samples, kind="retrieval", per_shard=200))
    made.append(_multilabel(directory / MULTILABEL, *_part(clothes, "test", size, 2 * size)))
    there = {path.name for path in made}
    for number, key in enumerate(key for key in tasks() if folder[key] not in there):
        rows, tiles = _part(clothes, "test", number * FEW % 1000, FEW)
        _other(rest / folder[key], key, [str(row["label"]) for row in rows], tiles)
    return made


def _labelled(sheet: TileSheet, split: str, column: str, at: int, n: int) -> tuple[npt.NDArray[np.uint8], list[str]]:
    rows, tiles = _part(sheet, split, at, n)
    return tiles, [str(row[column]) for row in rows]


def _part(sheet: TileSheet, split: str, at: int, n: int) -> tuple[list[dict[str, Any]], npt.NDArray[np.uint8]]:
    return sheet.rows(split).slice(at, n).to_pylist(), sheet.images(split)[at : at + n]


def _png(tile: npt.NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    pictured(tile).save(buffer, "PNG")
    return buffer.getvalue()


def _classification(directory: Path, tiles: npt.NDArray[np.uint8], labels: list[str], folder: str = "test") -> Path:
    names = sorted(set(labels))
    samples = [
        {"cls": str(names.index(label)).encode(), "png": _png(tile)} for label, tile in zip(labels, tiles, strict=True)
    ]
    return write_set(directory, samples, names, TEMPLATES, per_shard=200, folder=folder)


def _multilabel(directory: Path, rows: list[dict[str, Any]], tiles: npt.NDArray[np.uint8]) -> Path:
    """Two pieces of clothing side by side in each picture."""
    labels = [str(row["label"]) for row in rows]
    names, samples = sorted(set(labels)), []
    for i in range(0, len(labels) - 1, 2):
        picture = Image.new("RGB", (SIDE, SIDE))
        for side, tile in enumerate(tiles[i : i + 2]):
            picture.paste(pictured(tile).resize((SIDE // 2, SIDE)), (side * SIDE // 2, 0))
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        truth = np.array([name in labels[i : i + 2] for name in names], np.float32)
        samples.append({"npy": npy(truth), "png": buffer.getvalue()})
    return write_set(directory, samples, names, TEMPLATES, "multilabel", per_shard=200)


def _other(directory: Path, key: str, labels: list[str], tiles: npt.NDArray[np.uint8]) -> None:
    """A set of a few pictures, with what its task asks of its samples."""
    pictures, n = [_png(tile) for tile in tiles], len(labels)
    if key in FAIRNESS:
        names = [f"{asked}:{asked} {i}" for asked in QUESTIONS for i in range(ANSWERS[asked])]
        people = [{"npy": npy([i % 3, i % 2, i % 3, i % 2]), "png": data} for i, data in enumerate(pictures)]
        write_set(directory, people, names, [f"{asked}:a {{c}}" for asked in QUESTIONS])
    elif key.startswith("misc/"):
        one = {f"{i}.png": data for i, data in enumerate(pictures)}
        truth = [int(label == labels[0]) for label in labels]
        write_set(directory, [{**one, "npy": npy(truth), "txt": labels[0].encode()}], kind="association")
    else:
        names = sorted(set(labels))
        groups = [{"npy": npy([i % 3, i % 2, 0])} if key.startswith(("wilds/", "fairness/")) else {} for i in range(n)]
        samples = [
            {"cls": str(names.index(label)).encode(), "png": data, **group}
            for label, data, group in zip(labels, pictures, groups, strict=True)
        ]
        write_set(directory, samples, names, TEMPLATES)
