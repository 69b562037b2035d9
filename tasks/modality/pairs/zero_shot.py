"""Zero-shot tasks: of a sheet, images of one split, classes named by a column, class texts from another; or one part
of an evaluation set. No sample stands in two of target, held-out target and tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mgd_core.autodiff.layout import ParameterLayout
from mgd_core.models.clip import ClipObjective
from mgd_core.models.zeroshot import Temperature, ZeroShotTask
from tasks.catalog.files import CatalogError
from tasks.catalog.target_options import PartsOptions, TaskOptions, in_template
from tasks.catalog.task_kinds import check_use
from tasks.evaluation.eval_sets import is_eval_set
from tasks.files.remote_files import Reader
from tasks.modality.pairs.set_targets import levelled, load_part
from tasks.modality.pairs.vocabulary import Vocabulary
from tasks.pool.decoding import pixel_digest, resized
from tasks.pool.sheets import TILES, TileSheet, open_sheet

POOL_SPLIT = "pool"
TEMPLATE = "a photo of a {}"


@dataclass(frozen=True)
class TaskData:
    """Images (n, 3, S, S) uint8, labels (n,) and, for each class, the texts that describe it (repeated to one
    length)."""

    images: Tensor
    labels: Tensor
    classes: list[str]
    class_texts: list[list[str]]
    identities: list[str]
    """What each image (n,) is known by, wherever it stands: its decoded pixels."""
    places: list[str]
    """File and member of each image (n,)."""
    told: str = ""
    """What was read, and what was not."""

    def only(self, kept: Sequence[int]) -> TaskData:
        """The same task with these of its images; all classes stay."""
        at = list(kept)
        identities, places = [self.identities[i] for i in at], [self.places[i] for i in at]
        return replace(self, images=self.images[at], labels=self.labels[at], identities=identities, places=places)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def texts(self) -> list[str]:
        """All class texts, class after class."""
        return [text for texts in self.class_texts for text in texts]

    def bind(
        self, objective: ClipObjective, layout: ParameterLayout, vocabulary: Vocabulary, temperature: Temperature
    ) -> ZeroShotTask:
        """The task for a model, on the model's device."""
        device = next(objective.model.parameters()).device
        tokens = class_tokens(self.class_texts, vocabulary)
        images, labels, tokens = (x.to(device) for x in (self.images, self.labels, tokens))
        return ZeroShotTask(objective, layout, images, labels, tokens, temperature)


def class_tokens(class_texts: Sequence[Sequence[str]], vocabulary: Vocabulary) -> Tensor:
    """Tokens (classes, texts, L) of the texts of classes; raises CatalogError where a model reads all as one."""
    texts = [text for own in class_texts for text in own]
    # Tokens of a test that pool and target do not have, have no embedding: left out, as in evaluations.
    tokens = vocabulary.known_tokens(texts)[0].view(len(class_texts), len(class_texts[0]), -1)
    if len(class_texts) > 1 and (tokens == tokens[:1]).all():
        raise CatalogError(
            f"the model reads the same text for all {len(class_texts)} classes, such as {texts[0][:60]!r}: "
            f"of a text it reads {vocabulary.context_length} tokens (text_cfg.context_length), two of them ends. "
            "Take shorter templates, with the class nearer to their beginning, or a longer context_length"
        )
    return tokens


def load_task(
    options: TaskOptions, size: int, parts: PartsOptions | None = None, reader: Reader | None = None
) -> TaskData:
    """Images and classes of a task at ``size`` pixels.

    Raises:
        CatalogError: a split or column is not in the sheet, or the task has no images or fewer than two
        classes.
        EvalSetError: the evaluation set cannot be used as it is.
    """
    check_use(options)
    if is_eval_set(options.source):
        part = load_part(options, parts or PartsOptions(), size, reader)
        images = torch.from_numpy(part.images)
        known = part.digests, part.places, part.told
        return TaskData(images, torch.tensor(part.labels), part.classes, part.class_texts, *known)
    return _load_sheet_task(options, size)


def _load_sheet_task(options: TaskOptions, size: int) -> TaskData:
    if options.classes is None:
        raise CatalogError(
            f"task on split '{options.split}' of {options.source}: a sheet needs `classes`, the column that names the "
            "class of an image"
        )
    sheet = open_sheet(Path(options.source))
    where = f"task on split '{options.split}' of {options.source}"
    if options.split not in sheet.splits:
        raise CatalogError(f"{where}: no such split; there are {', '.join(sorted(sheet.splits))}")
    splits = options.texts_splits or tuple(sorted(set(sheet.splits) - {POOL_SPLIT}))
    for column in filter(None, (options.classes, options.texts)):
        if column not in sheet.columns:
            raise CatalogError(f"{where}: no column '{column}'; there are {', '.join(sheet.columns)}")
    described = _class_texts(options, [row for split in splits for row in sheet.rows(split).to_pylist()])
    labels = sheet.rows(options.split)[options.classes].to_pylist()
    unknown = sorted({str(label) for label in labels if label not in described})
    if len(described) < 2 or not labels or unknown:
        raise CatalogError(
            f"{where}: a zero-shot target needs images and at least two classes with texts; column "
            f"'{options.classes}' has {len(described)} classes in splits {', '.join(splits)}, the split has "
            f"{len(labels)} images" + (f", and classes without texts: {', '.join(unknown[:5])}" if unknown else "")
        )
    classes = sorted(described)
    position = {name: i for i, name in enumerate(classes)}
    tiles = [Image.fromarray(_rgb(tile)) for tile in sheet.images(options.split)]
    images = np.stack([resized(tile, size) for tile in tiles])
    return TaskData(
        torch.from_numpy(images),
        torch.tensor([position[label] for label in labels]),
        classes,
        [described[name] for name in classes],
        [pixel_digest(tile).hex() for tile in tiles],
        [f"{options.source}/{TILES}, tile {tile}" for tile in sheet.rows(options.split)["tile"].to_pylist()],
        _told(options, sheet),
    )


def _told(options: TaskOptions, sheet: TileSheet) -> str:
    n = sheet.splits[options.split]
    return f"{n:,} of the {sheet.table.num_rows:,} tiles in {options.source}: its split '{options.split}'"


def _class_texts(options: TaskOptions, rows: list[dict[str, object]]) -> dict[str, list[str]]:
    """For each class, the same number of texts: its distinct values (evenly chosen, or repeated) in all templates."""
    values: dict[str, set[str]] = {}
    for row in rows:
        name, text = row[str(options.classes)], row[options.texts or str(options.classes)]
        if name is not None and text is not None:
            values.setdefault(str(name), set()).add(str(text).replace("-", " "))
    chosen = levelled([sorted(own) for own in values.values()], options.max_texts)
    templates = options.templates or (TEMPLATE,)
    told = [[in_template(template, text) for text in own for template in templates] for own in chosen]
    return dict(zip(values, told, strict=True))


def _rgb(tile: np.ndarray) -> np.ndarray:
    return np.repeat(tile, 3, axis=2) if tile.shape[2] == 1 else tile
