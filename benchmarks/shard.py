"""Is what is sharded what was given, quickly, and the same bytes whatever happens on the way?

`python -m benchmarks.shard` writes the same pairs in every form of `testing.picture_sources`, shards each, reads the
shards back by webdataset and by open_clip's own pipeline, and compares. Then a folder of JPEGs with captions is sharded
at 256 pixels by two threads (as `mgd shard` does it), beside a plain loop of webdataset's ShardWriter over the same
folder with the same transform, each in a process of its own, one after the other; peak memory is taken at two sizes of
a pool of tiny pictures; sharding is killed by SIGKILL at random instants and goes on; threads, processes and, where it
is installed, Ray carry the tasks; every defect is planted in every form. `--quick` does less of each.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks._envelope import emit
from testing.hostile_pool import Judgement
from testing.picture_defects import fitting, judge_pairs, judge_tars, tar_defects
from testing.picture_sources import FORMS, expected, pairs, picture, shard_plainly

SIZE = {"image_size": 256, "resize_mode": "keep_ratio", "encode_format": "jpg"}
CHILD = """
import json, resource, sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tasks.pool.record import Tolerance
from tasks.sharding.options import ShardOptions
from tasks.sharding.plans import plan_shards
from tasks.sharding.sharding import write_shards
from tasks.sharding.writing import write_shard
import webdataset
if __name__ == "__main__":
    source, out, home, options, size, workers = json.loads(sys.argv[1])
    began = time.perf_counter()
    options = ShardOptions(**options)
    plan = plan_shards([source], Path(home), options, size)
    with ThreadPoolExecutor(workers) as pool:
        write_shards(plan, out, Path(home), options, Tolerance(), lambda jobs: pool.map(write_shard, jobs), workers)
    seconds = time.perf_counter() - began
    print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
"""
PLAIN = """
import io, json, os, sys, time
from PIL import Image
import webdataset
source, out, size = json.loads(sys.argv[1])
os.makedirs(out)
began = time.perf_counter()
with webdataset.ShardWriter(out + "/%08d.tar", maxcount=size, verbose=0) as writer:
    for number, name in enumerate(sorted(one for one in os.listdir(source) if one.endswith(".jpg"))):
        with Image.open(f"{source}/{name}") as image:
            image = image.convert("RGB")
        side = min(image.size)
        if side > 256:
            width, height = (round(length * 256 / side) for length in image.size)
            image = image.resize((width, height), Image.Resampling.BOX)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=95)
        with open(f"{source}/{name[:-4]}.txt", encoding="utf-8") as file:
            caption = file.read()
        sample = {"jpg": buffer.getvalue(), "txt": caption, "json": {"caption": caption}}
        writer.write({"__key__": f"{number:012d}", **sample})
print(json.dumps([time.perf_counter() - began]))
"""


def main() -> None:
    """Measure everything and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer pictures, kills and defects, under 45 s")
    parser.add_argument("--only", choices=("forms", "speed", "memory", "kills", "runners", "hostile"), help="one part")
    asked = parser.parse_args()
    quick: bool = asked.quick
    parts: dict[str, Callable[[Path], dict[str, Any]]] = {
        "forms": round_trip,
        "speed": lambda place: speed(place, 300 if quick else 2000, 1 if quick else 5),
        "memory": lambda place: memory(place, (1000, 3000) if quick else (5_000, 50_000)),
        "kills": lambda place: kills(place, 3 if quick else 20),
        "runners": lambda place: runners(place, quick),
        "hostile": lambda place: hostile(place, quick),
    }
    figures: dict[str, Any] = {"quick": quick}
    with tempfile.TemporaryDirectory(prefix="mgd-shard-") as name:
        for part, measured in parts.items():
            if asked.only in (None, part):
                figures |= measured(Path(name) / part)
    emit("shard", figures)


def round_trip(scratch: Path, n: int = 23) -> dict[str, Any]:
    """Every form, read back by two readers: pairs that differ from what was given."""
    mismatches = 0
    for form, write in FORMS.items():
        made, place = pairs(n), scratch / form.replace(" ", "-")
        shard_plainly([write(place / "source", made)], place / "out", place / "home", shard_size=10)
        wanted = sorted(expected(form, one) for one in made)
        tars = sorted(str(path) for path in (place / "out").glob("*.tar"))
        wrong = (n - _same(wanted, _by_webdataset(tars))) + (n - _pixels(made, wanted, _by_open_clip(tars)))
        print(f"{form:<36} {n} pairs, {len(tars)} shards, {wrong} mismatches by webdataset and open_clip", flush=True)
        mismatches += wrong
    return {"sources": len(FORMS), "mismatches": mismatches}


def _same(wanted: list[tuple[bytes, str]], found: list[tuple[bytes, str]]) -> int:
    return sum(a == b for a, b in zip(wanted, sorted(found), strict=False)) if len(wanted) == len(found) else 0


def _by_webdataset(tars: list[str]) -> list[tuple[bytes, str]]:
    import webdataset

    return [
        (next(one[name] for name in ("jpg", "png", "webp") if name in one), one["txt"].decode())
        for one in webdataset.WebDataset(tars, shardshuffle=False)
    ]


def _by_open_clip(tars: list[str]) -> list[tuple[bytes, str]]:
    """Pixels and captions as open_clip's training pipeline yields them for evaluation (`get_wds_dataset`); it imports
    pandas for other forms, so where that is missing an empty module stands for it."""
    if "pandas" not in sys.modules and find_spec("pandas") is None:
        sys.modules["pandas"] = types.ModuleType("pandas")
        sys.modules["pandas"].__spec__ = ModuleSpec("pandas", None)
    from open_clip_train.data import get_wds_dataset

    captions: list[str] = []

    def tokens(text: str) -> list[int]:
        captions.append(text)
        return [len(captions) - 1]

    args = argparse.Namespace(val_data="::".join(tars), val_num_samples=0, batch_size=4, workers=0, world_size=1)
    args.train_num_samples = args.train_data_upsampling_factors = None
    found = []
    for images, texts in get_wds_dataset(args, lambda image: image.tobytes(), False, tokenizer=tokens).dataloader:
        found += [(image, captions[int(text)]) for image, text in zip(images, texts, strict=True)]
    return found


def _pixels(made: list[Any], wanted: list[tuple[bytes, str]], found: list[tuple[bytes, str]]) -> int:
    from tasks.pool.decoding import decode

    pixels = sorted((decode(image).image.tobytes(), caption) for image, caption in wanted)
    return _same(pixels, found) if len(found) == len(made) else 0


def speed(scratch: Path, n: int, times: int) -> dict[str, Any]:
    """Samples a second at 256 pixels: ours by two threads, a plain loop; the median ratio of runs side by side."""
    source = scratch / "source"
    source.mkdir(parents=True)
    for number in range(n):
        (source / f"{number:06d}.jpg").write_bytes(picture(number, "JPEG", (640, 480)))
        (source / f"{number:06d}.txt").write_text(f"a picture of number {number}")
    rates: list[tuple[float, float]] = []
    for i in range(times):
        place = scratch / str(i)
        ours, _ = _child(CHILD, str(source), str(place / "out"), str(place / "home"), SIZE, 100, 2)
        (plain,) = _child(PLAIN, str(source), str(place / "plain"), 100)
        rates.append((n / ours, n / plain))
        print(
            f"{n} JPEGs of 640 x 480 to 256: {n / ours:,.0f} a second by two threads, {n / plain:,.0f} plainly",
            flush=True,
        )
        shutil.rmtree(place)
    ours, plain = (statistics.median(rate) for rate in zip(*rates, strict=True))
    ratio = statistics.median(a / b for a, b in rates)
    return {"samples_per_s": round(ours, 1), "plain_samples_per_s": round(plain, 1), "ratio": round(ratio, 2)}


def memory(scratch: Path, sizes: tuple[int, int]) -> dict[str, Any]:
    """Peak MiB of one process that shards a flat folder of so many tiny pictures."""
    peaks = []
    for n in sizes:
        source = scratch / str(n)
        source.mkdir(parents=True)
        data = picture(0, "JPEG", (16, 12))
        for number in range(n):
            (source / f"{number:07d}.jpg").write_bytes(data)
            (source / f"{number:07d}.txt").write_text(f"caption {number}")
        seconds, peak = _child(CHILD, str(source), f"{scratch}/out-{n}", f"{scratch}/home-{n}", {}, 1000, 1)
        print(f"{n:,} tiny pictures: peak {peak:,.0f} MiB, {n / seconds:,.0f} a second by one process", flush=True)
        peaks.append(peak)
    return {"memory_samples": list(sizes), "peak_mib": [round(peak) for peak in peaks]}


def kills(scratch: Path, times: int) -> dict[str, Any]:
    """SIGKILL of `mgd shard`'s work, its workers with it, at random instants; whether the bytes are those of a run that
    nobody disturbed."""
    source, draw = scratch / "source", random.Random(0)
    FORMS["pictures with sidecars"](source, pairs(120, (200, 160)))
    sound = shard_bytes(source, scratch / "sound", scratch / "home-sound", times=0, draw=draw)
    done, digest = shard_bytes(source, scratch / "killed", scratch / "home", times, draw)
    print(f"{done} SIGKILLs: {'the same bytes' if digest == sound[1] else 'OTHER BYTES'}", flush=True)
    return {"kills": done, "killed_mismatches": int(digest != sound[1])}


def shard_bytes(source: Path, out: Path, home: Path, times: int, draw: random.Random) -> tuple[int, str]:
    """Shard, killed so many times on the way (begun anew where it was quicker), then to the end; kills and digest."""
    done = 0
    while done < times:
        child = _start(CHILD, str(source), str(out), str(home), SIZE, 4, 2)
        time.sleep(draw.uniform(0.3, 1.0) * _TOOK[0])
        if child.poll() is not None:
            shutil.rmtree(out, ignore_errors=True)  # it was through: from the beginning
            continue
        os.killpg(child.pid, 9)
        child.wait()
        done += 1
    began = time.monotonic()
    _child(CHILD, str(source), str(out), str(home), SIZE, 4, 2)
    if not times:
        _TOOK[0] = time.monotonic() - began
    return done, digest_of(out)


_TOOK = [3.0]
"""Seconds of a run that nobody disturbed."""


def digest_of(out: Path) -> str:
    """Digest of every file's name and bytes."""
    state = hashlib.blake2b()
    for path in sorted(out.rglob("*")):
        if path.is_file():
            state.update(path.name.encode() + b"\0" + path.read_bytes())
    return state.hexdigest()


def runners(scratch: Path, quick: bool) -> dict[str, Any]:
    """The command itself, by each task runner: how many of them, and whose bytes differ from those of plain calls."""
    source = scratch / "source"
    FORMS["pictures with sidecars"](source, pairs(60))
    shard_plainly([str(source)], scratch / "plain", scratch / "home-plain", shard_size=10, backwards=True)
    wanted, wrong = digest_of(scratch / "plain"), 0
    kinds = ["threads", *([] if quick else ["processes"]), *(["ray"] if find_spec("prefect_ray") and not quick else [])]
    home = scratch / "home"
    try:
        for kind in kinds:
            command = [sys.executable, "-m", "flows.cli", "shard", str(source), "--out", str(scratch / kind)]
            command += ["--home", str(home), "--shard-size", "10", "--runner", kind, "--workers", "2"]
            ended = subprocess.run(command, capture_output=True, text=True)
            assert ended.returncode == 0, f"{kind}: {ended.stderr[-2000:]}"
            wrong += digest_of(scratch / kind) != wanted
    finally:
        subprocess.run([sys.executable, "-m", "flows.cli", "server", "stop", "--home", str(home)], capture_output=True)
    print(f"{', '.join(kinds)}: {wrong} with other bytes than plain calls", flush=True)
    return {"runners": kinds, "runner_mismatches": wrong}


def hostile(scratch: Path, quick: bool) -> dict[str, Any]:
    """Every defect through every form: silent ones, and good samples lost."""
    judged: dict[str, Judgement] = {}
    for form in FORMS:
        for names in [fitting(form)] if quick else [[name] for name in fitting(form)]:
            name = f"{form}: {', '.join(names)}"
            judged[name] = judge_pairs(form, names, scratch / f"{len(judged)}")
    for name, one in {} if quick else tar_defects().items():
        judged[f"tars: {name}"] = judge_tars(one, scratch / name)
    silent = [name for name, one in judged.items() if one.silent]
    lost, good = sum(one.lost for one in judged.values()), sum(one.good for one in judged.values())
    print(f"{len(judged)} defects in {len(FORMS)} forms: {len(silent)} silent, {lost} of {good:,} good samples lost")
    return {"hostile": len(judged), "silent": silent, "lost_good": lost, "good": good}


def _start(program: str, *arguments: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    place = Path(tempfile.gettempdir()) / f"mgd-shard-child-{hashlib.md5(program.encode()).hexdigest()[:8]}.py"
    place.write_text(program)
    command = [sys.executable, str(place), json.dumps(arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True)


def _child(program: str, *arguments: object) -> list[float]:
    child = _start(program, *arguments)
    said, _ = child.communicate()
    assert child.returncode == 0, f"a child ended with {child.returncode}"
    return list(json.loads(said.splitlines()[-1]))


if __name__ == "__main__":
    main()
