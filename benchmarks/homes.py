"""Is a home in an S3 store that fails all the time as good as a local one, whoever is killed and wherever it goes on?

`python -m benchmarks.homes` curates a small pool in a local home, and in homes of a real S3 server on loopback, through
a proxy that answers 503, breaks connections before and in the middle of answers, trickles and stalls. Compared are the
bytes of all published tables (but timings) and of the subset file, and the values of the report.

* one home is worked on without a stop;
* others by processes that are ended by SIGKILL at random instants, and go on with the same working copy; the last of
  each life ends by itself (`kills`, `mismatches`);
* one is begun on a machine that is killed in the middle and goes on on another, whose cache is empty: what that one did
  again is counted, in units (`redone`);
* a third, empty machine asks it (`mgd runs`, `sql`, `export`, `report`, `subset`), and its answers are held against
  those of the local home (`answers`, `wrong_answers`); then it removes the run (`left`: objects of it that stay).

Requests and bytes are the proxy's. `--quick` kills three times.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import fsspec

from benchmarks._envelope import emit
from benchmarks.s3 import RATES
from flows.cli import main as main_of_mgd
from tasks.homes.opening import opened, own
from tasks.homes.working_copies import CACHE, working_copy
from tasks.report.reports import result_table, write_report
from testing.children import CHILDREN
from testing.faulty_proxy import FaultyProxy
from testing.loopback_s3 import loopback_s3, s3_environment, speaking_to
from testing.small_catalog import curate_plainly, published, small_catalog

KILLS, QUICK_KILLS = 10, 3
BUCKET = "homes"
MOVED_AFTER = 12
"""Units after which the first machine dies."""
UNITS = ("pools/*/pool.json", "runs/*/work/**/*.json", "runs/*/subset.npy", "runs/*/report.html")


def work(catalog: str, home: str, environment: dict[str, str]) -> None:
    """In a child: what `mgd curate` does, without Prefect."""
    os.environ.update(environment)
    with opened(home) as path:
        directory = curate_plainly(Path(catalog), path)
        own(path, directory.name)
        write_report(path, directory.name)


def start(catalog: Path, home: str, cache: Path) -> ForkServerProcess:
    """A child of a machine whose cache is ``cache``."""
    environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    child = CHILDREN.Process(target=work, args=(str(catalog), home, {**environment, CACHE: str(cache)}))
    child.start()
    return child


def finish(catalog: Path, home: str, cache: Path) -> float:
    """A child that is let alone; its seconds."""
    began, child = time.monotonic(), start(catalog, home, cache)
    child.join()
    assert child.exitcode == 0, f"{home}: a child ended with status {child.exitcode}"
    return time.monotonic() - began


def killed(catalog: Path, home: str, cache: Path, after: float) -> bool:
    """A child that is killed after so many seconds; False where it had ended before."""
    child = start(catalog, home, cache)
    child.join(after)
    child.kill()
    child.join()
    return child.exitcode == -9


@contextmanager
def machine(cache: Path) -> Iterator[None]:
    """This process is on the machine of a cache."""
    before = os.environ.get(CACHE)
    os.environ[CACHE] = str(cache)
    try:
        yield
    finally:
        os.environ.pop(CACHE)
        if before is not None:
            os.environ[CACHE] = before


def contents(home: str, cache: Path) -> dict[str, bytes]:
    """All that is compared of a home's one run, as an empty machine finds it."""
    with machine(cache), opened(home, writes=False) as path:
        (run,) = (one for one in (path / "runs").iterdir() if one.name[0] != ".")
        return published(run) | {"report": repr(result_table(path, run.name)).encode()}


def differ(name: str, expected: dict[str, bytes], found: dict[str, bytes]) -> int:
    """How many files differ; they are named."""
    wrong = [one for one in sorted(expected.keys() | found.keys()) if expected.get(one) != found.get(one)]
    print(f"{name}: {len(expected)} files and values compared, {len(wrong)} differ {wrong[:5] or ''}", flush=True)
    return len(wrong)


def versions(home: Path) -> dict[str, int]:
    """The finished units below a path, and which file holds each."""
    return {str(p.relative_to(home)): p.stat().st_mtime_ns for one in UNITS for p in home.glob(one)}


def mgd(home: str, cache: Path, *words: str) -> str:
    """What a command of mgd prints."""
    environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    said = cache.with_suffix(".said")
    child = CHILDREN.Process(target=command, args=([*words, "--home", home], {**environment, CACHE: str(cache)}, said))
    child.start()
    child.join()
    assert child.exitcode == 0, (words, home)
    return said.read_text()


def command(words: list[str], environment: dict[str, str], said: Path) -> None:
    """In a child: a command of mgd, whose words go to a file."""
    os.environ.update(environment)
    with open(said, "w") as sys.stdout:
        status = main_of_mgd(words)
    os._exit(status)


def answers(home: str, cache: Path, out: Path, quick: bool) -> dict[str, str | bytes]:
    """What a home answers to those who read it."""
    out.mkdir()
    found: dict[str, str | bytes] = {}
    for query in (
        "select * exclude (run) from comparison order by all",
        "select uid, g_sum, count from sample_outcomes order by 1",
    ):
        found[query] = mgd(home, cache, "sql", query, "--format", "csv")
    found["runs"] = mgd(home, cache, "runs").split("\n")[1].split()[0]
    if not quick:
        mgd(home, cache, "report")
    for form, name in (("datacomp", "a.npy"), ("parquet", "a.parquet"), ("webdataset", "shards"))[2 * quick :]:
        mgd(home, cache, "export", "--format", form, "--out", str(out / name))
    run = str(found["runs"])
    mgd(home, cache, "subset", f"run(id='{run}')", "--run", run, "--out", str(out / "b.npy"))
    return found | {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*")) if p.suffix in SAME}


SAME = (".npy", ".tar")


def measure(place: Path, quick: bool, draw: random.Random) -> dict[str, Any]:
    """All figures."""
    catalog, local = small_catalog(place), str(place / "local")
    finish(catalog, local, place / "none")
    expected = contents(local, place / "none")
    with loopback_s3() as where:
        with speaking_to("http://{}:{}".format(*where)):
            fsspec.filesystem("s3").mkdir(BUCKET)
        with FaultyProxy(where, RATES, seed=draw.randrange(2**30)) as proxy, speaking_to(proxy.url):
            os.environ.update(s3_environment(proxy.url))
            whole = f"s3://{BUCKET}/whole"
            seconds = finish(catalog, whole, place / "cache-whole")
            once = {"requests": proxy.requests, "sent": proxy.sent, "received": proxy.received}
            stored = sum(fsspec.filesystem("s3").du(f"{BUCKET}/whole", total=False).values())
            print(f"uninterrupted: {seconds:.0f} s, {once}, {stored:,} bytes stored", flush=True)
            wrong = differ("uninterrupted", expected, contents(whole, place / "reader-whole"))
            kills, lives = kill_often(catalog, place, QUICK_KILLS if quick else KILLS, seconds, draw)
            for life in lives:
                wrong += differ(life, expected, contents(life, place / f"reader-{life[-6:]}"))
            moved = move(catalog, place)
            wrong += differ("moved", expected, contents(f"s3://{BUCKET}/moved", place / "reader-moved"))
            asked = answers(local, place / "none", place / "out-local", quick)
            told = answers(whole, place / "third", place / "out-third", quick)
            bad = [name for name in asked if asked[name] != told.get(name)]
            print(f"a third machine: {len(asked)} answers and files compared, {len(bad)} differ {bad}", flush=True)
            mgd(whole, place / "third", "remove", str(told["runs"]))
            fsspec.filesystem("s3").invalidate_cache()
            left = [path for path in fsspec.filesystem("s3").find(f"{BUCKET}/whole") if str(told["runs"]) in path]
            faults = dict(sorted(proxy.faults.items()))
            print(f"{proxy.requests:,} requests in all, spoilt {faults}; left of the removed run: {left}", flush=True)
            return {
                "kills": kills, "lives": len(lives), "mismatches": wrong, **moved,
                "answers": len(asked), "wrong_answers": len(bad), "left": len(left),
                "uninterrupted": once, "stored_bytes": stored,
                "requests": proxy.requests, "faults_injected": sum(faults.values()), "faults": faults,
                "bytes_sent": proxy.sent, "bytes_received": proxy.received,
            }  # fmt: skip


def kill_often(catalog: Path, place: Path, wanted: int, seconds: float, draw: random.Random) -> tuple[int, list[str]]:
    """Homes that were worked on by processes killed at random instants, each finished at last."""
    kills, lives = 0, list[str]()
    while kills < wanted:
        home, cache = f"s3://{BUCKET}/life-{len(lives)}", place / f"cache-{len(lives)}"
        here = 0
        while kills < wanted and here < 4 and killed(catalog, home, cache, draw.uniform(0.1, 0.7) * seconds):
            kills, here = kills + 1, here + 1
        finish(catalog, home, cache)
        lives.append(home)
        print(f"{home}: killed {here} times, then finished", flush=True)
    return kills, lives


def move(catalog: Path, place: Path) -> dict[str, Any]:
    """A home that is begun on one machine, killed, and finished on another; what was done twice."""
    home, first, second = f"s3://{BUCKET}/moved", place / "machine-1", place / "machine-2"
    with machine(first):
        root = working_copy(home).root
    child = start(catalog, home, first)
    while child.is_alive() and len(versions(root)) < MOVED_AFTER:
        time.sleep(0.01)
    child.kill()
    child.join()
    done = versions(root)
    began = {path for path in fsspec.filesystem("s3").find(f"{BUCKET}/moved")}
    took = finish(catalog, home, second)
    kept = [unit for unit in done if f"{BUCKET}/moved/{unit}" in began]
    redone = len(done) - len(kept)
    print(
        f"moved: the first machine had finished {len(done)} units, {len(kept)} of them were in the store; {redone} "
        f"were done again on the second, which took {took:.0f} s, the silence of the dead one's lease among them",
        flush=True,
    )
    return {"units_before": len(done), "redone": redone}


def main() -> None:
    """Print a line for each home, and the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three kills")
    parser.add_argument("--seed", type=int, default=0, help="of faults and instants")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory(prefix="mgd-homes-") as place:
        emit("homes", {"quick": options.quick, **measure(Path(place), options.quick, random.Random(options.seed))})


if __name__ == "__main__":
    main()
