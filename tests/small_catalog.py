"""A real, tiny curation for tests: a few hundred Fashion-MNIST pairs cut from the embedded sheet, seconds of training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from tasks.catalog import CATALOGS
from tasks.sheets import lay_out, open_sheet, write_sheet

SIZES = {"pool": 240, "target": 40, "heldout": 40, "test": 40}

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
memory = 1.0
[comparison]
subsets = ["everything", "random", "loss_filter", "clip_filter", "mgd", "oracle"]
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
    (directory / "model.json").write_bytes((CATALOGS / "models" / "fashion.json").read_bytes())
    text = CATALOG
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new, 1)
    (directory / "small.toml").write_text(text)
    return directory / "small.toml"
