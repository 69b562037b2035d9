"""A real, tiny curation for tests: a few hundred Fashion-MNIST pairs of the embedded sheet, a second of training."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from catalogs.pools.cutting import lay_out, write_sheet
from tasks.catalog.catalogs import load_catalog
from tasks.curation import blends, comparison, estimate, ranking, rounds, selection, subsets
from tasks.curation.begin import begin_run
from tasks.curation.multitask import wanted
from tasks.files.artefacts import read_json
from tasks.files.package_data import CATALOGS
from tasks.homes.opening import opened, own
from tasks.pool import pools
from tasks.pool.sheets import open_sheet

SIZES = {"pool": 240, "target": 40, "heldout": 40, "test": 40}

MODEL = {
    "embed_dim": 32,
    "vision_cfg": {"layers": 1, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 32},
    "text_cfg": {"context_length": 10, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
"""A ViT of one block: what these tests ask is the same of any model, and a training takes a quarter of a ConvNeXt's."""

CATALOG = """
name = "small"
[pool]
source = "sheet"
shard_size = 100
[targets.target]
source = "sheet"
split = "target"
classes = "label"
[targets.heldout]
source = "sheet"
split = "heldout"
classes = "label"
[targets.tests.fashion]
source = "sheet"
split = "test"
classes = "label"
[model]
config = "model.json"
[learner]
steps = 8
batch = 32
learning_rate = 2e-3
warmup = 2
[descent]
rounds = 2
window_start = 4
probe_steps = [4, 6]
rule = "exchange"
p = 0.5
share = 0.2
momentum = 1.0
[comparison]
subsets = ["everything", "random", "loss_filter", "own_clip_filter", "mgd", "oracle"]
seeds = [1]
[runtime]
threads = 1
"""


def small_catalog(directory: Path, *changes: tuple[str, str]) -> Path:
    """Write sheet, model and catalog into ``directory``; ``changes`` replace text of the catalog. Returns its path."""
    source = open_sheet(CATALOGS / "pools" / "fashion")
    images = np.concatenate([source.images(split)[:size] for split, size in SIZES.items()])
    table = pa.concat_tables([source.rows(split).slice(0, size) for split, size in SIZES.items()])
    table = table.set_column(0, "tile", pa.array(range(table.num_rows), pa.int32()))
    picture = Image.fromarray(lay_out(images, 16)[:, :, 0])
    meta = {**source.meta, "tiles_per_row": 16}
    write_sheet(directory / "sheet", picture, table, meta)
    (directory / "model.json").write_text(json.dumps(MODEL))
    text = CATALOG
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new, 1)
    (directory / "small.toml").write_text(text)
    return directory / "small.toml"


def begun(catalog: Path, home: Path) -> Path:
    """The directory of the catalog's run, its pool built and nothing trained."""
    options = load_catalog(catalog)
    pool = pools.build_pool(str(options.pool.source), home, options.pool.build_options())
    return begin_run(home, catalog, pool).directory


def curate_plainly(catalog: Path, home: Path) -> Path:
    """What the flow does, as plain calls in this process; returns the run's directory."""
    options, directory = load_catalog(catalog), begun(catalog, home)
    own(home, directory.name)
    estimate.prepare(directory)
    last = options.descent.rounds
    for number in range(last + 1) if last or ranking.needs_round_0(options) else ():
        for replicate in range(options.descent.trainings_of(number)):
            rounds.train_round(directory, number, number < last, replicate)
        shards = rounds.shard_names(directory) if number < last and options.descent.surrogate == "probe" else []
        rounds.finish_round(directory, number, [rounds.probe_shard(directory, number, shard) for shard in shards])
    for number in range(last + 1, last + 1 + len(options.descent.blends)):
        blends.publish_blend(directory, number)
        rounds.train_round(directory, number, False)
        rounds.finish_round(directory, number, [])
    again = range(1, options.descent.final_trainings + 1)
    finals = [selection.train_finalist(directory, round, k) for round in selection.finalists(directory) for k in again]
    chosen = selection.choose_round(directory, finals)
    subsets.write_subset(directory, chosen)
    for number in wanted.told_rounds(options, chosen):
        for replicate in range(options.descent.trainings_of(number)):
            wanted.sweep_tasks(directory, number, replicate)
        shards = rounds.shard_names(directory) if options.descent.surrogate == "probe" else []
        wanted.publish_tasks(directory, number, [wanted.probe_tasks(directory, number, shard) for shard in shards])
    trials = options.comparison
    records = [
        comparison.train_subset(directory, one, seed, chosen) for seed in trials.seeds for one in trials.compared
    ]
    comparison.publish_evaluations(directory, records, chosen)
    comparison.publish_differences(directory, records, chosen)
    return directory


def published(directory: Path) -> dict[str, bytes]:
    """Bytes of every table part (timings apart), manifest and subset file of a run, by path below its home."""
    home = directory.parents[1]
    listed = read_json(home / "tables" / "_manifests" / f"{directory.name}.json")
    paths = [home / "tables" / path for path in _paths(listed) if "timings" not in path]
    paths += [*directory.glob("manifests/*"), directory / "subset.npy"]
    return {str(path.relative_to(home)): path.read_bytes() for path in sorted(paths)}


def _paths(value: object) -> list[str]:
    """All strings in a manifest that name a Parquet file."""
    if isinstance(value, dict):
        return [path for item in value.values() for path in _paths(item)]
    if isinstance(value, list):
        return [path for item in value for path in _paths(item)]
    return [value] if isinstance(value, str) and value.endswith(".parquet") else []


if __name__ == "__main__":
    with opened(sys.argv[2]) as home:
        curate_plainly(Path(sys.argv[1]), home)
