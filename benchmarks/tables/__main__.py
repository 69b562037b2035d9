"""Do updates and questions hold up at 12.8 and 128 million samples?

`python -m benchmarks.tables` publishes the tables of a synthetic pool (`benchmarks.tables.synthetic`), then, each in a
process of its own:

* the count update of a round, by the rule of the paper (sign) and by the demo's (exchange, on the sum
  of g over the rounds, scaled by sample): seconds and peak memory of the slower one;
* ten questions that users ask, in SQL, on the run's views: wall and CPU seconds, the best of three;
* a home with 1,280 parts of tables: seconds until all views are open.

Bars: 90 s at 12.8 M samples, 15 minutes at 128 M, 6 GiB, 3 s a question, 2 s to open. The update of 128 M samples is
left out where less than 30 GB of disk are free, with `--skip-large` and with `--quick`: then its key is what the
measured seconds a sample come to, and `update_128m_is_measured` is false. `--quick` has a hundredth of 12.8 M samples:
its updates' seconds are scaled up likewise, the questions' are as they are.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks._envelope import emit
from benchmarks.tables.synthetic import RUN, publish_rounds, publish_samples
from tasks.catalog.recipe_options import DescentOptions
from tasks.curation.count_updates import publish_update
from tasks.files.artefacts import read_json
from tasks.tables.published import files, runs
from tasks.tables.queries import connect

MILLIONS_12, MILLIONS_128 = 12_800_000, 128_000_000
PARTS = 1_280
ROOM = 30e9
ROUNDS = 3
RULES: dict[str, dict[str, Any]] = {
    "sign, p = 0.2": {"rule": "sign", "p": 0.2},
    "exchange, all rounds": {"rule": "exchange", "p": 0.2, "share": 0.1, "momentum": 1.0, "scale": "sample"},
}
QUESTIONS = {
    "How did the rounds go?": "SELECT * FROM rounds_summary",
    "How often does what stand?": "SELECT round, count, count(*) FROM counts GROUP BY ALL ORDER BY ALL",
    "What became of the pool?": "SELECT outcome, count(*), avg(g_sum) FROM sample_outcomes GROUP BY outcome",
    "What does the target want least?": "SELECT text, g_sum, count FROM sample_outcomes ORDER BY g_sum DESC LIMIT 10",
    "What happened to this sample?": "SELECT round, count, g FROM sample_rounds WHERE uid = '{uid}' ORDER BY round",
    "Do counts follow the CLIP score?": "SELECT round(clip_l14_similarity_score / 0.02) * 0.02 AS score, avg(count), "
    "count(*) FROM sample_outcomes GROUP BY score ORDER BY score",
    "Do two rounds agree?": "SELECT corr(g, g_before), count(*) FROM sample_rounds WHERE round = 2",
    "What of captions with this word?": "SELECT count(*), avg(g), avg(count) FROM sample_rounds WHERE round = 2 AND "
    "contains(text, 'vintage dog')",
    "Which shards are left?": "SELECT shard, sum(count) AS kept FROM sample_outcomes GROUP BY shard ORDER BY kept DESC "
    "LIMIT 10",
    "What moved last, and by what g?": "SELECT change, count(*), avg(g) FROM movers WHERE round = 3 GROUP BY change",
}


def main() -> None:
    """Print the tables and the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="128,000 samples")
    parser.add_argument("--skip-large", action="store_true", help="leave 128 million samples out")
    parser.add_argument("--part", nargs=2, metavar=("WHAT", "HOME"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        print(json.dumps(PARTS_OF[options.part[0]](Path(options.part[1]))))
        return
    with tempfile.TemporaryDirectory(prefix="mgd-tables-") as place:
        room = shutil.disk_usage(place).free >= ROOM
        emit("tables", measure(Path(place), options.quick, room and not (options.quick or options.skip_large)))


def measure(place: Path, quick: bool, large: bool) -> dict[str, Any]:
    """All figures; each part has a process, and so a peak of memory, of its own."""
    n = MILLIONS_12 // 100 if quick else MILLIONS_12
    home = _published(place / "home", n, samples=True)
    updates = _part("update", home)
    questions = _part("questions", home)
    opening = _part("opening", _many_parts(place / "many"))
    shutil.rmtree(home)
    figures = {
        "rows": n,
        "update_s_12m": _slowest(updates) * MILLIONS_12 / n,
        "update_s_128m": _slowest(updates) * MILLIONS_128 / n,
        "update_128m_is_measured": False,
        "peak_gib": max(updates["peak_gib"], questions["peak_gib"]),
        "slowest_view_s": max(seconds for seconds, _ in questions["seconds"].values()),
        "slowest_view_cpu_s": max(cpu for _, cpu in questions["seconds"].values()),
        "views_open_s": opening["seconds"],
        "parts": PARTS,
        "updates": updates,
        "questions": questions,
    }
    show(n, updates, questions, opening)
    if large:
        figures |= _large(place / "large")
    return figures


def _large(home: Path) -> dict[str, Any]:
    updates = _part("update", _published(home, MILLIONS_128, samples=False))
    shutil.rmtree(home)
    show(MILLIONS_128, updates, None, None)
    peak = {"update_128m_peak_gib": updates["peak_gib"], "updates_128m": updates}
    return {"update_s_128m": _slowest(updates), "update_128m_is_measured": True} | peak


def show(n: int, updates: dict[str, Any], questions: dict[str, Any] | None, opening: dict[str, Any] | None) -> None:
    """The tables, for a person."""
    print(
        f"\n{n:,} samples, {ROUNDS} rounds"
        + f"\n{'count update':<36}{'wall s':>9}{'CPU s':>9}{'raised':>14}{'lowered':>14}"
    )
    for rule, (seconds, cpu, raised, lowered) in updates["rules"].items():
        print(f"{rule:<36}{seconds:>9.1f}{cpu:>9.1f}{raised:>14,}{lowered:>14,}")
    print(f"{'peak memory':<36}{updates['peak_gib']:>9.2f} GiB")
    if questions and opening:
        print(f"\n{'question':<36}{'wall s':>9}{'CPU s':>9}")
        for name, (seconds, cpu) in questions["seconds"].items():
            print(f"{name:<36}{seconds:>9.2f}{cpu:>9.2f}")
        print(f"{'peak memory':<36}{questions['peak_gib']:>9.2f} GiB")
        print(f"\n{PARTS:,} parts: views open in {opening['seconds']:.2f} s (one run: {opening['one_run']:.2f} s)")


def update(home: Path) -> dict[str, Any]:
    """Wall and CPU seconds, raised and lowered by each rule, and the process's peak memory."""
    rules = {}
    for name, options in RULES.items():
        began, cpu = time.monotonic(), time.process_time()
        moves = publish_update(home / "runs" / RUN, ROUNDS - 1, DescentOptions(rounds=ROUNDS, **options))
        taken = (time.monotonic() - began, time.process_time() - cpu)
        rules[name] = (*taken, moves.raised, moves.lowered)
    return {"rules": rules, "peak_gib": _peak()}


def questions(home: Path) -> dict[str, Any]:
    """Wall and CPU seconds of each question, the best of three."""
    seconds: dict[str, tuple[float, float]] = {}
    with connect(home, RUN) as connection:
        uid = connection.execute("SELECT uid FROM samples LIMIT 1 OFFSET 50000").fetchall()[0][0]
        for name, query in QUESTIONS.items():
            taken = []
            for _ in range(3):
                wall, cpu = time.monotonic(), time.process_time()
                rows = connection.execute(query.format(uid=uid)).fetchall()
                taken.append((time.monotonic() - wall, time.process_time() - cpu))
            assert rows, name
            seconds[name] = min(taken)
    return {"seconds": seconds, "peak_gib": _peak()}


def opening(home: Path) -> dict[str, Any]:
    """Seconds until every view of all runs, and of one, answers; the best of three."""
    found: dict[str, float] = {}
    for name, run in (("seconds", "all"), ("one_run", None)):
        taken = []
        for _ in range(3):
            began = time.monotonic()
            with connect(home, run) as connection:
                connection.execute("SELECT * FROM views").fetchall()
            taken.append(time.monotonic() - began)
        found[name] = min(taken)
    return found


PARTS_OF = {"update": update, "questions": questions, "opening": opening}


def _published(home: Path, n: int, samples: bool) -> Path:
    """The tables of a synthetic run: samples if asked for, and rounds."""
    began = time.monotonic()
    if samples:
        publish_samples(home, n)
    publish_rounds(home, n, ROUNDS)
    size = sum(path.stat().st_size for path in home.rglob("*.parquet"))
    print(f"{n:,} samples published: {size / 1e9:.2f} GB, {time.monotonic() - began:.0f} s", flush=True)
    return home


def _many_parts(home: Path) -> Path:
    """160 runs of two rounds each: 8 parts of tables a run. One is published, the others are copies of it."""
    publish_samples(home, 64)
    publish_rounds(home, 64, 2)
    listed = read_json(home / "tables" / "_manifests" / f"{RUN}.json")
    kept = {"samples": 1, "counts": 2, "metagradients": 2, "rounds": 2, "timings": 1}
    tables = {name: dict(list(listed["tables"][name].items())[:most]) for name, most in kept.items()}
    for number in range(PARTS // sum(kept.values())):
        run = f"run-{number:03d}"
        for name in kept:
            shutil.copytree(home / "tables" / name / f"run={RUN}", home / "tables" / name / f"run={run}")
        told = json.dumps({**listed, "run": run, "tables": tables}).replace(f"run={RUN}", f"run={run}")
        (home / "tables" / "_manifests" / f"{run}.json").write_text(told)
    (home / "tables" / "_manifests" / f"{RUN}.json").unlink()
    assert sum(len(files(home, run, name)) for run in runs(home) for name in kept) == PARTS
    return home


def _part(what: str, home: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.tables", "--part", what, str(home)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _slowest(updates: dict[str, Any]) -> float:
    return max(float(seconds) for seconds, *_ in updates["rules"].values())


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
