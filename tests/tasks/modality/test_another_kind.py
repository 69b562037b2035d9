"""A kind of training data that nothing but this file knows of: labelled vectors in .npz files, curated as any other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from mgd_core.autodiff.objective import Rows
from mgd_core.models.classification import ClassificationObjective
from mgd_core.training.learner import Learner
from mgd_core.training.order import generator
from tasks.catalog.base import BaseCatalog
from tasks.catalog.catalogs import KINDS, load_catalog
from tasks.catalog.recipe_options import SourceOptions
from tasks.catalog.roles import TestName
from tasks.catalog.target_sections import TargetsSection, TaskSection
from tasks.curation.beforehand import check_beforehand
from tasks.files.option_types import Section
from tasks.modality.base import Modality
from tasks.modality.classification.targets import LabelledTask
from tasks.modality.recipe import Ids, PoolRecipe
from tasks.modality.registry import MODALITIES, register
from tasks.pool.forms import NO_MEMBERS, SampleForm
from tasks.pool.samples import resolve
from tasks.pool.shards import ShardIndex
from tasks.report.reports import result_table, write_report
from tasks.runs.run import Run
from tasks.subset.files import read_records
from tasks.tables.published import read_parquet
from tasks.tables.queries import connect
from tasks.tables.uids import content_uid, uid_bytes
from testing.small_catalog import curate_plainly

CLASSES, WIDTH = 3, 5
CATALOG = """
name = "vectors"
pool = { source = "pool-*.npz" }
model = { kind = "softmax" }
learner = { steps = 12, batch = 16, learning_rate = 0.1 }
descent = { rounds = 3, rule = "exchange", p = 1.0, share = 0.2, momentum = 1.0, window_start = 4 }
comparison = { subsets = ["everything", "random", "oracle", "mgd"], seeds = [1] }
runtime = { threads = 1 }
targets = { target.source = "target.npz", heldout.source = "heldout.npz", tests.own.source = "test.npz" }
"""


class VectorForm(SampleForm):
    kind = "vectors"
    names = ("*.npz",)

    def index(self, url: str, name: str, reader: Any) -> ShardIndex:
        rows = []
        for key, (x, y, clean) in enumerate(zip(*np.load(url).values(), strict=True)):
            uid, told = content_uid(x.tobytes(), bytes([y])), {"truth_clean": bool(clean)}
            row = {"uid": uid, "shard": name, "key": str(key), "text": f"a vector of class {y}"}
            rows.append(NO_MEMBERS | row | {"upstream": told, "named_uid": False})
        return ShardIndex(rows, [])


class VectorPool(SourceOptions):
    form: ClassVar = VectorForm()


class VectorTargets(TargetsSection):
    target: TaskSection
    heldout: TaskSection
    tests: dict[TestName, TaskSection]


class SoftmaxOptions(Section):
    kind: Literal["softmax"]


class VectorCatalog(BaseCatalog):
    pool: VectorPool
    targets: VectorTargets
    model: SoftmaxOptions


@dataclass(frozen=True)
class VectorRecipe(PoolRecipe):
    vectors: TensorDataset

    def model(self, seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return nn.Linear(WIDTH, CLASSES)

    def objective(self, model: nn.Module) -> ClassificationObjective:
        return ClassificationObjective(model)

    def rows(self, ids: Ids) -> Rows:
        return self.vectors[ids]

    def bind(self, data: TensorDataset, learner: Learner) -> LabelledTask:
        return LabelledTask(learner, *data.tensors)


class VectorModality(Modality):
    kinds = ("softmax",)
    catalog = VectorCatalog

    def open(self, run: Run) -> VectorRecipe:
        samples = read_parquet(run.pool.samples_path, columns=["uid", "shard", "key"])
        files = {name: loaded(resolve(name, run.pool_directory)) for name in set(samples["shard"].to_pylist())}
        found = [files[row["shard"]][int(row["key"])] for row in samples.to_pylist()]
        pool = TensorDataset(*map(torch.stack, zip(*found, strict=True)))
        tasks = run.catalog.targets.roles.map(lambda _, task: loaded(task.source))
        return VectorRecipe(run, run.catalog, run.pool, uid_bytes(samples["uid"]), tasks, pool)


def loaded(place: str) -> TensorDataset:
    found = np.load(place)
    return TensorDataset(torch.from_numpy(found["x"]), torch.from_numpy(found["y"]))


def write_vectors(path: Path, n: int, wrong: float, seed: int) -> None:
    draw = generator(seed, 0)
    y, clean = draw.integers(CLASSES, size=n), draw.random(n) >= wrong
    x = np.eye(CLASSES, WIDTH)[y] + 0.5 * draw.normal(size=(n, WIDTH))
    np.savez(path, x=x.astype(np.float32), y=np.where(clean, y, (y + 1) % CLASSES), clean=clean)


def test_a_kind_of_ones_own_is_curated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for known in (MODALITIES, KINDS):
        monkeypatch.setitem(known, "softmax", None)  # not after the test
    register(VectorModality())
    for seed, name in enumerate(("pool-0", "pool-1", "target", "heldout", "test")):
        write_vectors(tmp_path / f"{name}.npz", 60, 0.4 if "pool" in name else 0.0, seed)
    catalog, home = tmp_path / "vectors.toml", tmp_path / "home"
    catalog.write_text(CATALOG)
    check_beforehand(load_catalog(catalog), home)
    run = curate_plainly(catalog, home)
    assert "a vector of class" in write_report(home, run.name).read_text()
    assert len(read_records(run / "subset.npy")) == 120
    losses = {row["subset"]: row["own loss"] for row in result_table(home, run.name)}
    assert losses["oracle"] < losses["mgd"] < losses["everything"]
    with connect(home, run.name) as connection:
        assert connection.execute("select min(heldout_n) from rounds").fetchone() == (60,)
        kept = "select truth_clean, avg(count) from sample_outcomes group by all order by all"
        (_, wrong), (_, right) = connection.execute(kept).fetchall()
    assert right > 1 > wrong
