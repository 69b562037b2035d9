"""The recipe of labelled pictures: a classifier, of which studies ask what a curation does not.

A study lies in ``<home>/studies/<name>-<8 hex digits>``, the digits of a digest of its catalog and pictures, so that
the same command finds its own study and goes on with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

from mgd_core.autodiff.objective import Objective, Rows
from mgd_core.models.classification import ClassificationObjective
from mgd_core.training.determinism import environment
from mgd_core.training.learner import Batch, Learner
from tasks.catalog.device_options import kind_of_device
from tasks.catalog.files import CatalogError
from tasks.catalog.study_options import Study, load_study
from tasks.files.artefacts import digest, reading
from tasks.modality.base import Modality
from tasks.modality.classification.models import build_model
from tasks.modality.classification.pictures import Pictures, digest_of, load_pictures
from tasks.modality.classification.targets import LabelledTask
from tasks.modality.machine import check_devices, check_home
from tasks.modality.recipe import Counts, Ids, Recipe
from tasks.runs.run import WorkDirectory, read_record

VERSIONS = ("torch", "numpy", "pyarrow")
SCORES = ("target_loss", "target_accuracy", "test_loss", "test_accuracy")


@dataclass(frozen=True)
class StudyRun(WorkDirectory):
    """A study's directory."""

    record_name = "study.json"
    renewed = ("study",)

    catalog: Study

    @classmethod
    def load(cls, directory: Path) -> StudyRun:
        """Open a study that was begun."""
        with reading(path := directory / cls.record_name):
            record = read_record(path)
            return cls(directory, Study.model_validate(record["study"]), record)

    def key(self, *inputs: object) -> str:
        """Digest that names a unit of work by what it is a function of: data, model, learner, and ``inputs``."""
        own = [self.record[name] for name in ("data", "model", "learner", "environment", "versions")]
        return digest([*own, *inputs])


@dataclass(frozen=True)
class ClassificationRecipe(Recipe):
    """An open study."""

    run: StudyRun
    catalog: Study
    classes: list[str]
    train: Pictures
    target: Pictures
    test: Pictures

    def __len__(self) -> int:
        return len(self.train)

    def model(self, seed: int) -> nn.Module:
        """The catalog's classifier, for pictures of this size and these classes."""
        return build_model(self.catalog.model, self.train.pixels.shape[1:], len(self.classes), seed)

    def objective(self, model: nn.Module) -> Objective:
        """Cross-entropy."""
        return ClassificationObjective(model)

    def rows(self, ids: Ids) -> Rows:
        """Pixels and labels; studies crop nothing."""
        at = torch.from_numpy(ids).to(self.train.labels.device)
        return self.train.pixels[at], self.train.labels[at]

    def task(self, learner: Learner, pictures: Pictures) -> LabelledTask:
        """Pictures as a target of a learner's model."""
        return LabelledTask(learner, pictures.pixels, pictures.labels)

    def scores(self, learner: Learner, theta: Tensor) -> dict[str, float]:
        """SCORES of a trained model: loss, nats, and accuracy of the target and test splits."""
        splits = {"target": self.target, "test": self.test}
        found = {name: self.task(learner, split).metrics(theta) for name, split in splits.items()}
        return {f"{name}_{metric}": value for name, own in found.items() for metric, value in own.items()}

    @property
    def seed(self) -> int:
        """The learner's own."""
        return self.catalog.learner.seed

    def model_seed(self, seed: int, round: int) -> int:
        """There are no rounds."""
        return seed

    def training_batches(self, counts: Counts, seed: int, round: int) -> Callable[[int], Batch]:
        """Straight from the device, where all pictures are."""
        order = self.order(counts, seed, round)
        return lambda t: self.to_device(self.batch(ids := self.own(order[t]), self.rows(ids)))


def begin_study(home: Path, path: Path) -> Path:
    """Create the study of a catalog, or find it begun; returns its directory.

    Raises:
        CatalogError: the catalog cannot be used, or its data.
        RunMismatch: it was begun with other versions, threads or device.
    """
    study = load_study(path)
    check_home(home)
    check_devices(study.runtime)
    classes, train, target, test = load_pictures(study.data)
    _check_fits(study, len(classes), len(train), len(target))
    content = {name: study.model_dump(mode="json")[name] for name in ("model", "learner", "runtime")}
    runtime = content["runtime"] | {"device": kind_of_device(study.runtime.device), "runner": "threads", "workers": 1}
    content["runtime"] = {key: value for key, value in runtime.items() if key != "devices"}  # what bits depend on
    content["data"] = digest_of(classes, train, target, test)
    directory = Path(home) / "studies" / f"{study.name}-{digest(content)[:8]}"
    record = {
        **content,
        "study": study.model_dump(mode="json"),
        "environment": environment(study.runtime.device, study.runtime.threads),
        "versions": {package: version(package) for package in VERSIONS},
    }
    StudyRun.begin(directory, study, record, path.read_bytes())
    return directory


def _check_fits(study: Study, classes: int, train: int, target: int) -> None:
    """See that there are as many pictures as the study's parts want of them."""
    for key, value, least, what in (
        ("data.labels", classes, 2, "classes"),
        ("learner.batch", train, study.learner.batch, "training pictures"),
        ("poison.target_batch", target, study.poison.target_batch or 1, "target pictures"),
    ):
        if value < least:
            raise CatalogError(
                f"study '{study.name}', {key}: there are {value:,} {what}, and it takes {least:,} or more"
            )


class ClassificationModality(Modality):
    """Pictures of known classes, for a classifier; studied, and not curated."""

    kinds = ("mlp", "resnet9", "vit")
    catalog = Study

    def open(self, run: StudyRun) -> ClassificationRecipe:
        """With all pictures on the device."""
        classes, *splits = load_pictures(run.catalog.data)
        device = run.catalog.runtime.device
        placed = [Pictures(s.uids, *(x.to(device) for x in (s.pixels, s.labels))) for s in splits]
        return ClassificationRecipe(run, run.catalog, classes, *placed)
