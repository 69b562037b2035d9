"""Does any defect that pools are known for pass unseen, or take good samples with it?

`python -m benchmarks.hostile` plants every defect of `testing.defects` in a DataComp pool, once alone and, where it
keeps to its shards, once among all others, builds the pool, takes the census, and compares with the end that is
written beside the defect: a reject, a finding, a stop with its words, or nothing at all. Wrong subset files are
judged too. `--quick` leaves out the pools with one shard defect each.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path

from benchmarks._envelope import emit
from testing.defects import SUBSETS, judge_subset
from testing.hostile_pool import DEFECTS, Judgement, judge, judge_together


def main() -> None:
    """Judge all defects and print a table and the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="shard defects in one pool only, under 45 s")
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mgd-hostile-") as scratch:
        judged = _judge_all(Path(scratch), options.quick)
    silent = sorted({name for name, _, one in judged if one.silent})
    good, lost = sum(one.good for *_, one in judged), sum(one.lost for *_, one in judged)
    _print_table(judged)
    names = {name for name, *_ in judged}
    print(f"\n{len(names)} defects, {len(judged)} judged: {len(silent)} silent, {lost} of {good:,} good samples lost")
    emit(
        "hostile",
        {
            "quick": options.quick,
            "defects": len(names),
            "silent": len(silent),
            "silent_names": silent,
            "lost_good": lost,
            "good": good,
            "seconds": round(time.monotonic() - began, 1),
        },
    )


def _judge_all(scratch: Path, quick: bool) -> list[tuple[str, str, Judgement]]:
    """(defect, where, judgement) of everything."""
    together = judge_together([one for one in DEFECTS.values() if not one.wide], scratch / "together")
    judged = [(name, "together", one) for name, one in together.items()]
    for name, one in DEFECTS.items():
        if one.wide or not quick:
            judged.append((name, "alone", judge(one, scratch / name)))
    for name in SUBSETS:
        judged.append((name, "file", Judgement(judge_subset(name, scratch), 0, 0)))
    return judged


def _print_table(judged: list[tuple[str, str, Judgement]]) -> None:
    print(f"{'section':>7} {'defect':<36} {'end':<34} judged")
    seen: Counter[str] = Counter(name for name, *_ in judged)
    wrong = {name: one for name, _, one in judged if one.silent or one.lost}
    for name in dict.fromkeys(name for name, *_ in judged):
        if name in DEFECTS:
            one = DEFECTS[name]
            end = f"{type(one.end).__name__.lower()} {one.end.kind} {one.end.n or ''}".strip()
            section = one.section
        else:
            end, section = f"refused: {SUBSETS[name][1]}", "2"
        verdict = f"SILENT: {wrong[name].silent}, lost {wrong[name].lost}" if name in wrong else "as written"
        print(f"{section:>7} {name:<36} {end[:34]:<34} {verdict} ({seen[name]}x)")


if __name__ == "__main__":
    main()
