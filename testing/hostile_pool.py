"""Hostile pools: every defect that reference pools, tools and threads are known for, each with the end it must come to.

A defect is planted into a small DataComp pool. Its end is one of four, written beside it (`testing.defects`):

* `Rejected(reason, n)`: n rows of the rejects table and of the census, and a stop when the budget allows fewer;
* `Found(kind, n)`: n findings of the census; the pool is built, nobody is lost;
* `Stopped(words, kind)`: an error of ours whose message has these words, and a finding of the census; nothing is built;
* `Harmless()`: looks odd, is in order: nothing is rejected, found or lost.

`judge` plants one in a pool of its own; `judge_together` plants all that keep to their shards in one pool, two shards
each. Either builds the pool, takes the census, and says what was silent and which good samples are missing or not what
they were. A sample is good if whoever planted the defect left it whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from tasks.pool.pools import build_pool
from tasks.pool.record import BuildOptions, PoolRecord, TooManyRejects
from tasks.pool.samples import read_images
from testing.datacomp_pool import Attempt, DatacompPool, make_pool
from testing.whole_census import take_census

ANY = BuildOptions(max_rejects=1.0, max_damaged_shards=99)
NONE = BuildOptions(max_rejects=0, max_damaged_shards=0)


@dataclass(frozen=True)
class Rejected:
    """n samples (or a tar) end in the rejects table."""

    kind: str
    n: int = 1


@dataclass(frozen=True)
class Found:
    """n findings of the census."""

    kind: str
    n: int = 1


@dataclass(frozen=True)
class Stopped:
    """The build stops with a message that has these words, and the census has one finding."""

    words: str
    kind: str
    n: int = 1


@dataclass(frozen=True)
class Harmless:
    """Nothing happens."""

    kind: str = ""
    n: int = 0


End = Rejected | Found | Stopped | Harmless
Good = Mapping[str, Attempt]
Plant = Callable[[DatacompPool], "set[str] | None"]
"""Plants a defect at `pool.at` and returns the uids that it spoils."""


@dataclass(frozen=True)
class Defect:
    """A defect: the section of the reference that knows it, its end, and how it comes about: in the model before the
    files are written, or `after`, in the files; `wide` where it reaches beyond shard `at` and the next."""

    name: str
    section: str
    end: End
    plant: Plant
    after: bool
    wide: bool


@dataclass(frozen=True)
class Judgement:
    """How a defect ended. `silent` says what was to be seen and was not; empty: all of it was."""

    silent: str
    lost: int
    good: int


DEFECTS: dict[str, Defect] = {}


def defect(section: str, end: End, after: bool = False, wide: bool = False) -> Callable[[Plant], Plant]:
    """Enter a defect under its function's name."""

    def enter(plant: Plant) -> Plant:
        DEFECTS[plant.__name__] = Defect(plant.__name__, section, end, plant, after, wide)
        return plant

    return enter


def judge(one: Defect, scratch: Path) -> Judgement:
    """Plant a defect in a pool of its own below `scratch`, build the pool and take its census."""
    pool = make_pool(scratch / "pool")
    usual = Counter(dead_link=len(pool.attempts) - len(pool.alive()))
    good = _plant(pool, {1: one})
    built = _build(pool, scratch / "home", ANY)
    if isinstance(one.end, Stopped):
        silent = "" if isinstance(built, Exception) and one.end.words in str(built) else f"no such stop: {built}"
        return Judgement(silent or _census(pool, scratch / "home", one.end, usual), 0, 0)
    if isinstance(built, Exception):
        return Judgement(f"stopped with {type(built).__name__}: {built}", 0, len(good))
    silent = _budget(one.end, _build(pool, scratch / "home", NONE))
    return Judgement(silent or _census(pool, scratch / "home", one.end, usual), len(_lost(built, good)), len(good))


def judge_together(defects: Iterable[Defect], scratch: Path) -> dict[str, Judgement]:
    """Plant defects that are not wide in one pool, defect j in shards 2j and 2j + 1."""
    planted = {2 * j: one for j, one in enumerate(defects)}
    pool = make_pool(scratch / "pool", 2 * len(planted))
    usual = {at: sum(a.image is None for shard in pool.shards[at : at + 2] for a in shard) for at in planted}
    good = _plant(pool, planted)
    homes = {whole(a.uid): at for at in planted for shard in pool.shards[at : at + 2] for a in shard}
    built = _build(pool, scratch / "home", ANY)
    if isinstance(built, Exception):
        raise built
    take_census(str(pool.directory / "shards"), scratch / "home", ANY)
    lost = Counter(homes[uid] for uid in _lost(built, good))
    rejects = _by_place(built.rejects_path, "reason")
    (findings_path,) = (scratch / "home" / "census").glob("*/findings.parquet")
    findings = _by_place(findings_path, "kind")
    judged = {}
    for at, one in planted.items():
        refused = rejects.get(at, Counter())
        wanted = Counter({one.end.kind: one.end.n}) if isinstance(one.end, Rejected) else Counter[str]()
        silent = "" if refused == wanted else f"expected the rejects {dict(wanted)}, got {dict(refused)}"
        silent = silent or _compare(one.end, findings.get(at, Counter()) - Counter(dead_link=usual[at]))
        judged[one.name] = Judgement(silent, lost[at], sum(homes[uid] == at for uid in good))
    return judged


def whole(uid: str) -> str:
    """A uid in its full form."""
    return uid.lower().zfill(32)


def _plant(pool: DatacompPool, planted: Mapping[int, Defect]) -> Good:
    """Plant defects by shard and write the pool; returns the samples that are good."""
    spoilt: set[str] = set()
    for at, one in planted.items():
        if not one.after:
            pool.at = at
            spoilt |= one.plant(pool) or set()
    # Of two samples with one uid the first is the good one.
    good = {whole(a.uid): a for a in reversed(pool.alive())}
    pool.write()
    for at, one in planted.items():
        if one.after:
            pool.at = at
            spoilt |= one.plant(pool) or set()
    return {uid: one for uid, one in good.items() if uid not in spoilt}


def _build(pool: DatacompPool, home: Path, options: BuildOptions) -> PoolRecord | Exception:
    """The pool, or the error of ours that it ended with."""
    try:
        return build_pool(str(pool.directory / "shards"), home, options)
    except Exception as error:
        if type(error).__module__.startswith("tasks."):
            return error
        raise


def _lost(record: PoolRecord, good: Good) -> list[str]:
    """Good samples that are missing, or whose picture, caption or scores are not theirs."""
    with pq.ParquetFile(record.samples_path) as file:
        table = file.read()
    images = read_images(table, record.directory)
    held = {row["uid"].hex: (row, image) for row, image in zip(table.to_pylist(), images, strict=True)}
    lost = []
    for uid, attempt in good.items():
        row, image = held.get(uid, ({}, b""))
        score = row.get("clip_b32_similarity_score")
        right = score is None or np.float32(score) == np.float32(int(attempt.crawled_sha256[:4], 16) / 2**17)
        if image != attempt.image or row.get("text") != attempt.caption or not (right or np.isnan(score)):
            lost.append(uid)
    return lost


def _budget(end: End, built: PoolRecord | Exception) -> str:
    """What is silent without a budget: no stop, or one that does not say what it is about."""
    wanted = f"{end.n} {end.kind}"
    if isinstance(end, Rejected):
        return "" if isinstance(built, TooManyRejects) and wanted in str(built) else f"no stop at {wanted}: {built}"
    return f"stopped with {built}" if isinstance(built, Exception) else ""


def _census(pool: DatacompPool, home: Path, end: End, usual: Counter[str]) -> str:
    try:
        record = take_census(str(pool.directory / "shards"), home, ANY)
    except Exception as error:
        return f"no census: {type(error).__name__}: {error}"
    return _compare(end, Counter(record.findings) - usual)


def _compare(end: End, found: Counter[str]) -> str:
    """What is silent in a census: the finding that was to come, or one that was not."""
    if isinstance(end, Harmless):
        return f"the census finds {dict(found)} in a pool that is in order" if found else ""
    return "" if found[end.kind] == end.n else f"expected {end.n} {end.kind} in the census, got {dict(found)}"


def _by_place(path: Path, column: str) -> dict[int, Counter[str]]:
    """Rows of rejects or findings, counted by the even shard number below them and by reason or kind."""
    with pq.ParquetFile(path) as file:
        rows = file.read(["shard", "member", column]).to_pylist()
    places: dict[int, Counter[str]] = {}
    for row in rows:
        digits = row["shard"].removesuffix(".tar") or row["member"]  # a gap has no shard, its number is the member
        if digits.isdigit():
            places.setdefault(int(digits) // 2 * 2, Counter())[row[column]] += 1
    return places
