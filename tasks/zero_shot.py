"""Zero-shot tasks: of a sheet, images of one split, classes named by a column, class texts from another; or one part
of an evaluation set. No sample stands in two of target, held-out target and tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mgd_core.clip import ClipObjective
from mgd_core.layout import ParameterLayout
from mgd_core.zeroshot import Temperature, ZeroShotTask
from tasks.catalog import CatalogError
from tasks.pairs import resized
from tasks.remote_files import Reader
from tasks.set_targets import load_part
from tasks.sheets import open_sheet
from tasks.target_options import PartsOptions, TargetOptions, TaskOptions
from tasks.vocabulary import Vocabulary

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
    """What each image (n,) is known by, wherever it stands."""

    @property
    def texts(self) -> list[str]:
        """All class texts, class after class."""
        return [text for texts in self.class_texts for text in texts]

    def bind(
        self,
        objective: ClipObjective,
        layout: ParameterLayout,
        vocabulary: Vocabulary,
        temperature: Temperature,
    ) -> ZeroShotTask:
        """The task for a model, on the model's device."""
        device = next(objective.model.parameters()).device
        # Tokens of a test that pool and target do not have, have no embedding: left out, as in evaluations.
        tokens = vocabulary.known_tokens(self.texts)[0].view(len(self.classes), len(self.class_texts[0]), -1)
        images, labels, tokens = (x.to(device) for x in (self.images, self.labels, tokens))
        return ZeroShotTask(objective, layout, images, labels, tokens, temperature)


def is_set(options: TaskOptions) -> bool:
    """Whether a task is of an evaluation set, not of a sheet."""
    return "://" in options.source or (Path(options.source) / options.folder / "nshards.txt").is_file()


def load_task(
    options: TaskOptions, size: int, parts: PartsOptions | None = None, reader: Reader | None = None
) -> TaskData:
    """Images and classes of a task at ``size`` pixels.

    Raises:
        CatalogError: a split or column is not in the sheet, or the task has no images or fewer than two
        classes.
        EvalSetError: the evaluation set cannot be used as it is.
    """
    if is_set(options):
        part = load_part(options, parts or PartsOptions(), size, reader)
        images = torch.from_numpy(part.images)
        return TaskData(images, torch.tensor(part.labels), part.classes, part.class_texts, part.identities)
    return _load_sheet_task(options, size)


def load_targets(targets: TargetOptions, size: int, reader: Reader | None = None) -> dict[str, TaskData]:
    """The target, the held-out target and the tests, by name.

    Raises:
        CatalogError: a sample stands in two of target, held-out target and tests.
    """
    options = {"target": targets.target, "heldout": targets.heldout, **targets.tests}
    loaded = {name: load_task(task, size, targets.parts, reader) for name, task in options.items()}
    _check_apart(loaded)
    return loaded


def _check_apart(loaded: Mapping[str, TaskData]) -> None:
    """Test data must not choose, and neither may be differentiated; tests may share samples."""
    owner: dict[str, str] = {}
    for name, data in loaded.items():
        role = name if name in ("target", "heldout") else "tests"
        shared = [one for one in data.identities if owner.setdefault(one, role) != role]
        if shared:
            raise CatalogError(
                f"{len(shared)} of the {len(data.identities)} samples of '{name}' are also in "
                f"{' and '.join(sorted({owner[one] for one in shared}))}, for instance {shared[0]}: what is tested on "
                "must be apart. Take parts of the same folders (equal pictures are in one part there), or other splits"
            )


def _load_sheet_task(options: TaskOptions, size: int) -> TaskData:
    if options.classes is None:
        raise CatalogError(
            f"task on split '{options.split}' of {options.source}: a sheet needs `classes`, the column that names the "
            "class of an image; an evaluation set has a folder with nshards.txt, and there is none"
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
    images = np.stack([resized(Image.fromarray(_rgb(tile)), size) for tile in sheet.images(options.split)])
    return TaskData(
        torch.from_numpy(images),
        torch.tensor([position[label] for label in labels]),
        classes,
        [described[name] for name in classes],
        [str(uid) for uid in sheet.rows(options.split)["uid"].to_pylist()],
    )


def _class_texts(options: TaskOptions, rows: list[dict[str, object]]) -> dict[str, list[str]]:
    """For each class, the same number of texts: its distinct values (evenly chosen, or repeated) in all
    templates."""
    values: dict[str, set[str]] = {}
    for row in rows:
        name, text = row[str(options.classes)], row[options.texts or str(options.classes)]
        if name is not None and text is not None:
            values.setdefault(str(name), set()).add(str(text).replace("-", " "))
    longest = min(options.max_texts, max((len(v) for v in values.values()), default=0))
    described = {}
    for name, distinct in values.items():
        ordered = sorted(distinct)
        chosen = [ordered[i * len(ordered) // longest] for i in range(longest)]
        described[name] = [template.format(text) for text in chosen for template in options.templates or (TEMPLATE,)]
    return described


def _rgb(tile: np.ndarray) -> np.ndarray:
    return np.repeat(tile, 3, axis=2) if tile.shape[2] == 1 else tile
