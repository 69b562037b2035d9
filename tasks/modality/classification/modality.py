"""What every unit of a study needs: its record, its pictures and its recipe, built once in each process.

A study lies in ``<home>/studies/<name>-<8 hex digits>``, the digits of a digest of its catalog and pictures, so that
the same command finds its own study and goes on with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mgd_core.autodiff.layout import ParameterLayout
from mgd_core.errors import UserError
from mgd_core.models.classification import ClassificationObjective
from mgd_core.models.clip import initial_parameters
from mgd_core.training.determinism import deterministic, environment
from mgd_core.training.learner import Batch, Learner
from mgd_core.training.optimizers import State
from mgd_core.training.order import DataOrder
from tasks.catalog.files import CatalogError
from tasks.catalog.study_options import Study, StudyModelOptions, load_study
from tasks.curation.beforehand import check_device, check_home
from tasks.files.artefacts import digest, publish_bytes, publish_json, read_json, reading
from tasks.modality.classification.models import build_model, make_optimizer, make_rates
from tasks.modality.classification.pictures import Pictures, digest_of, load_pictures

RECORD = "study.json"
VERSIONS = ("torch", "numpy", "pyarrow")


class StudyMismatch(UserError, RuntimeError):
    """A study was begun under settings that would give other bits."""


@dataclass(frozen=True)
class StudyBench:
    """An open study."""

    directory: Path
    study: Study
    record: dict[str, Any]
    classes: list[str]
    train: Pictures
    target: Pictures
    test: Pictures

    @property
    def id(self) -> str:
        """Name of the study, which its tables go by."""
        return self.directory.name

    @property
    def home(self) -> Path:
        """The directory that holds all studies and tables."""
        return self.directory.parents[1]

    def work(self, *parts: str) -> Path:
        """A path below the study's work directory."""
        path = self.directory.joinpath("work", *parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def key(self, *inputs: object) -> str:
        """Digest that names a unit of work by what it is a function of: data, model, learner, and ``inputs``."""
        own = [self.record[name] for name in ("data", "model", "learner", "environment", "versions")]
        return digest([*own, *inputs])

    def learner(self, model: StudyModelOptions | None = None, seed: int | None = None) -> tuple[Learner, State]:
        """The recipe, and its first state; ``model``: another model than the study's."""
        options = self.study.learner
        seed = options.seed if seed is None else seed
        net = build_model(model or self.study.model, self.train.pixels.shape[1:], len(self.classes), seed)
        net.to(self.train.pixels.device)
        layout = ParameterLayout.of(net)
        theta = initial_parameters(net, layout)
        optimizer = make_optimizer(options, layout, theta)
        try:
            order = DataOrder(np.ones(len(self.train), np.int64), options.batch, options.steps, seed)
        except ValueError as error:
            raise CatalogError(f"study '{self.study.name}', learner.batch: {error}") from None

        def batches(t: int) -> Batch:
            ids = torch.from_numpy(order[t]).to(theta.device)
            rows = (self.train.pixels[ids], self.train.labels[ids])
            return Batch(rows, ids, torch.ones(len(ids), device=theta.device))

        learner = Learner(ClassificationObjective(net), layout, optimizer, make_rates(options), batches, options.chunk)
        return learner, optimizer.init(theta)


@contextmanager
def opened_study(directory: Path) -> Iterator[StudyBench]:
    """The bench of a study's directory, with threads and determinism as its catalog says; restored on exit."""
    study, _ = _recorded(Path(directory))
    with deterministic(study.runtime.threads):
        yield _bench(Path(directory))


def begin_study(home: Path, path: Path) -> Path:
    """Create the study of a catalog, or find it begun; returns its directory.

    Raises:
        CatalogError: the catalog cannot be used, or its data.
        StudyMismatch: it was begun with other versions, threads or device.
    """
    study = load_study(path)
    check_home(home)
    check_device(study.runtime.device)
    classes, train, target, test = load_pictures(study.data)
    _check_fits(study, len(classes), len(train), len(target))
    content = {name: study.model_dump(mode="json")[name] for name in ("model", "learner", "runtime")}
    content["data"] = digest_of(classes, train, target, test)
    directory = Path(home) / "studies" / f"{study.name}-{digest(content)[:8]}"
    record = {
        **content,
        "study": study.model_dump(mode="json"),
        "environment": environment(study.runtime.device, study.runtime.threads),
        "versions": {package: version(package) for package in VERSIONS},
    }
    if (directory / RECORD).exists():
        found = read_json(directory / RECORD)
        for name in ("environment", "versions"):
            if found[name] != record[name]:
                raise StudyMismatch(
                    f"{directory}: begun with {name} {found[name]}, and now {record[name]}. Results would have other "
                    "bits: restore them, or begin in another --home"
                )
    directory.mkdir(parents=True, exist_ok=True)
    publish_bytes(directory / "catalog.toml", path.read_bytes())
    publish_json(directory / RECORD, record)
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


@lru_cache(maxsize=2)
def _bench(directory: Path) -> StudyBench:
    study, record = _recorded(directory)
    classes, *splits = load_pictures(study.data)
    placed = [Pictures(s.uids, *(x.to(study.runtime.device) for x in (s.pixels, s.labels))) for s in splits]
    return StudyBench(directory, study, record, classes, *placed)


def _recorded(directory: Path) -> tuple[Study, dict[str, Any]]:
    """The catalog in a study's record, and the record."""
    with reading(directory / RECORD):
        record = read_json(directory / RECORD)
        return Study.model_validate(record["study"]), record
