"""How fast is a subset of a pool written as shards, against DataComp's own resharder and against a plain copy?

`python -m benchmarks.reshard` makes a pool as DataComp's downloader does (JPEGs of about 15 kB with json and txt, in
tars with stats), indexes it, and then, in turn, so that a busy machine slows all alike:

* reshards all of it with one process and with one a core (`tasks.export.reshard`: planning, start of the workers and
fsync
  included);
* copies the same tars (`shutil.copyfile`, fsync included);
* runs the official resharder on it, `-j` one a core, if there is one: MGD_DATACOMP names a checkout of DataComp's
  repository, MGD_DATACOMP_PYTHON an interpreter with webdataset 0.2.31 to 0.2.85 and its other requirements. Its own
  figure is taken, which leaves out imports and the look for shards; it calls no fsync.

The same is done with a random 30 % of the samples, where samples per second are those read by the official tool, for it
reads all of the pool: seconds are compared. Figures are medians; samples and MB per second are of what is written.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from benchmarks._envelope import emit
from mgd_core.whole_files import sync
from tasks.export.reshard import ReshardOptions, reshard
from tasks.files.processes import cores
from tasks.pool.naming import indexed
from tasks.pool.shards import Sample, write_shard
from tasks.subset.files import everything, write_records
from tasks.tables.uids import content_uid

SAMPLES, QUICK_SAMPLES = 60_000, 12_000
PER_SHARD, QUICK_PER_SHARD = 5_000, 1_000
REPEATS, QUICK_REPEATS = 5, 2  # everything was read before: by the indexing
KEPT = 0.3
SIZE = (96, 128)  # pixels of noise: 15 kB at quality 95
DONE = re.compile(r"processed (\d+) images in ([\d.]+)s")


@dataclass
class Lane:
    """One way to write the shards: seconds of each repeat, samples and bytes written, processor seconds of the last
    where they are known."""

    name: str
    seconds: list[float] = field(default_factory=list)
    samples: int = 0
    size: int = 0
    cpu: float = 0.0

    @property
    def samples_per_s(self) -> float:
        """Samples written a second."""
        return self.samples / median(self.seconds)

    @property
    def mb_per_s(self) -> float:
        """Megabytes written a second."""
        return self.size / median(self.seconds) / 1e6


def main() -> None:
    """Print the table and the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_SAMPLES:,} samples instead of {SAMPLES:,}")
    parser.add_argument("--repeats", type=int, help=f"of each lane (default: {REPEATS}, or {QUICK_REPEATS} if quick)")
    parser.add_argument("--dir", help="where to work (default: the system's directory for temporary files)")
    options = parser.parse_args()
    samples, per_shard = (QUICK_SAMPLES, QUICK_PER_SHARD) if options.quick else (SAMPLES, PER_SHARD)
    with tempfile.TemporaryDirectory(dir=options.dir) as directory:
        root = Path(directory)
        make_pool(root / "pool/shards", samples, per_shard)
        began = time.perf_counter()
        pool = indexed(str(root / "pool/shards"), root / "home")
        index_s = time.perf_counter() - began
        repeats = options.repeats or (QUICK_REPEATS if options.quick else REPEATS)
        whole = measure(root, pool, per_shard, repeats, 1.0)
        part = measure(root, pool, per_shard, 1 if options.quick and not options.repeats else repeats, KEPT)
    show(whole, part, index_s)
    emit("reshard", figures(whole, part, index_s, samples, repeats))


def make_pool(shards: Path, samples: int, per_shard: int) -> None:
    """Tars as img2dataset writes them for DataComp; every picture differs in a comment."""
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    jpeg = buffer.getvalue()
    for number, start in enumerate(range(0, samples, per_shard)):
        stop = min(start + per_shard, samples)
        write_shard(shards / f"{number:08d}.tar", (_sample(number, i, i - start, jpeg) for i in range(start, stop)))
        (shards / f"{number:08d}_stats.json").write_text(json.dumps({"count": stop - start, "successes": stop - start}))


def _sample(shard: int, i: int, row: int, jpeg: bytes) -> Sample:
    caption, comment = f"picture {i} of something or other", b"%012d" % i
    image = jpeg[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + jpeg[2:]
    key = f"{shard:08d}{row:04d}"
    record: dict[str, object] = {
        "uid": content_uid(image, caption.encode()),
        "face_bboxes": [],
        "caption": caption,
        "url": f"https://example.org/{i}.jpg",
        "key": key,
        "status": "success",
        "error_message": None,
        "width": SIZE[1],
        "height": SIZE[0],
        "original_width": SIZE[1],
        "original_height": SIZE[0],
        "exif": json.dumps({"Image Software": "x" * 200}),
        "sha256": sha256(image).hexdigest(),
    }
    return Sample(key, image, "jpg", caption, json.dumps(record, indent=4).encode())


def measure(root: Path, pool: Path, per_shard: int, repeats: int, share: float) -> list[Lane]:
    """Lanes of this share of the samples, all in turn: one process, one a core, copy, official."""
    wanted = everything(pool / "samples.parquet")
    subset = wanted.only(np.random.default_rng(1).random(len(wanted.uids)) < share)
    with open(root / "subset.npy", "wb") as file:
        write_records(file, subset.uids, subset.counts)
    out, shards, size = root / "out", root / "pool/shards", per_shard
    lanes: dict[str, Callable[[Lane], None]] = {
        "1 process": lambda lane: _reshard(lane, pool, root / "subset.npy", out, 1, size),
        f"{cores()} processes": lambda lane: _reshard(lane, pool, root / "subset.npy", out, cores(), size),
        "plain copy": lambda lane: _copy(lane, shards, out),
    }
    if os.environ.get("MGD_DATACOMP") and os.environ.get("MGD_DATACOMP_PYTHON"):
        lanes["official"] = lambda lane: _official(lane, shards, root / "subset.npy", out, size)
    measured = [Lane(name) for name in lanes]
    for _ in range(repeats):
        for lane in measured:
            shutil.rmtree(out, ignore_errors=True)
            os.sync()  # nobody pays for what the one before left to be written
            lanes[lane.name](lane)
    return measured


def _reshard(lane: Lane, pool: Path, subset: Path, out: Path, workers: int, size: int) -> None:
    began, cpu = time.perf_counter(), _cpu()
    done = reshard(pool, subset, out, ReshardOptions(shard_size=size, workers=workers))
    lane.seconds.append(time.perf_counter() - began)
    lane.samples, lane.size = done.samples, done.size
    lane.cpu = _cpu() - cpu if workers == 1 else 0.0  # workers are not this process's own children


def _copy(lane: Lane, shards: Path, out: Path) -> None:
    tars = sorted(shards.glob("*.tar"))
    out.mkdir()
    began, cpu = time.perf_counter(), _cpu()
    for tar in tars:
        shutil.copyfile(tar, out / tar.name)
        with open(out / tar.name, "rb") as file:
            os.fsync(file.fileno())
    sync(out)
    lane.seconds.append(time.perf_counter() - began)
    lane.size, lane.cpu = sum(tar.stat().st_size for tar in tars), _cpu() - cpu


def _official(lane: Lane, shards: Path, subset: Path, out: Path, size: int) -> None:
    out.mkdir()
    cpu = _cpu()
    command = [os.environ["MGD_DATACOMP_PYTHON"], f"{os.environ['MGD_DATACOMP']}/resharder.py", "-i", str(shards)]
    command += ["-o", str(out), "-s", str(subset), "-j", str(cores()), "--shard-size", str(size)]
    environment = {**os.environ, "NO_ALBUMENTATIONS_UPDATE": "1"}
    run = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    found = DONE.search(run.stderr + run.stdout)
    if found is None:
        raise RuntimeError(f"the official resharder did not say how long it took: {run.stderr[-2000:]}")
    lane.seconds.append(float(found[2]))
    lane.samples = int(json.loads((out / "meta.json").read_text())["output_count"])
    lane.size, lane.cpu = sum(tar.stat().st_size for tar in out.glob("*.tar")), _cpu() - cpu


def _cpu() -> float:
    """Processor seconds of this process and those it waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def show(whole: list[Lane], part: list[Lane], index_s: float) -> None:
    """The table."""
    print(f"{'':<14}{'share':>6}{'seconds (least .. most)':>26}{'samples/s':>11}{'MB/s':>8}{'cpu µs/sample':>15}")
    for share, lanes in ((1.0, whole), (KEPT, part)):
        for lane in lanes:
            seconds = f"{median(lane.seconds):.2f} ({min(lane.seconds):.2f} .. {max(lane.seconds):.2f})"
            rate = f"{lane.samples_per_s:,.0f}" if lane.samples else ""
            each = f"{1e6 * lane.cpu / lane.samples:,.0f}" if lane.samples and lane.cpu else ""
            print(f"{lane.name:<14}{share:>6.0%}{seconds:>26}{rate:>11}{lane.mb_per_s:>8,.0f}{each:>15}")
    print(f"indexing the pool, once, every picture decoded: {index_s:.1f} s")


def figures(
    whole: list[Lane], part: list[Lane], index_s: float, samples: int, repeats: int
) -> dict[str, float | int | None]:
    """What the last line says; the official tool's figures are null where it was not there."""
    one, many, copy, *official = whole
    best = max(one, many, key=lambda lane: lane.samples_per_s)
    other = official[0] if official else None
    return {
        "samples_per_s": best.samples_per_s,
        "mb_per_s": best.mb_per_s,
        "copy_mb_per_s": copy.mb_per_s,
        "samples_per_s_one_process": one.samples_per_s,
        "samples_per_s_all_cores": many.samples_per_s,
        "mb_per_s_one_process": one.mb_per_s,
        "cpu_us_per_sample": 1e6 * one.cpu / one.samples,
        "official_samples_per_s": other.samples_per_s if other else None,
        "ratio": best.samples_per_s / other.samples_per_s if other else None,
        "ratio_one_process": one.samples_per_s / other.samples_per_s if other else None,
        "official_cpu_us_per_sample": 1e6 * other.cpu / other.samples if other else None,
        "ratio_part": median(part[3].seconds) / min(median(part[0].seconds), median(part[1].seconds))
        if other
        else None,
        "samples": samples,
        "repeats": repeats,
        "index_s": index_s,
    }


if __name__ == "__main__":
    main()
