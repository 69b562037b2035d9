"""One pool along the whole path, phase by phase: CPU time, and resident memory at its highest.

What the model computes (`Probe.scores`, and the training itself) is timed apart and left out. Memory is what the
process holds for itself (`RssAnon`): pages of mapped files belong to the page cache, which gives them back. Run as a
process of its own, `python -m benchmarks.scale.path HOME SHARD BUFFERS`; the last line is JSON.
"""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.scale.synthetic import SIDE
from mgd_core.engine.probe import Probe
from tasks.catalog.catalogs import load_catalog
from tasks.curation import count_updates, counts_digest, estimate, rounds
from tasks.curation.begin import begin_run
from tasks.modality.registry import open_recipe, prepared
from tasks.pool import columns, joins, pools
from tasks.pool.columns import columns_of
from tasks.pool.index_jobs import write_or_index_unit
from tasks.tables import published, streams
from testing.small_catalog import MODEL, small_catalog

P = 0.25
"""Share of the pool that the round scores."""
LOOK = 0.02
"""Seconds between two looks at the memory."""
BUFFERED = (published, streams, count_updates, joins, columns, counts_digest, estimate)
"""Modules that hold up to a row group, or a stretch of some hundred thousand rows, at once."""
PREPARED = {"tokens of the captions": "tokens", "decode the pool's pictures": "decode"}


@dataclass
class Meter:
    """CPU seconds and highest resident bytes of named phases."""

    seconds: dict[str, float] = field(default_factory=dict)
    peaks: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure the block."""
        over, highest = threading.Event(), [resident()]

        def look() -> None:
            while not over.wait(LOOK):
                highest[0] = max(highest[0], resident())

        watcher = threading.Thread(target=look)
        watcher.start()
        began = time.process_time()
        yield
        self.seconds[name] = time.process_time() - began
        over.set()
        watcher.join()
        self.peaks[name] = max(highest[0], resident())


class TimedScores:
    """CPU seconds that this thread spends in the model's products of a probe."""

    def __init__(self) -> None:
        self.seconds: float = 0.0
        plain: Any = Probe.scores

        def scores(probe: Probe, *arguments: Any) -> Any:
            began = time.thread_time()
            try:
                return plain(probe, *arguments)
            finally:
                self.seconds += time.thread_time() - began

        setattr(Probe, "scores", scores)  # noqa: B010  # of a method, to mypy an assignment


def main(home: Path, shard: int, buffers: int) -> None:
    """Measure the pool whose tars are in ``home/tars``; ``buffers``: rows that are held at once, 0: as it is."""
    for module in BUFFERED if buffers else ():
        for name in {"ROW_GROUP", "STRETCH"} & vars(module).keys():
            setattr(module, name, buffers)
    meter, start = Meter(), resident()
    catalog = written_catalog(home, shard)
    options = load_catalog(catalog)
    plan = pools.plan_pool(options.pool.sources, home, options.pool.build_options())
    with meter.phase("index"):
        for unit in plan.units:
            write_or_index_unit(unit)
    with meter.phase("join"):
        pool = pools.finish_pool(plan)
    directory = begin_run(home, catalog, pool).directory
    with meter.phase("columns"):
        columns_of(pool)
    for one in prepared(directory):
        with meter.phase(PREPARED[one.what]):
            one.ensure()
    with open_recipe(directory) as recipe, meter.phase("publish"):
        estimate.publish_pool(recipe)
    rounds.train_round(directory, 0, True)
    timed = TimedScores()
    names = rounds.shard_names(directory)
    probe(directory, names[:1], Meter())  # what each process does once: opens the recipe, encodes a batch
    timed.seconds = 0.0
    records = probe(directory, names, meter)
    products = timed.seconds
    with meter.phase("update"):
        rounds.finish_round(directory, 0, records)
    figures = {"n": pool.samples, "start": start, "products": products, "seconds": meter.seconds, "peaks": meter.peaks}
    print(json.dumps(figures))


def probe(directory: Path, names: list[str], meter: Meter) -> list[Path]:
    """Score the masked samples of shards anew."""
    for record in directory.glob("work/round-000/probe-*.json"):
        record.unlink()
    with meter.phase("probe"):
        return [rounds.probe_shard(directory, 0, name) for name in names]


def opening(directory: Path) -> None:
    """CPU milliseconds of opening the recipe in a new process and of a unit, beside the model's products."""
    import open_clip  # noqa: F401  # an import is no part of a unit

    timed, meter = TimedScores(), Meter()
    with meter.phase("open"), open_recipe(directory):
        pass
    name = rounds.shard_names(directory)[:1]
    probe(directory, name, Meter())  # makes the model and encodes its reference batch, once a round
    timed.seconds = 0.0
    probe(directory, name, meter)
    print(json.dumps({"ms": 1e3 * (sum(meter.seconds.values()) - timed.seconds), "peak": meter.peaks["open"]}))


def written_catalog(home: Path, shard: int) -> Path:
    """A catalog of the tars in ``home``, with a model of their size."""
    model = {**MODEL, "vision_cfg": {**MODEL["vision_cfg"], "image_size": SIDE, "patch_size": 8}}  # type: ignore[dict-item]
    catalog = small_catalog(
        home / "catalog",
        ('source = "sheet"\nshard_size = 100', f'source = "{home / "tars"}"'),
        ("p = 0.5", f"p = {P}"),
        ("steps = 8", "steps = 4"),
        ("window_start = 4\nprobe_steps = [4, 6]", "window_start = 2\nprobe_steps = [2]"),
        ('subsets = ["everything", "random", "loss_filter", "own_clip_filter", "mgd", "oracle"]', 'subsets = ["mgd"]'),
    )
    (catalog.parent / "model.json").write_text(json.dumps(model))
    return catalog


def resident() -> int:
    """Bytes that the process holds for itself."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) << 10


if __name__ == "__main__":
    if sys.argv[1] == "--open":
        opening(Path(sys.argv[2]))
    else:
        main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
