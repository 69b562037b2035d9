"""What mgd does of the way, step by step, each against what the pool's makers know or what plain loops find."""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks.rehearsal.pool import RehearsalPool
from benchmarks.rehearsal.steps import Fault, check, same
from tasks.evaluation.datacomp import tasks
from testing.datacomp_pool import DIMENSIONS
from testing.field_case import Ended, run

FRACTION = 0.3
"""Of the filter by CLIP's score."""
RECORD = np.dtype("u8,u8")
METHOD = """\
name = "Metagradient descent, a rehearsal"
author = "Nobody"
email = "nobody@example.org"
track = "filtering"
hf_username = "nobody"
hf_repo_name = "nothing"
text = "Counts by metagradients, on a pool of the embedded pictures."
"""
Samples = Counter[tuple[str, bytes, bytes]]
"""uid, picture and caption of samples, and how often each is there."""


@dataclass
class Rehearsal:
    """Where everything lies, and how the debug catalog is made smaller, if it is."""

    place: Path
    pool: RehearsalPool
    sets: list[Path]
    overrides: tuple[str, ...] = ()
    shard_size: int = 1000

    @property
    def home(self) -> Path:
        """The home of all runs."""
        return self.place / "home"

    @property
    def shards(self) -> Path:
        """The pool's tars."""
        return self.pool.directory / "shards"

    @property
    def evalsets(self) -> Path:
        """The folder of the eight sets."""
        return self.sets[0].parent

    @property
    def rest(self) -> Path:
        """That of the others."""
        return self.place / "evalsets-rest"

    @property
    def subset(self) -> Path:
        """What the run chose, exported."""
        return self.place / "subset.npy"

    @property
    def results(self) -> Path:
        """The results of the model that was trained on it."""
        return self.place / "results" / "eval_results.jsonl"

    @property
    def submission(self) -> Path:
        """The submission's folder."""
        return self.place / "submission"

    @cached_property
    def run(self) -> str:
        """The run's id."""
        (directory,) = (self.home / "runs").glob("datacomp-debug-*")
        return directory.name

    @property
    def pool_record(self) -> Path:
        """The directory of the pool that mgd indexed."""
        (record,) = (self.home / "pools").glob("*/pool.json")
        return record.parent

    def catalog(self, command: str) -> list[str]:
        """A command on the debug catalog."""
        said = [command, "datacomp-debug", "--pool", str(self.shards), "--targets", str(self.evalsets)]
        labels = f'targets.tasks.garments.source="{self.sets[-1]}"'
        return [*said, *(part for one in (labels, *self.overrides) for part in ("--set", one))]

    def ask(self, query: str, run: str | None = None) -> list[dict[str, Any]]:
        """Rows of a question in SQL to the tables of a run (None: of the curation's)."""
        out = self.worked("sql", query, "--format", "json", "--run", run or self.run).out.strip()
        found = json.loads(out) if out.startswith("[") else [json.loads(line) for line in out.splitlines()]
        return list(found)

    def worked(self, *arguments: object) -> Ended:
        """`mgd` with some arguments, which has to end well."""
        ended = run([*(str(one) for one in arguments), "--home", str(self.home)])
        if ended.status or ended.crash:
            raise Fault(
                f"mgd {' '.join(map(str, arguments))[:200]} ended with {ended.status}: {ended.err}{ended.crash}"
            )
        return ended

    def refused(self, *arguments: object) -> str:
        """What `mgd` says, where it has to stop."""
        ended = run([*(str(one) for one in arguments), "--home", str(self.home)])
        check(ended.status != 0 and not ended.crash, f"mgd {arguments[0]} should have stopped: {ended.said}")
        return ended.err


def make(given: Rehearsal) -> str:
    """Write the pool, and read it as DataComp's tools would: keys, members, tables, stats and metadata."""
    pool, n = given.pool, 0
    pool.write()
    for number, attempts in enumerate(pool.shards):
        table = pq.read_table(pool.beside(number, ".parquet")).to_pylist()
        stats = json.loads(pool.beside(number, "_stats.json").read_text())
        with tarfile.open(pool.tar(number)) as tar:
            names = tar.getnames()
        alive = {row["key"] for row in table if row["status"] == "success"}
        same(f"keys of shard {number}", {name.split(".")[0] for name in names}, alive)
        same(f"members of shard {number}", [name.split(".")[1] for name in names], ["jpg", "json", "txt"] * len(alive))
        same(f"stats of shard {number}", (stats["count"], stats["successes"]), (len(attempts), len(alive)))
        n += len(alive)
    metadata = pq.read_table(pool.metadata())
    with np.load(pool.metadata().with_suffix(".npz")) as arrays:
        shapes = {name: arrays[name].shape for name in arrays}
    same("npz", shapes, {name: (len(pool.attempts), width) for name, width in DIMENSIONS.items()})
    same("uids of the metadata", metadata["uid"].to_pylist(), [one.uid for one in pool.attempts])
    same("samples", n, len(pool.alive()))
    return f"{len(pool.attempts):,} links in {len(pool.shards)} shards, {n:,} alive, {pool.drifted:,} drifted"


def census(given: Rehearsal) -> str:
    """The census finds what was planted, and nothing that was not."""
    given.worked(*given.catalog("census"))
    (path,) = (given.home / "census").glob("*/census.json")
    found, pool = json.loads(path.read_text()), given.pool
    dead = sum(one.image is None for one in pool.attempts)
    twins = Counter(one.image for one in pool.alive())
    planted = {"dead_link": dead, "sha256_drift": pool.drifted}
    planted |= {"duplicate_image": sum(n - 1 for n in twins.values())} if max(twins.values()) > 1 else {}
    findings = {kind: n for kind, n in found["findings"].items() if n and kind != "tested_on"}
    same("findings", findings, planted)
    totals = {name: found["totals"][name] for name in ("samples", "attempts", "metadata", "shards")}
    same("totals", totals, {"samples": len(pool.alive()), "attempts": len(pool.attempts),
                            "metadata": len(pool.attempts), "shards": len(pool.shards)})  # fmt: skip
    return ", ".join(f"{n:,} {kind}" for kind, n in planted.items())


def filters(given: Rehearsal) -> str:
    """Three of DataComp's filters on the metadata, by mgd and by plain loops."""
    rows, metadata = given.pool.attempts, given.pool.metadata().parent
    kept = int(FRACTION * len(rows))
    ranked = sorted(rows, key=lambda one: (-np.float32(one.l14), one.uid))
    wanted = {
        "no_filter": [one.uid for one in rows],
        f"clip_score(fraction={FRACTION})": [one.uid for one in ranked[:kept]],
        "image_size(min_side=200) & text_length(min_words=3, min_characters=6)": [
            one.uid
            for one in rows
            if min(one.record["original_width"], one.record["original_height"]) >= 200
            and len(one.caption.split()) > 2
            and len(one.caption) > 5
        ],
    }
    for number, (expression, uids) in enumerate(wanted.items()):
        out = given.place / f"filter-{number}.npy"
        given.worked("subset", expression, "--metadata", metadata, "--out", out)
        same(expression, read_uids(out), sorted(uids))
    return ", ".join(f"{len(uids):,} {expression.split('(')[0]}" for expression, uids in wanted.items())


def plan(given: Rehearsal) -> str:
    """What the reverse sweeps will take."""
    lines = given.worked(*given.catalog("plan")).out.splitlines()
    chosen = next((line for line in lines if "this catalog's" in line), "")
    check(bool(chosen), f"no plan was chosen: {lines}")
    return " ".join(chosen.removesuffix("<- this catalog's").split())


def curate(given: Rehearsal) -> str:
    """Two rounds on eight tasks; what the tables say of the chosen one is what its subset file holds."""
    said = given.worked(*given.catalog("curate")).said
    check("7 of DataComp's 38 tasks are targets" in said, f"the tasks that were found were not told: {said[:1500]}")
    check("without a set there, and so no target: Stanford Cars, CIFAR-10" in said, "the missing tasks were not told")
    scored = given.ask("select count(distinct task) n from task_scores")[0]["n"]
    same("tasks in task_scores", scored, len(given.sets))
    rounds = given.ask("select * from rounds_summary order by round")
    (chosen,) = [row["round"] for row in rounds if row["chosen"]]
    counts = given.ask(
        f"select replace(uid::text, '-', '') uid, count from counts where round = {chosen} and count > 0"
    )
    told = Counter({row["uid"]: row["count"] for row in counts})
    own = given.home / "runs" / given.run / "subset.npy"
    same("the subset file and the table of counts", Counter(read_uids(own)), told)
    moved = given.ask("select count(*) n from metagradients where round = 0")[0]["n"]
    check(moved > 0, "no sample was probed")
    alive = {one.uid for one in given.pool.alive()}
    check(set(told) <= alive, "the subset has samples whose links are dead")
    losses = " ".join(f"{row['heldout_loss']:.3f}" for row in rounds)
    return f"round {chosen} of {len(rounds) - 1}: {told.total():,} copies of {len(told):,}; held-out losses {losses}"


def again(given: Rehearsal) -> str:
    """The same command once more does nothing, and says the same."""
    own = given.home / "runs" / given.run / "subset.npy"
    before = own.read_bytes()
    given.worked(*given.catalog("curate"))
    same("the subset after the same command again", own.read_bytes() == before, True)
    return "the same bytes"


def export(given: Rehearsal) -> str:
    """DataComp's subset file: typed, sorted, with its repeats."""
    given.worked("export", "--format", "datacomp", "--run", given.run, "--out", given.subset)
    records = np.load(given.subset)
    same("its type", records.dtype, RECORD)
    same("its order", bool((np.sort(records, order=("f0", "f1")) == records).all()), True)
    own = given.home / "runs" / given.run / "subset.npy"
    same("uids", read_uids(given.subset), read_uids(own))
    return f"{len(records):,} records, {given.subset.stat().st_size:,} bytes"


def reshard(given: Rehearsal) -> str:
    """mgd's own shards of the subset hold the very samples of the pool's tars."""
    out, size = given.place / "shards-of-mgd", given.shard_size
    given.worked("reshard", given.pool_record, "--subset", given.subset, "--out", out, "--shard-size", size)
    same("samples", read_shards(out), wanted_samples(given))
    return f"{json.loads((out / 'meta.json').read_text())['output_count']:,} samples, byte for byte"


def evaluate(given: Rehearsal, checkpoint: Path | None, model: Path) -> str:
    """The model on all sets: a checkpoint of train.py's, or what the run trained; a line a task, once each."""
    which = ["--run", given.run] if checkpoint is None else ["--checkpoint", checkpoint, "--model", model]
    given.worked("evaluate", given.evalsets, given.rest, *which, "--any-size", "--out", given.results.parent)
    lines = [json.loads(line) for line in given.results.read_text().splitlines()]
    same("tasks", sorted(line["key"] for line in lines), sorted(tasks()))
    name = given.run if checkpoint is None else "all"
    only = "subset = 'mgd'" if checkpoint is None else "run like 'checkpoint-%'"
    table = given.ask(f"select task, metric, value from evaluations where {only}", name)
    rows = {(row["task"], row["metric"]): row["value"] for row in table}
    for line in lines:
        for metric, value in line["metrics"].items():
            if value is not None and metric != "main_metric":
                same(f"{line['key']}, {metric}", rows.get((line["key"], metric)), value)
    check(("wds/voc2007_multilabel", "mean_average_precision") in rows, "the set of several labels was not evaluated")
    kept = "the checkpoint of train.py" if checkpoint else "the run's own model"
    return f"{len(lines)} tasks of DataComp and one more, by {kept}"


def submit(given: Rehearsal, shards: Path, info: Path | None) -> str:
    """The folder, byte for byte what went in; and what contradicts it is refused."""
    method = given.place / "method.toml"
    method.write_text(METHOD)
    said = ["submit-folder", "--out", given.submission, "--results", given.results, "--method", method]
    said += ["--scale", "small", "--subset", given.subset, "--pool", given.pool_record]
    size = len(np.load(given.subset))
    told = given.refused(*said, "--shards", shards, "--dataset-size", size + 1)
    check("stated dataset size" in told, f"a wrong dataset size was refused for another reason: {told}")
    if info is not None:
        told = given.refused(*said, "--shards", shards, "--info", info)
        check("trained at scale 'debug'" in told, f"another scale's training was refused for another reason: {told}")
    given.worked(*said, "--shards", shards, "--dataset-size", size)
    kept = given.submission / "small_scale"
    same("the subset", (kept / "samples" / given.subset.name).read_bytes() == given.subset.read_bytes(), True)
    same("the results", (kept / "results.jsonl").read_bytes() == given.results.read_bytes(), True)
    record = json.loads((given.submission / "submission.json").read_text())
    same("the dataset size", record["dataset_size"], size)
    same("scores by name", record["scores"], scores_of(given.results))
    return f"{size:,} samples, average {record['aggregates']['Average']:.3f}; a wrong size and another scale refused"


def scores_of(results: Path) -> dict[str, float]:
    """Main metrics by name, of the tasks that have one."""
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    main = {line["dataset"]: line["metrics"]["main_metric"] for line in lines}
    return {name: value for name, value in main.items() if value is not None}


def read_uids(path: Path) -> list[str]:
    """uids of a subset file, in its order, repeats and all."""
    return [f"{int(high):016x}{int(low):016x}" for high, low in np.load(path)]


def read_shards(directory: Path) -> Samples:
    """Samples in the tars of a folder."""
    found: Samples = Counter()
    for path in sorted(directory.glob("*.tar")):
        samples: dict[str, dict[str, bytes]] = {}
        with tarfile.open(path) as tar:
            for member in tar:
                key, extension = member.name.split(".", 1)
                file = tar.extractfile(member)
                samples.setdefault(key, {})[extension] = file.read() if file else b""
        for members in samples.values():
            found[(json.loads(members["json"])["uid"], members["jpg"], members["txt"])] += 1
    return found


def wanted_samples(given: Rehearsal) -> Samples:
    """Samples that a subset's shards should hold, from the pool's model."""
    known = {one.uid: one for one in given.pool.alive()}
    uids = read_uids(given.subset)
    return Counter((uid, known[uid].image or b"", known[uid].caption.encode()) for uid in uids)
