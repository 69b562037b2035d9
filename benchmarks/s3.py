"""Does a pool in an S3 store that fails all the time give the very bytes that the same pool gives from a local folder?

`python -m benchmarks.s3` lays a small pool of pairs out as DataComp does (tars, tables, stats, metadata), puts it
into a real S3 server on loopback, and runs the whole main job, `mgd census` and `mgd curate`, on both: locally, and
through a proxy that answers 503, breaks connections before and in the middle of answers, trickles and stalls, with a
local cache half as large as the pool; nothing is kept decoded, so every batch of every training is read from the
store, window by window. Compared are all published tables (but timings), manifests, the subset file, the census's
tables, and the members of every sample read back. `--quick` decodes once, curates for fewer steps, compares fewer
subsets, and makes the flows' own calls without Prefect, the local ones in this process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks._envelope import emit
from benchmarks._server import own_server
from tasks.catalog.catalogs import load_pair_catalog
from tasks.pool.pools import build_pool, load_pool
from tasks.pool.record import BuildOptions
from testing.faulty_proxy import FaultyProxy
from testing.loopback_s3 import loopback_s3, s3_environment, speaking_to
from testing.sample_members import read_members
from testing.small_catalog import curate_plainly, published, small_catalog
from testing.whole_census import take_census

RATES = {"503": 0.1, "reset": 0.1, "cut": 0.1, "slow": 0.05, "stall": 0.02}
QUICK = (
    ("steps = 8", "steps = 4"),
    ("window_start = 4", "window_start = 2"),
    ("probe_steps = [4, 6]", "probe_steps = [2]"),
    ("rounds = 2", "rounds = 1"),
    ('"everything", "random", "loss_filter", "own_clip_filter", "mgd", "oracle"', '"everything", "mgd"'),
)
STREAMED = (("batch = 32", "batch = 32\nwindow = 64"), ("threads = 1", 'threads = 1\ndecoded_disk = "0B"'))
BUCKET = "pool"


def main() -> None:
    """Run both jobs and print a table and the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a shorter curation, under 45 s")
    parser.add_argument("--seed", type=int, default=0, help="seed of the faults")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mgd-s3-") as scratch:
        figures = run(Path(scratch), options.quick, options.seed)
    emit("s3", {"quick": options.quick, "seed": options.seed, **figures})


def run(scratch: Path, quick: bool, seed: int) -> dict[str, Any]:
    """Both jobs side by side; the figures."""
    local = lay_out_pool(scratch / "datacomp", scratch, quick)
    size = sum(path.stat().st_size for path in (local / "shards").glob("*.tar"))
    with loopback_s3() as where, _prefect(scratch, quick) as environment:
        upload(local, "http://{}:{}".format(*where))
        with FaultyProxy(where, RATES, seed=seed) as proxy:
            began = time.monotonic()
            places = {"local": (str(local), environment), "remote": (f"s3://{BUCKET}", s3_environment(proxy.url))}
            catalogs = {name: catalog(scratch, name, source, size, quick) for name, (source, _) in places.items()}
            started = [name for name in places if name == "remote" or not quick]
            jobs = [
                _start(catalogs[name], scratch / name, {**environment, **places[name][1]}, quick) for name in started
            ]
            if quick:  # in this process: it has loaded everything
                curate_plainly(catalogs["local"], scratch / "local")
            for job in jobs:
                _finish(job)
            seconds = time.monotonic() - began
            with speaking_to(proxy.url):
                if quick:
                    for name in places:
                        _census(scratch / f"catalog-{name}" / "small.toml", scratch / name)
                mismatches = compare(scratch / "local", scratch / "remote")
    kept = sum(path.stat().st_size for path in (scratch / "remote" / "cache").glob("[!.]*"))
    return _report(mismatches, proxy, size, kept, seconds)


@contextmanager
def _prefect(scratch: Path, quick: bool) -> Iterator[dict[str, str]]:
    """The jobs' environment, with one Prefect server for both."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if quick:
        yield environment
        return
    with own_server(scratch) as server:
        yield environment | server


def lay_out_pool(out: Path, scratch: Path, quick: bool) -> Path:
    """The small catalog's pairs as DataComp's downloader leaves them, in `out`."""
    small_catalog(scratch)
    pool = build_pool(scratch / "sheet", scratch / "made", BuildOptions(shard_size=60 if quick else 30))
    rows = pq.ParquetFile(pool.samples_path).read()
    uids = pa.array([uid.hex for uid in rows["uid"].to_pylist()])
    (out / "shards").mkdir(parents=True)
    (out / "metadata").mkdir()
    for number, tar in enumerate(sorted((pool.directory / "shards").glob("*.tar"))):
        stem = out / "shards" / f"{number:08d}"
        stem.with_suffix(".tar").write_bytes(tar.read_bytes())
        here = pa.compute.equal(rows["shard"], f"shards/{tar.name}")
        table = pa.table({"uid": uids, "key": rows["key"], "status": ["success"] * len(uids)}).filter(here)
        pq.write_table(table, stem.with_suffix(".parquet"))
        stats = {"count": table.num_rows, "successes": table.num_rows}
        (out / "shards" / f"{number:08d}_stats.json").write_text(json.dumps(stats))
    scores = pa.array([int(uid[:4], 16) / 2**17 for uid in uids.to_pylist()], pa.float32())
    metadata = pa.table({"uid": uids, "text": rows["text"], "clip_l14_similarity_score": scores})
    pq.write_table(metadata, out / "metadata" / f"{'0' * 32}.parquet")
    return out


def upload(local: Path, url: str) -> None:
    """Put the pool into a new bucket."""
    with speaking_to(url):
        fs = fsspec.filesystem("s3")
        fs.mkdir(BUCKET)
        for path in sorted(local.rglob("*")):
            if path.is_file():
                fs.put_file(str(path), f"{BUCKET}/{path.relative_to(local)}")


def catalog(scratch: Path, name: str, source: str, size: int, quick: bool) -> Path:
    """The small catalog with its pool elsewhere, and a cache half as large as that."""
    remote = f"cache_gib = {size / 2 / 2**30}\ntimeout_s = 2.0\nfirst_wait_s = 0.02\nchunk_mib = 1\n"
    pool = f'[pool]\nsource = "{source}"\n[pool.remote]\n{remote}'
    directory = scratch / f"catalog-{name}"
    directory.mkdir()
    changes = QUICK if quick else STREAMED
    return small_catalog(directory, ('[pool]\nsource = "sheet"\nshard_size = 100\n', pool), *changes)


def compare(local: Path, remote: Path) -> list[str]:
    """Names of everything that is not the same in both homes."""
    files: list[dict[str, bytes]] = []
    members: list[list[dict[str, bytes]]] = []
    for home in (local, remote):
        (run,) = (home / "runs").iterdir()
        (census,) = (home / "census").iterdir()
        tables = {f"census/{path.name}": path.read_bytes() for path in census.glob("*.parquet")}
        files.append(published(run) | tables)
        (directory,) = (home / "pools").iterdir()
        pool = load_pool(directory)
        assert pool is not None
        members.append(read_members(pq.ParquetFile(pool.samples_path).read(), pool.directory))
    names = sorted(files[0].keys() | files[1].keys())
    wrong = [name for name in names if files[0].get(name) != files[1].get(name)]
    wrong += [f"sample {i}" for i, (a, b) in enumerate(zip(*members, strict=True)) if a != b]
    print(f"{len(names)} files and {len(members[0])} samples compared, {len(wrong)} differ")
    return wrong


def _census(path: Path, home: Path) -> None:
    """What `mgd census` does, in this process."""
    options = load_pair_catalog(path, "benchmarks.s3")
    take_census(str(options.pool.source), home, options.pool.build_options(), options.census)


def _start(path: Path, home: Path, environment: dict[str, str], quick: bool) -> subprocess.Popen[str]:
    """The main job in a process of its own."""
    mgd = f"'{sys.executable}' -m flows.cli"
    line = f"{mgd} census '{path}' --home '{home}' && {mgd} curate '{path}' --home '{home}'"
    if quick:
        line = f"'{sys.executable}' -m testing.small_catalog '{path}' '{home}'"
    root = Path(__file__).parents[1]
    return subprocess.Popen(
        line, shell=True, cwd=root, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def _finish(job: subprocess.Popen[str]) -> None:
    said, _ = job.communicate()
    if job.returncode:
        raise RuntimeError(f"{job.args!r} ended with status {job.returncode}:\n{said}")


def _report(mismatches: list[str], proxy: FaultyProxy, size: int, kept: int, seconds: float) -> dict[str, Any]:
    faults = dict(sorted(proxy.faults.items()))
    print(f"pool {size / 1e3:,.0f} kB, local cache at most {size / 2e3:,.0f} kB, in it at the end {kept / 1e3:,.0f} kB")
    print(
        f"{proxy.requests:,} requests, {sum(faults.values()):,} of them spoilt: {faults}; {seconds:.0f} s for both jobs"
    )
    for name in mismatches[:20]:
        print(f"differs: {name}")
    return {
        "mismatches": len(mismatches),
        "faults_injected": sum(faults.values()),
        "faults": faults,
        "requests": proxy.requests,
        "pool_bytes": size,
        "cache_limit_bytes": size // 2,
        "cache_bytes": kept,
        "seconds": round(seconds, 1),
    }


if __name__ == "__main__":
    main()
